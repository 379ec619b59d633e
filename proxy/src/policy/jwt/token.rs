//! A token, taken apart (RFC 7519).

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::Fault;
use crate::model::jwt::Algorithm;
use crate::model::metadata::{self, Fields};

/// base64url; padding may be there or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A token whose parts can be read; nothing of it is verified yet.
#[derive(Clone)]
pub struct Token {
    pub(super) algorithm: Algorithm,
    pub(super) key: Option<String>,
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audiences: Vec<String>,
    /// Seconds since 1970; 0: none.
    pub(super) expires: u64,
    pub(super) not_before: u64,
    pub(super) signature: Vec<u8>,
    /// Bytes of the token that are signed.
    pub(super) signed: usize,
    payload: String,
    claims: Map<String, Value>,
}

/// Claims are nobody's business.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Token {
    /// All claims, as metadata.
    pub fn fields(&self) -> Fields {
        self.claims.iter().map(|(name, value)| (name.clone(), noted(value))).collect()
    }

    /// Reads a compact JWS (RFC 7515 section 3.1) whose payload is a set of claims.
    ///
    /// # Errors
    /// The first part that cannot be read.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::BadFormat);
        };
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(Fault::BadFormat);
        }
        let head = object(&decode(header).ok_or(Fault::HeaderBase64)?).ok_or(Fault::HeaderJson)?;
        let algorithm = match head.get("alg") {
            Some(Value::String(name)) => Algorithm::named(name).ok_or(Fault::UnknownAlg)?,
            _ => return Err(Fault::HeaderAlg),
        };
        // What must be understood is not (RFC 7515 section 4.1.11).
        if head.contains_key("crit") {
            return Err(Fault::Verification);
        }
        let key = text_of(&head, "kid", Fault::HeaderKid)?.filter(|key| !key.is_empty());
        let claims =
            object(&decode(payload).ok_or(Fault::PayloadBase64)?).ok_or(Fault::PayloadJson)?;
        let issuer = text_of(&claims, "iss", Fault::Issuer)?.unwrap_or_default();
        let subject = text_of(&claims, "sub", Fault::Subject)?.unwrap_or_default();
        seconds(&claims, "iat")?;
        let not_before = seconds(&claims, "nbf")?;
        let expires = seconds(&claims, "exp")?;
        text_of(&claims, "jti", Fault::TokenId)?;
        let audiences = audiences(&claims)?;
        let signed = header.len() + 1 + payload.len();
        let signature = decode(signature).ok_or(Fault::SignatureBase64)?;
        let payload = payload.trim_end_matches('=').to_owned();
        Ok(Self {
            algorithm,
            key,
            issuer,
            subject,
            audiences,
            expires,
            not_before,
            signature,
            signed,
            payload,
            claims,
        })
    }

    /// The payload as it came, base64url, padded or not.
    pub fn payload(&self, padded: bool) -> String {
        let mut text = self.payload.clone();
        if padded {
            let missing = (4 - text.len() % 4) % 4;
            text.extend(std::iter::repeat_n('=', missing));
        }
        text
    }

    /// A claim as a header has it: a text, number or truth value as it is, anything else as the
    /// base64url of its JSON, as in Envoy. None: there is none. Dots lead into objects.
    pub fn claim(&self, name: &str) -> Option<String> {
        let value = self.claims.get(name).or_else(|| {
            let mut steps = name.split('.');
            let first = self.claims.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.as_object()?.get(step))
        })?;
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(whole), _) => whole.to_string(),
                (None, Some(real)) if real >= 0.0 && real.fract() == 0.0 && real < 1e19 => {
                    format!("{real:.0}")
                }
                (None, Some(real)) => format!("{real:.6}"),
                (None, None) => return None,
            },
            Value::Array(_) | Value::Object(_) => BASE64.encode(value.to_string()),
        };
        (!text.is_empty()).then_some(text)
    }
}

/// base64url, with or without padding. None: it is none.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

fn object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

fn text_of(from: &Map<String, Value>, name: &str, fault: Fault) -> Result<Option<String>, Fault> {
    match from.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(fault),
    }
}

fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<u64, Fault> {
    let Some(value) = claims.get(name) else { return Ok(0) };
    let Value::Number(number) = value else { return Err(Fault::NotInteger(name)) };
    if let Some(whole) = number.as_u64() {
        return Ok(whole);
    }
    match number.as_f64() {
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "in range")]
        Some(real) if (0.0..1.8e19).contains(&real) => Ok(real as u64),
        _ => Err(Fault::OutOfRange(name)),
    }
}

fn noted(value: &Value) -> metadata::Value {
    match value {
        Value::Null => metadata::Value::Null,
        Value::Bool(yes) => metadata::Value::Bool(*yes),
        Value::Number(number) => metadata::Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => metadata::Value::Text(text.clone()),
        Value::Array(all) => metadata::Value::List(all.iter().map(noted).collect()),
        Value::Object(fields) => metadata::Value::Struct(
            fields.iter().map(|(name, value)| (name.clone(), noted(value))).collect(),
        ),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, Fault> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(all)) => {
            let all = all.iter().map(|one| one.as_str().map(str::to_owned));
            all.collect::<Option<_>>().ok_or(Fault::Audience)
        }
        Some(_) => Err(Fault::Audience),
    }
}
