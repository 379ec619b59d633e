//! `ConfigSource`: where resources come from.

use std::sync::Arc;
use std::time::Duration;

use pillion_xds::envoy::config::core::v3 as core;

use super::at::At;
use super::service;
use crate::model::source::{FETCH_TIMEOUT, File, Reference, Source, Stream};

/// The source, and its `initial_fetch_timeout` (zero: wait for ever).
pub(super) fn source(
    at: &At<'_>,
    config: Option<&core::ConfigSource>,
) -> Option<(Source, Duration)> {
    use core::config_source::ConfigSourceSpecifier as Spec;
    let config = at.required(config)?;
    version(&at.field("resource_api_version"), config.resource_api_version())?;
    let timeout = at.field("initial_fetch_timeout");
    let timeout = timeout.duration(config.initial_fetch_timeout).unwrap_or(FETCH_TIMEOUT);
    let source = match &config.config_source_specifier {
        Some(Spec::Ads(_)) => Source::Ads,
        Some(Spec::Self_(own)) => {
            let at = at.field("self");
            version(&at.field("transport_api_version"), own.transport_api_version())?;
            Source::Ads
        }
        Some(Spec::ApiConfigSource(api)) => {
            Source::Stream(Arc::new(stream(&at.field("api_config_source"), api)?))
        }
        Some(Spec::Path(path)) => file(&at.field("path"), path, None)?,
        Some(Spec::PathConfigSource(config)) => {
            let at = at.field("path_config_source");
            let watched = config.watched_directory.as_ref();
            file(&at.field("path"), &config.path, Some((&at, watched)))?
        }
        None => return at.refuse("expected ads, api_config_source or path_config_source"),
    };
    Some((source, timeout))
}

/// A resource of this name, from there.
pub(super) fn reference(
    at: &At<'_>,
    name: &str,
    config: Option<&core::ConfigSource>,
) -> Option<Reference> {
    let (source, timeout) = source(at, config)?;
    Some(Reference::new(name, source, timeout))
}

/// `ApiConfigSource`
pub(super) fn stream(at: &At<'_>, config: &core::ApiConfigSource) -> Option<Stream> {
    use core::api_config_source::ApiType;
    let delta = match config.api_type() {
        ApiType::Grpc => false,
        ApiType::DeltaGrpc => true,
        other => {
            let name = other.as_str_name();
            return at
                .field("api_type")
                .refuse(format!("{name} is not supported: expected GRPC or DELTA_GRPC"));
        }
    };
    version(&at.field("transport_api_version"), config.transport_api_version())?;
    at.field("cluster_names")
        .expect(config.cluster_names.is_empty(), "is for REST: expected grpc_services")?;
    let services = at.field("grpc_services");
    let [service] = config.grpc_services.as_slice() else {
        return services.refuse("expected exactly one");
    };
    Some(Stream {
        service: service::grpc(&services.index(0), Some(service))?,
        delta,
        node_on_first_message_only: config.set_node_on_first_message_only,
    })
}

fn file(
    at: &At<'_>,
    path: &str,
    watched: Option<(&At<'_>, Option<&core::WatchedDirectory>)>,
) -> Option<Source> {
    at.expect(!path.is_empty(), "is empty")?;
    let watched = match watched {
        Some((at, Some(folder))) => {
            let watched_at = at.field("watched_directory");
            watched_at.field("path").expect(!folder.path.is_empty(), "is empty")?;
            Some(folder.path.as_str().into())
        }
        _ => None,
    };
    Some(Source::File(Arc::new(File { path: path.into(), watched })))
}

/// Not saying it means V3: there is no other.
fn version(at: &At<'_>, version: core::ApiVersion) -> Option<()> {
    at.expect(version != core::ApiVersion::V2, "V2 is not spoken any more: expected V3")
}
