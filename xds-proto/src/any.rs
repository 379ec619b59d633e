//! Typed messages in and out of `google.protobuf.Any`.

use prost::{DecodeError, Name};
use prost_types::Any;

/// Why an `Any` could not be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It holds another type.
    #[error("expected {expected}, got {got:?}")]
    Type {
        /// Full name of the message that was asked for.
        expected: String,
        /// Type URL that was there.
        got: String,
    },
    /// It claims the right type, but its bytes are damaged.
    #[error("malformed {expected}: {error}")]
    Malformed {
        /// Full name of the message that was asked for.
        expected: String,
        /// What prost said.
        error: DecodeError,
    },
}

/// A generated message that can travel in an `Any`. Every message of this crate is one.
pub trait Packable: Name + Default {
    /// Packs it under its `type.googleapis.com/…` URL.
    fn pack(&self) -> Any {
        Any { type_url: Self::type_url(), value: self.encode_to_vec() }
    }

    /// Unpacks an `Any` that holds this type. Only the name behind the last `/` of the URL counts.
    fn unpack(any: &Any) -> Result<Self, UnpackError> {
        if !is::<Self>(any) {
            return Err(UnpackError::Type {
                expected: Self::full_name(),
                got: any.type_url.clone(),
            });
        }
        Self::decode(any.value.as_slice())
            .map_err(|error| UnpackError::Malformed { expected: Self::full_name(), error })
    }
}

impl<M: Name + Default> Packable for M {}

/// Packs a message: `pack(&router)`.
pub fn pack<M: Packable>(message: &M) -> Any {
    message.pack()
}

/// Unpacks a message: `unpack::<Router>(&any)`.
pub fn unpack<M: Packable>(any: &Any) -> Result<M, UnpackError> {
    M::unpack(any)
}

/// Whether an `Any` holds this type.
pub fn is<M: Name>(any: &Any) -> bool {
    type_name(&any.type_url) == M::full_name()
}

/// The full message name of a type URL: what follows the last `/`.
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::extensions::filters::http::cors::v3::Cors;
    use crate::envoy::extensions::filters::http::router::v3::Router;

    #[test]
    fn packs_under_the_usual_url_and_unpacks() {
        let router = Router { suppress_envoy_headers: true, ..Router::default() };
        let any = pack(&router);
        assert_eq!(
            any.type_url,
            "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        );
        assert!(is::<Router>(&any));
        assert_eq!(unpack::<Router>(&any), Ok(router));
    }

    #[test]
    fn another_host_in_the_url_does_not_matter() {
        let mut any = pack(&Router::default());
        any.type_url = "example.com/x/envoy.extensions.filters.http.router.v3.Router".into();
        assert_eq!(unpack::<Router>(&any), Ok(Router::default()));
    }

    #[test]
    fn a_wrong_type_is_named() {
        let error = unpack::<Router>(&pack(&Cors::default())).expect_err("another type");
        assert_eq!(
            error.to_string(),
            "expected envoy.extensions.filters.http.router.v3.Router, got \
             \"type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors\""
        );
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let mut any = pack(&Router::default());
        any.value = vec![0xff];
        assert!(matches!(unpack::<Router>(&any), Err(UnpackError::Malformed { .. })));
    }
}
