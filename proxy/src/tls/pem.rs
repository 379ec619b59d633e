//! Reading PEM. Errors say where and what was expected, and never repeat what they read.

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::TlsError;
use crate::model::tls::DataSource;

/// Bytes of a data source together with the place to name in errors.
pub(crate) struct Source {
    pub(crate) place: String,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

impl Source {
    /// Reads it. `place` is the secret or field; a file's path is added.
    pub(crate) fn read(source: &DataSource, place: &str) -> Result<Self, TlsError> {
        match source {
            DataSource::Inline(bytes) => {
                Ok(Self { place: place.to_owned(), bytes: bytes.as_ref().clone() })
            }
            DataSource::File(path) => {
                let place = format!("{place} (file {})", path.display());
                match std::fs::read(path) {
                    Ok(bytes) => Ok(Self { place, bytes: Zeroizing::new(bytes) }),
                    Err(error) => Err(TlsError::bad(place, format!("cannot be read: {error}"))),
                }
            }
        }
    }

    /// All certificates; at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        self.all("CERTIFICATE")
    }

    /// All revocation lists; at least one.
    pub(crate) fn revocation_lists(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        self.all("X509 CRL")
    }

    /// The first private key.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            PemError::NoItemsFound if self.is_encrypted() => self
                .bad("the private key is encrypted with a password: expected an unencrypted one"),
            error => self.bad(what(&error, "PRIVATE KEY", self.bytes.is_empty())),
        })
    }

    pub(crate) fn bad(&self, what: impl Into<String>) -> TlsError {
        TlsError::bad(self.place.clone(), what)
    }

    fn all<T: PemObject>(&self, label: &str) -> Result<Vec<T>, TlsError> {
        let found = T::pem_slice_iter(&self.bytes)
            .collect::<Result<Vec<T>, _>>()
            .map_err(|error| self.bad(what(&error, label, false)))?;
        if found.is_empty() {
            return Err(self.bad(what(&PemError::NoItemsFound, label, self.bytes.is_empty())));
        }
        Ok(found)
    }

    fn is_encrypted(&self) -> bool {
        let marker = b"ENCRYPTED";
        self.bytes.windows(marker.len()).any(|window| window == marker)
    }
}

/// In words of our own: rustls' would repeat lines of the input.
fn what(error: &PemError, label: &str, empty: bool) -> String {
    match error {
        PemError::NoItemsFound if empty => format!("is empty: expected a PEM block {label}"),
        PemError::NoItemsFound => format!("has no PEM block {label}"),
        PemError::MissingSectionEnd { .. } => "a PEM block has no END line (cut short?)".to_owned(),
        PemError::IllegalSectionStart { .. } => "a BEGIN line of PEM is malformed".to_owned(),
        PemError::Base64Decode(_) => "a PEM block is not valid base64".to_owned(),
        _ => format!("is not readable as PEM {label}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn inline(text: &str) -> Source {
        let bytes = Arc::new(Zeroizing::new(text.as_bytes().to_vec()));
        Source::read(&DataSource::Inline(bytes), "secret \"x\"").unwrap()
    }

    #[test]
    fn errors_name_the_place_and_never_the_content() {
        let cases = [
            ("", "is empty: expected a PEM block PRIVATE KEY"),
            ("hunter2", "has no PEM block PRIVATE KEY"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2\n", "no END line"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2!?\n-----END PRIVATE KEY-----\n", "base64"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "encrypted with a password",
            ),
        ];
        for (text, want) in cases {
            let error = inline(text).private_key().unwrap_err().to_string();
            assert!(error.starts_with("secret \"x\": "), "{error}");
            assert!(error.contains(want), "{error} has no {want}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = match Source::read(&DataSource::File("/no/such/file.pem".into()), "trusted_ca")
        {
            Ok(_) => panic!("the file exists"),
            Err(error) => error.to_string(),
        };
        assert!(
            error.starts_with("trusted_ca (file /no/such/file.pem): cannot be read: "),
            "{error}"
        );
    }
}
