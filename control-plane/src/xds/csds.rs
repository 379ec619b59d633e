//! Client status (CSDS, `envoy.service.status.v3`): what every connected client was sent, took and refused,
//! as `istioctl` and gRPC's tools ask for it.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use pillion_xds::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use pillion_xds::envoy::config::core::v3::Node;
use pillion_xds::envoy::service::status::v3 as pb;
use pillion_xds::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use pillion_xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use pillion_xds::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};
use prost_types::Any;
use tonic::{Request, Response, Status, Streaming};

use super::server::AdsApi;
use super::session::TypeStatus;
use super::streams::StreamView;
use crate::identity::{Caller, SpiffeId};
use crate::snapshot::{Resource, ResourceSet, ResourceType};

/// The service, over the streams of an [`AdsApi`].
#[derive(Clone, Debug)]
pub struct StatusApi(AdsApi);

/// Whose streams a caller may see.
#[derive(Clone, Debug)]
enum Sight {
    /// All: it is on this machine.
    All,
    /// Its own.
    Own(SpiffeId),
}

impl StatusApi {
    /// Shows the streams of `ads`.
    #[must_use]
    pub fn new(ads: AdsApi) -> Self {
        Self(ads)
    }

    /// The service as a server takes it.
    #[must_use]
    pub fn into_server(self) -> ClientStatusDiscoveryServiceServer<Self> {
        ClientStatusDiscoveryServiceServer::new(self)
    }

    fn answer(
        &self,
        sight: &Sight,
        asked: &pb::ClientStatusRequest,
    ) -> Result<pb::ClientStatusResponse, Status> {
        let mut config = Vec::new();
        for stream in self.0.streams().views() {
            let Some(node) = &stream.node else { continue };
            let seen = match sight {
                Sight::All => true,
                Sight::Own(id) => stream.identity.as_ref() == Some(id),
            };
            if seen && selected(&asked.node_matchers, node)? {
                let resources = self.0.resources(node).map_err(Status::internal)?;
                config.push(client(&stream, node, &resources, asked.exclude_resource_contents));
            }
        }
        Ok(pb::ClientStatusResponse { config })
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::ClientStatusResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClientStatusDiscoveryService for StatusApi {
    type StreamClientStatusStream = Answers;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<pb::ClientStatusRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (sight, api) = (sight(&request)?, self.clone());
        let answers = request
            .into_inner()
            .map(move |asked| asked.and_then(|asked| api.answer(&sight, &asked)));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<pb::ClientStatusRequest>,
    ) -> Result<Response<pb::ClientStatusResponse>, Status> {
        let sight = sight(&request)?;
        self.answer(&sight, request.get_ref()).map(Response::new)
    }
}

fn sight<T>(request: &Request<T>) -> Result<Sight, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Local) => Ok(Sight::All),
        Some(Caller::Workload(id)) => Ok(Sight::Own(id.clone())),
        Some(Caller::TokenHolder) => {
            Err(Status::permission_denied("a join token is for joining: ask over loopback"))
        }
        Some(Caller::Nobody(why)) => Err(Status::unauthenticated(*why)),
        None => Err(Status::unauthenticated("the caller is not known")),
    }
}

/// One of the matchers has to match; none: all nodes.
fn selected(matchers: &[NodeMatcher], node: &Node) -> Result<bool, Status> {
    for matcher in matchers {
        if !matcher.node_metadatas.is_empty() {
            return Err(Status::invalid_argument("node_matchers: node_metadatas is not supported"));
        }
        if matcher.node_id.as_ref().map_or(Ok(true), |wanted| matches(wanted, &node.id))? {
            return Ok(true);
        }
    }
    Ok(matchers.is_empty())
}

fn matches(matcher: &StringMatcher, text: &str) -> Result<bool, Status> {
    let fold = |text: &str| match matcher.ignore_case {
        true => text.to_lowercase(),
        false => text.to_owned(),
    };
    let text = fold(text);
    Ok(match &matcher.match_pattern {
        Some(MatchPattern::Exact(wanted)) => text == fold(wanted),
        Some(MatchPattern::Prefix(wanted)) => text.starts_with(&fold(wanted)),
        Some(MatchPattern::Suffix(wanted)) => text.ends_with(&fold(wanted)),
        Some(MatchPattern::Contains(wanted)) => text.contains(&fold(wanted)),
        _ => {
            return Err(Status::invalid_argument(
                "node_matchers: node_id: expected exact, prefix, suffix or contains",
            ));
        }
    })
}

