//! `Secret` (core/v1) of type `kubernetes.io/tls`: a certificate and its key.
//!
//! What it says is never shown: no message repeats any of it, and the key prints as nothing.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::decode::{At, Context, Object, text};
use super::meta::{Meta, Name};
use super::yaml::Value;

/// Annotations that name files on the gateway's machine.
const CERTIFICATE_FILE: &str = "pillion.io/cert-file";
const KEY_FILE: &str = "pillion.io/key-file";

/// The type that we read.
const TLS: &str = "kubernetes.io/tls";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A certificate for gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Namespace and name.
    pub name: Name,
    /// Where certificate and key are. `None`: it says nothing of them, or is of another type.
    pub source: Option<CertificateSource>,
}

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// In PEM files on the gateway's machine.
    Files {
        /// Chain, the leaf first.
        chain: String,
        /// Private key.
        key: String,
    },
    /// In the Secret itself, as PEM. Only a gateway in this very process gets it.
    Inline {
        /// Chain, the leaf first.
        chain: String,
        /// Private key.
        key: PrivateKey,
    },
}

/// A private key as PEM. It is wiped from memory when it goes, and prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<String>);

impl PrivateKey {
    /// The text, for whoever hands it to TLS.
    pub(crate) fn pem(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl Secret {
    /// `root` is the whole document: a Secret has no `spec`.
    pub(crate) fn decode(cx: &mut Context, meta: &Meta, root: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, root)?;
        let kind = object.optional(cx, "type", text).unwrap_or_else(|| "Opaque".to_owned());
        if kind != TLS {
            cx.warn(root, format!("a Secret of another type than `{TLS}` has no effect here"));
            return Some(Self { name: meta.name.clone(), source: None });
        }
        let annotation = |name: &str| meta.annotations.get(name).map(|one| one.value.clone());
        let files = match (annotation(CERTIFICATE_FILE), annotation(KEY_FILE)) {
            (Some(chain), Some(key)) => Some(CertificateSource::Files { chain, key }),
            (None, None) => None,
            _ => {
                return cx.error(
                    root,
                    format!("the annotations `{CERTIFICATE_FILE}` and `{KEY_FILE}` go together"),
                );
            }
        };
        let inline = inline(cx, root, &mut object)?;
        if files.is_some() && inline.is_some() {
            return cx
                .error(root, "it names files, and holds a certificate itself: which is meant?");
        }
        Some(Self { name: meta.name.clone(), source: files.or(inline) })
    }
}

/// `Some(None)`: it holds nothing.
#[expect(clippy::option_option, reason = "wrong, nothing and something are three things")]
fn inline(
    cx: &mut Context,
    root: &At<'_>,
    object: &mut Object<'_>,
) -> Option<Option<CertificateSource>> {
    let mut texts: BTreeMap<&'static str, Zeroizing<String>> = BTreeMap::new();
    for (field, encoded) in [("data", true), ("stringData", false)] {
        let Some(at) = object.field(field) else { continue };
        let mut map = Object::open(cx, &at)?;
        for name in [CERTIFICATE, KEY] {
            if let Some(at) = map.field(name) {
                texts.insert(name, content(cx, &at, encoded)?);
            }
        }
    }
    match (texts.remove(CERTIFICATE), texts.remove(KEY)) {
        (None, None) => Some(None),
        (Some(chain), Some(key)) => Some(Some(CertificateSource::Inline {
            chain: String::clone(&chain),
            key: PrivateKey(key),
        })),
        _ => cx.error(root, format!("it needs both `{CERTIFICATE}` and `{KEY}`")),
    }
}

/// Text that no message repeats.
fn content(cx: &mut Context, at: &At<'_>, encoded: bool) -> Option<Zeroizing<String>> {
    let Value::Text(written) = &at.node.value else {
        return cx.error(at, "expected a text (what is there is not shown)");
    };
    if !encoded {
        return Some(Zeroizing::new(written.clone()));
    }
    let packed: Zeroizing<String> = Zeroizing::new(written.split_whitespace().collect());
    let bytes = STANDARD.decode(packed.as_bytes()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    match text {
        Some(text) => Some(Zeroizing::new(text)),
        None => cx.error(at, "expected the base64 of a PEM text (what is there is not shown)"),
    }
}
