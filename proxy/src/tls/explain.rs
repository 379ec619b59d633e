//! TLS failures in words, and in Envoy's classes.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::error::{NameMismatch, PinMismatch};

/// Which of Envoy's `ssl.*` counters a failed handshake belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client had no certificate where one is required.
    NoCertificate,
    /// The chain did not verify: expired, unknown authority, revoked, wrong purpose.
    Verify,
    /// A name did not match.
    San,
    /// A pin did not match.
    Hash,
    /// Anything else: protocol, alert from the other side, cut connection.
    Connection,
}

impl Failure {
    /// Name of the counter, after `ssl.`.
    pub fn stat(self) -> &'static str {
        match self {
            Self::NoCertificate => "fail_verify_no_cert",
            Self::Verify => "fail_verify_error",
            Self::San => "fail_verify_san",
            Self::Hash => "fail_verify_cert_hash",
            Self::Connection => "connection_error",
        }
    }
}

/// The class of a TLS error.
pub fn failure(error: &Error) -> Failure {
    match error {
        Error::NoCertificatesPresented => Failure::NoCertificate,
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            if other.0.is::<NameMismatch>() {
                Failure::San
            } else if other.0.is::<PinMismatch>() {
                Failure::Hash
            } else {
                Failure::Verify
            }
        }
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => Failure::Verify,
        _ => Failure::Connection,
    }
}

/// The class of what a handshake on a socket returned.
pub fn failure_io(error: &io::Error) -> Failure {
    tls_error(error).map_or(Failure::Connection, failure)
}

/// What went wrong, for a person: which side, what it showed, what was expected.
pub fn explain(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => {
            "the peer presented no certificate, and one is required".to_owned()
        }
        Error::InvalidCertificate(certificate) => explain_certificate(certificate),
        Error::InvalidCertRevocationList(error) => {
            format!("the revocation list cannot be used: {error:?}")
        }
        Error::AlertReceived(alert) => explain_alert(*alert),
        Error::InvalidMessage(_) => {
            format!("the peer does not speak TLS on this connection ({error})")
        }
        Error::PeerIncompatible(why) => explain_incompatible(why),
        Error::NoApplicationProtocol => "the peers share no ALPN protocol".to_owned(),
        error => error.to_string(),
    }
}

/// The same for what a handshake, read or write on a TLS stream returned.
pub fn explain_io(error: &io::Error) -> String {
    match tls_error(error) {
        Some(error) => explain(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the peer closed the connection during the TLS handshake".to_owned()
        }
        None => error.to_string(),
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the peer's certificate expired at {}", utc_unix(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the peer's certificate is not valid before {}", utc_unix(*not_before))
        }
        CertificateError::UnknownIssuer => {
            "the peer's certificate is not signed by an authority that is trusted here (unknown issuer)".to_owned()
        }
        CertificateError::Revoked => "the peer's certificate is revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "no revocation list covers the peer's certificate".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the peer's certificate may not be used for this side of TLS (extended key usage)".to_owned()
        }
        CertificateError::BadSignature => {
            "a signature in the peer's certificate chain or handshake is wrong".to_owned()
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "the peer presents a CA certificate as its own".to_owned()
            }
            Some(error) => format!("the peer's certificate is not acceptable: {error:?}"),
            None => other.0.to_string(),
        },
        error => format!("the peer's certificate is not acceptable: {error}"),
    }
}

/// The other side refused us: say what it most likely did not like.
fn explain_alert(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::CertificateRequired => "it requires a client certificate and got none",
        AlertDescription::UnknownCA => {
            "it does not trust the authority that signed our certificate"
        }
        AlertDescription::CertificateExpired => "for it our certificate has expired",
        AlertDescription::CertificateRevoked => "for it our certificate is revoked",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it does not accept our certificate (often its name)"
        }
        AlertDescription::AccessDenied => "it does not accept the name in our certificate",
        AlertDescription::HandshakeFailure => {
            "there is no version, cipher or key that both support"
        }
        AlertDescription::ProtocolVersion => "there is no TLS version that both support",
        AlertDescription::NoApplicationProtocol => "there is no ALPN protocol that both support",
        AlertDescription::UnrecognisedName => "it does not know the server name that we sent",
        other => return format!("the peer refused the connection with the TLS alert {other:?}"),
    };
    format!("the peer refused the connection: {why} (TLS alert {alert:?})")
}

fn explain_incompatible(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            "there is no TLS version that both sides allow".to_owned()
        }
        why => format!("there is no common ground in TLS: {why:?}"),
    }
}

fn utc_unix(time: UnixTime) -> String {
    utc(UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

/// `2026-08-01 12:00:00 UTC`
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Gregorian date of a day since 1970. Counts in eras of 400 years that begin on 1 March, so that
/// the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_735_689_599), "2024-12-31 23:59:59 UTC");
        assert_eq!(at(4_102_444_800), "2100-01-01 00:00:00 UTC");
    }

    #[test]
    fn alerts_and_garbage_are_explained() {
        let text = explain(&Error::AlertReceived(AlertDescription::CertificateRequired));
        assert!(text.contains("requires a client certificate"), "{text}");
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, Error::NoCertificatesPresented);
        assert_eq!(failure_io(&wrapped), Failure::NoCertificate);
        assert!(explain_io(&wrapped).contains("presented no certificate"));
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(failure_io(&cut).stat(), "connection_error");
        assert!(explain_io(&cut).contains("closed the connection"));
    }
}
