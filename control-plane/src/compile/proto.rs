//! Small words for xDS messages.

use std::net::IpAddr;
use std::time::Duration;

use pillion_xds::any::pack;
use pillion_xds::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, HeaderValue,
    HeaderValueOption, Metadata, Pipe, SocketAddress, TransportSocket, address, config_source,
    data_source, header_value_option::HeaderAppendAction, socket_address, transport_socket,
};
use pillion_xds::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use pillion_xds::envoy::r#type::v3::{
    FractionalPercent, Percent, fractional_percent::DenominatorType,
};
use prost::Name;
use prost_types::{Struct, Value, value};

use crate::snapshot::{Resource, ResourceType};

/// Encodes a message as a resource.
pub(crate) fn resource<M: Name>(kind: ResourceType, name: &str, message: &M) -> Resource {
    Resource::new(kind, name, message.encode_to_vec())
}

pub(crate) fn duration(time: Duration) -> prost_types::Duration {
    // Durations come from texts of at most 4 numbers of 5 digits.
    prost_types::Duration::try_from(time).unwrap_or_default()
}

pub(crate) fn millis(number: u64) -> prost_types::Duration {
    duration(Duration::from_millis(number))
}

pub(crate) fn percent(value: f64) -> Percent {
    Percent { value }
}

/// `part` of `whole` in millionths, rounded to the nearest.
pub(crate) fn fraction(part: u64, whole: u64) -> FractionalPercent {
    let millionths = (part * 1_000_000 + whole / 2).checked_div(whole).unwrap_or(0);
    FractionalPercent {
        numerator: u32::try_from(millionths.min(1_000_000)).unwrap_or(1_000_000),
        denominator: DenominatorType::Million.into(),
    }
}

/// Resources of this kind come over the same ADS stream. Envoy refuses `self`, gRPC takes both.
pub(crate) fn over_ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            AggregatedConfigSource::default(),
        )),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    }
}

pub(crate) fn socket(ip: IpAddr, port: u16) -> Address {
    host_and_port(ip.to_string(), port)
}

/// A Unix socket.
pub(crate) fn pipe(path: &str) -> Address {
    let pipe = Pipe { path: path.to_owned(), ..Pipe::default() };
    Address { address: Some(address::Address::Pipe(pipe)) }
}

/// Every address of the machine, IPv6 and IPv4.
pub(crate) fn everywhere(port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: "::".to_owned(),
            ipv4_compat: true,
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

pub(crate) fn host_and_port(address: String, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address,
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

pub(crate) fn exact(text: &str) -> StringMatcher {
    matcher(string_matcher::MatchPattern::Exact(text.to_owned()))
}

pub(crate) fn prefix(text: &str) -> StringMatcher {
    matcher(string_matcher::MatchPattern::Prefix(text.to_owned()))
}

pub(crate) fn matching(pattern: &str) -> StringMatcher {
    matcher(string_matcher::MatchPattern::SafeRegex(regex(pattern)))
}

fn matcher(pattern: string_matcher::MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

pub(crate) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

/// A header to put in place of what is there, or beside it.
pub(crate) fn header(name: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        append_action: action.into(),
        keep_empty_value: value.is_empty(),
        ..HeaderValueOption::default()
    }
}

pub(crate) fn file(path: &str) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::Filename(path.to_owned())),
        ..DataSource::default()
    }
}

pub(crate) fn inline(text: String) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineString(text)),
        ..DataSource::default()
    }
}

pub(crate) fn transport_socket<M: Name + Default>(name: &str, config: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(config))),
    }
}

/// A struct of one text field.
pub(crate) fn text_struct(key: &str, text: &str) -> Struct {
    let value = Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    Struct { fields: [(key.to_owned(), value)].into() }
}

/// Metadata of one filter with one text field. (Maps with one entry only: their order on the wire is not
/// fixed, and versions are hashes of the wire form.)
pub(crate) fn metadata(filter: &str, key: &str, text: &str) -> Metadata {
    Metadata {
        filter_metadata: [(filter.to_owned(), text_struct(key, text))].into(),
        ..Metadata::default()
    }
}
