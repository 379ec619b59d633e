//! Whether a token was signed by one of these keys.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use aws_lc_rs::{error::Unspecified, hmac};

use super::{Fault, Token};
use crate::model::jwt::{Algorithm, Curve, Jwks, Key, Material};

const ED25519_SIGNATURE: usize = 64;

/// Whether the token `text` is signed by a key of the set. Which keys are tried is said by the
/// token's `kid` and `alg`; what a key can do is said by the key alone, so that a token cannot
/// have an RSA key used as a secret.
pub(super) fn verify(token: &Token, text: &str, keys: &Jwks) -> Result<(), Fault> {
    let signed = &text.as_bytes()[..token.signed];
    let mut tried = false;
    for key in keys.keys.iter().filter(|key| may_be(key, token)) {
        tried = true;
        if !goes_with(token.algorithm, &key.material) {
            continue;
        }
        if token.algorithm == Algorithm::EdDsa && token.signature.len() != ED25519_SIGNATURE {
            return Err(Fault::SignatureLength);
        }
        if is_signed(token.algorithm, &key.material, signed, &token.signature).is_ok() {
            return Ok(());
        }
    }
    Err(if tried { Fault::Verification } else { Fault::NoKeyMatches })
}

/// Whether a key of this material can verify this algorithm (RFC 7518 section 3: each curve has
/// its one algorithm).
pub(super) fn goes_with(algorithm: Algorithm, material: &Material) -> bool {
    use Algorithm as A;
    match material {
        Material::Rsa(..) | Material::RsaDer(_) => {
            matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
        }
        Material::Ec(Curve::P256, _) => algorithm == A::Es256,
        Material::Ec(Curve::P384, _) => algorithm == A::Es384,
        Material::Ec(Curve::P521, _) => algorithm == A::Es512,
        Material::Ed25519(_) => algorithm == A::EdDsa,
        Material::Oct(_) => matches!(algorithm, A::Hs256 | A::Hs384 | A::Hs512),
    }
}

fn may_be(key: &Key, token: &Token) -> bool {
    let id = match (&key.id, &token.key) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => true,
    };
    id && key.algorithm.is_none_or(|algorithm| algorithm == token.algorithm)
}

fn is_signed(
    algorithm: Algorithm,
    material: &Material,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), Unspecified> {
    match material {
        Material::Rsa(n, e) => {
            RsaPublicKeyComponents { n, e }.verify(rsa(algorithm)?, signed, signature)
        }
        Material::RsaDer(der) => {
            UnparsedPublicKey::new(rsa(algorithm)?, der).verify(signed, signature)
        }
        Material::Ec(curve, point) => {
            let algorithm: &'static dyn VerificationAlgorithm = match curve {
                Curve::P256 => &ECDSA_P256_SHA256_FIXED,
                Curve::P384 => &ECDSA_P384_SHA384_FIXED,
                Curve::P521 => &ECDSA_P521_SHA512_FIXED,
            };
            UnparsedPublicKey::new(algorithm, point).verify(signed, signature)
        }
        Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature),
        Material::Oct(secret) => {
            let algorithm = match algorithm {
                Algorithm::Hs256 => hmac::HMAC_SHA256,
                Algorithm::Hs384 => hmac::HMAC_SHA384,
                Algorithm::Hs512 => hmac::HMAC_SHA512,
                _ => return Err(Unspecified),
            };
            hmac::verify(&hmac::Key::new(algorithm, secret), signed, signature)
        }
    }
}

fn rsa(algorithm: Algorithm) -> Result<&'static RsaParameters, Unspecified> {
    Ok(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return Err(Unspecified),
    })
}