fn client(
    stream: &StreamView,
    node: &Node,
    resources: &ResourceSet,
    without_contents: bool,
) -> pb::ClientConfig {
    let mut configs = Vec::new();
    for kind in ResourceType::ALL {
        let status = stream.types.iter().find(|one| one.kind == kind);
        let of_kind: Vec<_> = resources.of_type(kind).collect();
        let names: Vec<&str> = of_kind.iter().map(|resource| &*resource.name).collect();
        for resource in &of_kind {
            let mut made = config(status, resource, &names);
            if without_contents || kind == ResourceType::Secret {
                made.xds_config = None;
            }
            configs.push(made);
        }
    }
    pb::ClientConfig {
        node: Some(node.clone()),
        generic_xds_configs: configs,
        client_scope: format!("stream {}", stream.id),
    }
}

fn config(
    status: Option<&TypeStatus>,
    resource: &Resource,
    names: &[&str],
) -> pb::client_config::GenericXdsConfig {
    use pb::ConfigStatus;
    let type_url = resource.kind.type_url().to_owned();
    let error = status.and_then(|status| status.error.as_deref());
    let error = error.filter(|error| blames(error, &resource.name, names));
    let (config_status, client_status) = match status {
        None => (ConfigStatus::NotSent, ClientResourceStatus::Unknown),
        Some(_) if error.is_some() => (ConfigStatus::Error, ClientResourceStatus::Nacked),
        Some(status) if status.sent.is_none() => {
            (ConfigStatus::NotSent, ClientResourceStatus::Requested)
        }
        // Of a refused response the good parts were taken all the same.
        Some(status) if status.sent == status.acked || status.error.is_some() => {
            (ConfigStatus::Synced, ClientResourceStatus::Acked)
        }
        Some(_) => (ConfigStatus::Stale, ClientResourceStatus::Requested),
    };
    let version = resource.version.to_string();
    pb::client_config::GenericXdsConfig {
        name: resource.name.to_string(),
        xds_config: Some(Any { type_url: type_url.clone(), value: resource.body.to_vec() }),
        type_url,
        version_info: version.clone(),
        last_updated: None,
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state: error.map(|details| UpdateFailureState {
            details: details.to_owned(),
            version_info: version,
            ..UpdateFailureState::default()
        }),
        is_static_resource: false,
    }
}

/// Whether a refusal is about this resource. One that names nobody is about all of them.
fn blames(error: &str, name: &str, names: &[&str]) -> bool {
    error.contains(name) || !names.iter().any(|one| error.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Version;

    fn status(sent: u8, acked: u8, error: Option<&str>) -> TypeStatus {
        let version = |number: u8| (number > 0).then(|| Version::of(&[number]));
        TypeStatus {
            kind: ResourceType::Cluster,
            wildcard: true,
            names: 0,
            resources: 2,
            sent: version(sent),
            acked: version(acked),
            error: error.map(str::to_owned),
            nacks: 0,
        }
    }

    #[test]
    fn each_resource_is_synced_stale_or_refused() {
        let resource = Resource::new(ResourceType::Cluster, "web", vec![1]);
        let names = ["web", "cart"];
        let of = |status: Option<TypeStatus>| {
            let made = config(status.as_ref(), &resource, &names);
            (made.config_status(), made.client_status(), made.error_state.is_some())
        };
        use ClientResourceStatus as Client;
        use pb::ConfigStatus as Config;
        assert_eq!(of(None), (Config::NotSent, Client::Unknown, false));
        assert_eq!(of(Some(status(0, 0, None))), (Config::NotSent, Client::Requested, false));
        assert_eq!(of(Some(status(1, 1, None))), (Config::Synced, Client::Acked, false));
        assert_eq!(of(Some(status(2, 1, None))), (Config::Stale, Client::Requested, false));
        let bad = of(Some(status(2, 1, Some("web: name: is bad"))));
        assert_eq!(bad, (Config::Error, Client::Nacked, true));
        let beside = of(Some(status(2, 1, Some("cart: name: is bad"))));
        assert_eq!(beside, (Config::Synced, Client::Acked, false));
        let unknown = of(Some(status(2, 1, Some("cannot be read"))));
        assert_eq!(unknown, (Config::Error, Client::Nacked, true));
    }

    #[test]
    fn nodes_are_chosen_by_their_ids() {
        let node = Node { id: "sidecar~1".into(), ..Node::default() };
        let by = |pattern| {
            let node_id = Some(StringMatcher { match_pattern: Some(pattern), ignore_case: false });
            selected(&[NodeMatcher { node_id, node_metadatas: Vec::new() }], &node)
        };
        assert!(selected(&[], &node).unwrap());
        assert!(by(MatchPattern::Prefix("sidecar".into())).unwrap());
        assert!(!by(MatchPattern::Exact("sidecar".into())).unwrap());
    }
}
