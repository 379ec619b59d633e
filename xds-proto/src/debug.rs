//! `Debug` of the messages that may hold a private key or a token: what they are about, not what
//! is inside. `build.rs` names the same messages.

use std::fmt::{Debug, Formatter, Result};

use prost_types::Any;

use crate::envoy::config::core::v3::{
    DataSource, HeaderValue, TransportSocket, data_source::Specifier, transport_socket::ConfigType,
};
use crate::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource, resource::CacheControl,
};
use crate::json::is_secret_header;

/// Type and size of a packed message.
struct Packed<'a>(&'a Any);

impl Debug for Packed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} ({} bytes)", crate::any::type_name(&self.0.type_url), self.0.value.len())
    }
}

impl Debug for Specifier {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Filename(name) => f.debug_tuple("Filename").field(name).finish(),
            Self::EnvironmentVariable(name) => {
                f.debug_tuple("EnvironmentVariable").field(name).finish()
            }
            Self::InlineBytes(bytes) => write!(f, "InlineBytes({} bytes)", bytes.len()),
            Self::InlineString(text) => write!(f, "InlineString({} bytes)", text.len()),
        }
    }
}

impl Debug for DataSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("DataSource")
            .field("watched_directory", &self.watched_directory)
            .field("specifier", &self.specifier)
            .finish()
    }
}

impl Debug for HeaderValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut out = f.debug_struct("HeaderValue");
        out.field("key", &self.key);
        if is_secret_header(&self.key) {
            out.finish_non_exhaustive()
        } else {
            out.field("value", &self.value).field("raw_value", &self.raw_value).finish()
        }
    }
}

impl Debug for TransportSocket {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("TransportSocket")
            .field("name", &self.name)
            .field("config_type", &self.config_type)
            .finish()
    }
}

impl Debug for ConfigType {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self::TypedConfig(any) = self;
        f.debug_tuple("TypedConfig").field(&Packed(any)).finish()
    }
}

impl Debug for DiscoveryResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let resources: Vec<Packed<'_>> = self.resources.iter().map(Packed).collect();
        f.debug_struct("DiscoveryResponse")
            .field("version_info", &self.version_info)
            .field("type_url", &self.type_url)
            .field("nonce", &self.nonce)
            .field("resources", &resources)
            .finish_non_exhaustive()
    }
}

impl Debug for DeltaDiscoveryResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("DeltaDiscoveryResponse")
            .field("system_version_info", &self.system_version_info)
            .field("type_url", &self.type_url)
            .field("nonce", &self.nonce)
            .field("resources", &self.resources)
            .field("removed_resources", &self.removed_resources)
            .finish_non_exhaustive()
    }
}

impl Debug for Resource {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("ttl", &self.ttl)
            .field("resource", &self.resource.as_ref().map(Packed))
            .finish_non_exhaustive()
    }
}

impl Debug for CacheControl {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("CacheControl").field("do_not_cache", &self.do_not_cache).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::any::pack;
    use crate::envoy::extensions::transport_sockets::tls::v3::{
        CommonTlsContext, Secret, TlsCertificate, UpstreamTlsContext, secret,
    };

    fn secret() -> Secret {
        let key = DataSource {
            specifier: Some(Specifier::InlineString("KEYKEY".into())),
            ..DataSource::default()
        };
        let certificate = TlsCertificate { private_key: Some(key), ..TlsCertificate::default() };
        Secret { name: "own".into(), r#type: Some(secret::Type::TlsCertificate(certificate)) }
    }

    /// The text, and that it shows no key: neither as text nor as the numbers of its bytes.
    fn shown(value: &dyn Debug) -> String {
        let text = format!("{value:?} {value:#?}");
        assert!(!text.contains("KEYKEY"), "{text}");
        assert!(!text.replace([' ', '\n'], "").contains("75,69,89"), "{text}");
        text
    }

    #[test]
    fn secrets_show_their_name_only() {
        assert!(shown(&secret()).contains("own"));
    }

    #[test]
    fn responses_show_types_and_names_only() {
        let any = pack(&secret());
        let whole = DiscoveryResponse { resources: vec![any.clone()], ..Default::default() };
        assert!(shown(&whole).contains("tls.v3.Secret ("));
        let resource = Resource { name: "own".into(), resource: Some(any), ..Default::default() };
        let delta = DeltaDiscoveryResponse { resources: vec![resource], ..Default::default() };
        assert!(shown(&delta).contains("own"));
    }

    #[test]
    fn transport_sockets_show_their_type_only() {
        let Some(secret::Type::TlsCertificate(certificate)) = secret().r#type else {
            panic!("the test's own secret is a certificate");
        };
        let common = CommonTlsContext { tls_certificates: vec![certificate], ..Default::default() };
        let tls = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
        let socket = TransportSocket {
            name: "tls".into(),
            config_type: Some(ConfigType::TypedConfig(pack(&tls))),
        };
        assert!(shown(&socket).contains("UpstreamTlsContext"));
    }

    #[test]
    fn credentials_in_headers_are_not_shown() {
        let header = |key: &str| HeaderValue {
            key: key.into(),
            value: "KEYKEY".into(),
            ..HeaderValue::default()
        };
        assert!(shown(&header("Authorization")).contains("Authorization"));
        assert!(format!("{:?}", header("x-team")).contains("KEYKEY"));
    }
}
