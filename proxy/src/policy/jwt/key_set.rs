//! JSON Web Key Sets (RFC 7517, RFC 7518 section 6, RFC 8037), and Google's older form: an object
//! of certificates by key id.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::Fault;
use super::token::decode;
use crate::model::jwt::{Algorithm, Curve, Jwks, Key, Material};

/// The usable keys of a set; those of kinds that we do not know are passed over, as RFC 7517
/// section 5 asks.
///
/// # Errors
/// It is no key set, or not one of its keys is usable.
pub fn parse(json: &[u8]) -> Result<Jwks, Fault> {
    let Ok(Value::Object(set)) = serde_json::from_slice(json) else { return Err(Fault::SetJson) };
    let keys: Vec<Key> = match set.get("keys") {
        Some(Value::Array(keys)) => keys.iter().filter_map(key).collect(),
        Some(_) => return Err(Fault::SetKeys),
        None if !set.is_empty() && set.values().all(is_certificate) => {
            set.iter().filter_map(|(id, pem)| certified(id, pem.as_str()?)).collect()
        }
        None => return Err(Fault::SetWithoutKeys),
    };
    if keys.is_empty() { Err(Fault::NoValidKeys) } else { Ok(Jwks { keys }) }
}

fn key(value: &Value) -> Option<Key> {
    let key = value.as_object()?;
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    // A key for encryption signs nothing (RFC 7517 section 4.2).
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let algorithm = match text("alg").filter(|name| !name.is_empty()) {
        Some(name) => Some(Algorithm::named(name)?),
        None => None,
    };
    let material = match text("kty")? {
        "RSA" => rsa(key)?,
        "EC" => ec(key, algorithm)?,
        "OKP" if text("crv") == Some("Ed25519") => {
            Material::Ed25519(bytes(key, "x").filter(|bytes| bytes.len() == 32)?)
        }
        "oct" => {
            let secret = bytes(key, "k").filter(|bytes| !bytes.is_empty())?;
            Material::Oct(Arc::new(Zeroizing::new(secret)))
        }
        _ => return None,
    };
    if algorithm.is_some_and(|algorithm| !super::signature::goes_with(algorithm, &material)) {
        return None;
    }
    let id = text("kid").filter(|id| !id.is_empty()).map(str::to_owned);
    Some(Key { id, algorithm, material })
}

fn rsa(key: &Map<String, Value>) -> Option<Material> {
    let modulus = number(key, "n")?;
    let exponent = number(key, "e")?;
    // The two that are in use; anything else is a way to be slow or weak.
    let usual = matches!(exponent[..], [3] | [1, 0, 1]);
    (usual && modulus.len() >= 256).then_some(Material::Rsa(modulus, exponent))
}

fn ec(key: &Map<String, Value>, algorithm: Option<Algorithm>) -> Option<Material> {
    let curve = match (key.get("crv").and_then(Value::as_str), algorithm) {
        (Some("P-256"), _) => Curve::P256,
        (Some("P-384"), _) => Curve::P384,
        (Some("P-521"), _) => Curve::P521,
        (Some(_), _) => return None,
        (None, None | Some(Algorithm::Es256)) => Curve::P256,
        (None, Some(Algorithm::Es384)) => Curve::P384,
        (None, Some(Algorithm::Es512)) => Curve::P521,
        (None, Some(_)) => return None,
    };
    let size = match curve {
        Curve::P256 => 32,
        Curve::P384 => 48,
        Curve::P521 => 66,
    };
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = number(key, name)?;
        let missing = usize::checked_sub(size, coordinate.len())?;
        point.extend(std::iter::repeat_n(0, missing));
        point.extend(coordinate);
    }
    Some(Material::Ec(curve, point))
}

fn is_certificate(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE-----"))
}

fn certified(id: &str, pem: &str) -> Option<Key> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let public = certificate.public_key();
    let is_rsa = matches!(public.parsed(), Ok(x509_parser::public_key::PublicKey::RSA(_)));
    let material = Material::RsaDer(public.subject_public_key.data.to_vec());
    is_rsa.then(|| Key { id: Some(id.to_owned()), algorithm: None, material })
}

fn bytes(key: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    decode(key.get(name)?.as_str()?)
}

/// A big-endian number, without leading zeros.
fn number(key: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    let mut bytes = bytes(key, name)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    (!bytes.is_empty()).then_some(bytes)
}
