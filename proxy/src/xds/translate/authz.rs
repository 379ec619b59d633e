//! Questions to authorization services and their answers (`envoy.service.auth.v3`).

use bytes::Bytes;
use http::StatusCode;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::service::auth::v3 as pb;
use pillion_xds::envoy::service::auth::v3::attribute_context as context;
use prost::Message;

use super::common;
use crate::model::ext_authz::{Allowed, Change, Decision, Peer, Question, Said, Wire};
use crate::model::headers::HeaderAppend;
use crate::model::listener::Address;

pub(super) const WIRE: Wire = Wire { encode, decode };

fn encode(question: &Question<'_>) -> Bytes {
    let raw = |(name, value): &(&str, &[u8])| core::HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.to_vec(),
        ..Default::default()
    };
    let mut http = context::HttpRequest {
        id: question.id.clone(),
        method: question.method.to_owned(),
        path: question.path.to_owned(),
        host: question.host.to_owned(),
        scheme: question.scheme.to_owned(),
        size: i64::try_from(question.size).unwrap_or(i64::MAX),
        protocol: question.protocol.to_owned(),
        ..Default::default()
    };
    if question.raw_headers {
        let headers = question.headers.iter().map(raw).collect();
        http.header_map = Some(core::HeaderMap { headers });
    } else {
        for (name, value) in &question.headers {
            let value = String::from_utf8_lossy(value);
            let joined: &mut String = http.headers.entry((*name).to_owned()).or_default();
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(&value);
        }
    }
    match question.body {
        Some(body) if question.raw_body => http.raw_body = body.to_vec(),
        Some(body) => http.body = String::from_utf8_lossy(body).into_owned(),
        None => {}
    }
    let extensions = question.extensions.iter();
    let attributes = pb::AttributeContext {
        source: Some(peer(&question.source)),
        destination: Some(peer(&question.destination)),
        request: Some(context::Request { time: Some(question.time.into()), http: Some(http) }),
        context_extensions: extensions
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        metadata_context: Some(core::Metadata {
            filter_metadata: (question.metadata.iter())
                .map(|(namespace, fields)| ((*namespace).to_owned(), common::structure(fields)))
                .collect(),
            ..Default::default()
        }),
        route_metadata_context: Some(core::Metadata::default()),
        tls_session: question.server_name.map(|sni| context::TlsSession { sni: sni.to_owned() }),
    };
    pb::CheckRequest { attributes: Some(attributes) }.encode_to_vec().into()
}

fn peer(peer: &Peer<'_>) -> context::Peer {
    use core::address::Address as Kind;
    let kind = match peer.address {
        Address::Socket(socket) => Kind::SocketAddress(core::SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
                socket.port().into(),
            )),
            ..Default::default()
        }),
        Address::Pipe(path) => Kind::Pipe(core::Pipe {
            path: path.to_string_lossy().into_owned(),
            ..Default::default()
        }),
    };
    context::Peer {
        address: Some(core::Address { address: Some(kind) }),
        service: peer.service.to_owned(),
        principal: peer.principal.to_owned(),
        certificate: peer.certificate.to_owned(),
        ..Default::default()
    }
}

fn decode(bytes: &[u8]) -> Result<Decision, String> {
    use pb::check_response::HttpResponse as Kind;
    let answer = pb::CheckResponse::decode(bytes).map_err(|error| error.to_string())?;
    let code = answer.status.as_ref().map_or(0, |status| status.code);
    let noted = answer.dynamic_metadata.as_ref().map(common::fields).unwrap_or_default();
    Ok(match (code, answer.http_response) {
        (0, Some(Kind::OkResponse(ok))) => {
            // The older place of it, in the answer that allows, counts alone where there is something.
            let older = ok.dynamic_metadata.is_some();
            let may = allowed(ok);
            let metadata = if older { may.metadata } else { noted };
            Decision::Allowed(Box::new(Allowed { metadata, ..may }))
        }
        (0, _) => Decision::Allowed(Box::new(Allowed { metadata: noted, ..Allowed::default() })),
        (_, Some(Kind::ErrorResponse(said))) => {
            Decision::Failed(Said { metadata: noted, ..self::said(said) })
        }
        (_, Some(Kind::DeniedResponse(said))) => {
            Decision::Denied(Said { metadata: noted, ..self::said(said) })
        }
        (_, _) => Decision::Denied(Said { metadata: noted, ..Said::default() }),
    })
}

fn allowed(ok: pb::OkHttpResponse) -> Allowed {
    Allowed {
        // Of the request, what is not appended replaces, whatever the action says: as in Envoy.
        request: ok.headers.into_iter().filter_map(of_request).collect(),
        remove: ok.headers_to_remove,
        response: ok.response_headers_to_add.into_iter().filter_map(change).collect(),
        set_query: ok.query_parameters_to_set.into_iter().map(|one| (one.key, one.value)).collect(),
        remove_query: ok.query_parameters_to_remove,
        metadata: ok.dynamic_metadata.as_ref().map(common::fields).unwrap_or_default(),
    }
}

fn said(said: pb::DeniedHttpResponse) -> Said {
    let code = said.status.and_then(|status| u16::try_from(status.code).ok());
    Said {
        status: code.and_then(|code| StatusCode::from_u16(code).ok()),
        headers: said.headers.into_iter().filter_map(change).collect(),
        body: Bytes::from(said.body),
        ..Said::default()
    }
}

fn of_request(option: core::HeaderValueOption) -> Option<Change> {
    let beside = option.append == Some(true);
    let action = if beside {
        HeaderAppend::AppendIfExistsOrAdd
    } else {
        HeaderAppend::OverwriteIfExistsOrAdd
    };
    Some(Change { action, only_beside: beside, ..change(option)? })
}

fn change(option: core::HeaderValueOption) -> Option<Change> {
    use core::header_value_option::HeaderAppendAction as Action;
    let action = match (option.append, option.append_action()) {
        (Some(true), _) | (None, Action::AppendIfExistsOrAdd) => HeaderAppend::AppendIfExistsOrAdd,
        (None, Action::AddIfAbsent) => HeaderAppend::AddIfAbsent,
        (None, Action::OverwriteIfExists) => HeaderAppend::OverwriteIfExists,
        (Some(false), _) | (None, Action::OverwriteIfExistsOrAdd) => {
            HeaderAppend::OverwriteIfExistsOrAdd
        }
    };
    let header = option.header?;
    let value = if header.value.is_empty() { header.raw_value } else { header.value.into_bytes() };
    let name = header.key.to_ascii_lowercase();
    Some(Change { name, value, action, only_beside: false })
}
