//! Load reports (LRS, `envoy.service.load_stats.v3`): what the clusters took since the last report, told
//! to the server that `cluster_manager.load_stats_config` names, as often as it says.

mod ledger;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use pillion_xds::envoy::config::core::v3::Node;
use pillion_xds::envoy::service::load_stats::v3::LoadStatsRequest;
use pillion_xds::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use self::ledger::{Counts, EndpointLoad, Ledger, Load};
use crate::cluster::grpc::Channel;
use crate::cluster::{Cluster, Clusters};
use crate::model::Name;
use crate::model::cluster::Discovery;
use crate::model::source::Stream;
use crate::telemetry::stats::{Counter, Registry};

/// Envoy's wait before a stream is tried again; here with jitter.
const RETRY: Duration = Duration::from_secs(5);
/// Says that `send_all_clusters` is understood.
const SENDS_ALL: &str = "envoy.lrs.supports_send_all_clusters";

/// Tells a server what the clusters take.
#[derive(Debug)]
pub struct Reporter {
    stream: Arc<Stream>,
    clusters: Arc<Clusters>,
    node: Node,
    ledger: Ledger,
    requests: Counter,
    responses: Counter,
    errors: Counter,
    retries: Counter,
}

impl Reporter {
    /// A reporter to this server. Nothing happens until it runs.
    pub fn new(
        stream: Arc<Stream>,
        clusters: Arc<Clusters>,
        node: &Node,
        registry: &Registry,
    ) -> Self {
        let mut node = node.clone();
        if !node.client_features.iter().any(|known| known == SENDS_ALL) {
            node.client_features.push(SENDS_ALL.to_owned());
        }
        let scope = registry.scope("load_reporter", None);
        Self {
            stream,
            clusters,
            node,
            ledger: Ledger::default(),
            requests: scope.counter("requests"),
            responses: scope.counter("responses"),
            errors: scope.counter("errors"),
            retries: scope.counter("retries"),
        }
    }

    /// Report, for ever.
    pub async fn run(mut self) {
        loop {
            let why = self.converse().await;
            self.errors.inc();
            let cluster = &self.stream.service.cluster;
            tracing::info!(%cluster, why, "the stream of load reports ended");
            tokio::time::sleep(RETRY.mul_f64(0.5 + fastrand::f64())).await;
            self.retries.inc();
        }
    }

    /// Report until the stream ends; why it did.
    async fn converse(&mut self) -> String {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.send(&sender, Vec::new());
        let requests = UnboundedReceiverStream::new(receiver);
        let clusters = Arc::clone(&self.clusters);
        let (channel, mut request) = Channel::to(clusters, &self.stream.service, requests);
        // A stream has no end; what stands there is for single calls.
        request.metadata_mut().remove("grpc-timeout");
        let mut client = LoadReportingServiceClient::new(channel);
        let mut answers = match client.stream_load_stats(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return told(&status),
        };
        let mut interval = None;
        let mut due = None;
        loop {
            tokio::select! {
                message = answers.message() => match message {
                    Ok(Some(asked)) => {
                        self.responses.inc();
                        let now = Instant::now();
                        interval = self.ledger.told(asked, &loads(&self.clusters), now);
                        due = interval.map(|interval| now + interval);
                    }
                    Ok(None) => return "the server closed it".to_owned(),
                    Err(status) => return told(&status),
                },
                () = until(due) => {
                    let now = Instant::now();
                    let report = self.ledger.report(&loads(&self.clusters), now);
                    self.send(&sender, report);
                    due = interval.map(|interval| now + interval);
                }
            }
        }
    }

    fn send(
        &self,
        sender: &mpsc::UnboundedSender<LoadStatsRequest>,
        cluster_stats: Vec<pillion_xds::envoy::config::endpoint::v3::ClusterStats>,
    ) {
        self.requests.inc();
        // A stream that has ended says so when it is next read.
        let _ = sender.send(LoadStatsRequest { node: Some(self.node.clone()), cluster_stats });
    }
}

fn told(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn loads(clusters: &Clusters) -> Vec<Load> {
    let live = clusters.load();
    live.clusters().map(|(_, cluster)| load(cluster)).collect()
}

fn load(cluster: &Cluster) -> Load {
    let endpoints = cluster.view().endpoints.into_iter().map(|one| EndpointLoad {
        address: one.address,
        locality: one.locality,
        priority: one.priority,
        counts: Counts { issued: one.rq_total, success: one.rq_success, error: one.rq_error },
        active: one.rq_active.into(),
    });
    Load {
        name: Name::clone(&cluster.config.name),
        service: match &cluster.config.discovery {
            Discovery::Eds(reference) => Some(Name::clone(reference.name())),
            _ => None,
        },
        endpoints: endpoints.collect(),
        overflow: cluster.stats.upstream_rq_pending_overflow.get(),
        shed: cluster.shed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    }
}
