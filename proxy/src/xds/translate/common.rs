//! Small things that many resources share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use pillion_xds::any::{self, Packable};
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::r#type::v3 as kinds;
use prost_types::Any;
use zeroize::Zeroizing;

use super::at::At;
use crate::model::listener::Address;
use crate::model::metadata::{Fields, Metadata, Value};
use crate::model::tls::DataSource;

/// An address to bind or connect to. Names are not looked up: they are for DNS clusters.
pub(super) fn address(at: &At<'_>, address: Option<&core::Address>) -> Option<Address> {
    use core::address::Address as Kind;
    match at.required(address)?.address.as_ref() {
        Some(Kind::SocketAddress(socket)) => {
            let at = at.field("socket_address");
            let port = port(&at, socket)?;
            let Ok(ip) = socket.address.parse::<IpAddr>() else {
                let text = &socket.address;
                return at.field("address").refuse(format!("`{text}` is no IP address"));
            };
            Some(Address::Socket(SocketAddr::new(ip, port)))
        }
        Some(Kind::Pipe(pipe)) => Some(Address::Pipe(pipe.path.clone().into())),
        _ => at.refuse("expected a socket_address or a pipe"),
    }
}

/// Whether a listener at `::` takes IPv4 connections too.
pub(super) fn is_dual_stack(address: Option<&core::Address>) -> bool {
    use core::address::Address as Kind;
    matches!(
        address.and_then(|address| address.address.as_ref()),
        Some(Kind::SocketAddress(socket)) if socket.ipv4_compat
    )
}

/// The port of a socket address.
pub(super) fn port(at: &At<'_>, socket: &core::SocketAddress) -> Option<u16> {
    use core::socket_address::PortSpecifier;
    match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port).ok().or_else(|| {
            at.field("port_value").refuse(format!("{port} is no port: expected 0 to 65535"))
        }),
        _ => at.field("port_value").refuse("is missing"),
    }
}

/// A network.
pub(super) fn cidr(at: &At<'_>, range: &core::CidrRange) -> Option<IpNet> {
    let Ok(ip) = range.address_prefix.parse::<IpAddr>() else {
        let text = &range.address_prefix;
        return at.field("address_prefix").refuse(format!("`{text}` is no IP address"));
    };
    let length = range.prefix_len.unwrap_or(0);
    let net = u8::try_from(length).ok().and_then(|length| IpNet::new(ip, length).ok());
    net.map(|net| net.trunc())
        .or_else(|| at.field("prefix_len").refuse(format!("{length} is too long for {ip}")))
}

/// The message inside an `Any`.
pub(super) fn unpack<M: Packable>(at: &At<'_>, packed: &Any) -> Option<M> {
    match any::unpack(packed) {
        Ok(message) => Some(message),
        Err(error) => at.refuse(error),
    }
}

/// The type of an `Any`, for telling extensions apart.
pub(super) fn type_of(packed: &Any) -> &str {
    any::type_name(&packed.type_url)
}

/// Content given here or in a file. An environment variable is looked up by the caller's process.
pub(super) fn data_source(at: &At<'_>, source: Option<&core::DataSource>) -> Option<DataSource> {
    use core::data_source::Specifier;
    let inline = |bytes: Vec<u8>| Some(DataSource::Inline(Arc::new(Zeroizing::new(bytes))));
    match at.required(source)?.specifier.as_ref() {
        Some(Specifier::Filename(path)) => Some(DataSource::File(path.into())),
        Some(Specifier::InlineBytes(bytes)) => inline(bytes.clone()),
        Some(Specifier::InlineString(text)) => inline(text.clone().into_bytes()),
        Some(Specifier::EnvironmentVariable(_)) => {
            at.field("environment_variable").refuse("is not supported: use a file")
        }
        None => at.refuse("expected filename, inline_bytes or inline_string"),
    }
}

/// A share, out of a million.
pub(super) fn fraction(share: &kinds::FractionalPercent) -> u32 {
    use kinds::fractional_percent::DenominatorType;
    let scale = match share.denominator() {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    share.numerator.saturating_mul(scale).min(1_000_000)
}

/// A share with its default; runtime keys are never looked up.
pub(super) fn runtime_fraction(share: &core::RuntimeFractionalPercent) -> u32 {
    share.default_value.as_ref().map_or(1_000_000, fraction)
}

/// Fields of every namespace.
pub(super) fn metadata(metadata: &core::Metadata) -> Metadata {
    let namespaces = metadata.filter_metadata.iter();
    namespaces.map(|(name, of)| (name.clone(), fields(of))).collect()
}

/// `google.protobuf.Struct`
pub(super) fn fields(of: &prost_types::Struct) -> Fields {
    of.fields.iter().map(|(name, value)| (name.clone(), self::value(value))).collect()
}

/// The same, the other way round.
pub(super) fn structure(fields: &Fields) -> prost_types::Struct {
    let fields = fields.iter().map(|(name, value)| (name.clone(), proto(value)));
    prost_types::Struct { fields: fields.collect() }
}

fn proto(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(yes) => Kind::BoolValue(*yes),
        Value::Number(number) => Kind::NumberValue(*number),
        Value::Text(text) => Kind::StringValue(text.clone()),
        Value::List(all) => {
            Kind::ListValue(prost_types::ListValue { values: all.iter().map(proto).collect() })
        }
        Value::Struct(fields) => Kind::StructValue(structure(fields)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn value(value: &prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(yes)) => Value::Bool(*yes),
        Some(Kind::NumberValue(number)) => Value::Number(*number),
        Some(Kind::StringValue(text)) => Value::Text(text.clone()),
        Some(Kind::ListValue(list)) => Value::List(list.values.iter().map(self::value).collect()),
        Some(Kind::StructValue(of)) => Value::Struct(fields(of)),
    }
}
