//! A management server for the proxy (ADS, delta): it has what it sends ready, so that it takes no time of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pillion_xds::envoy::service::discovery::v3 as discovery;
use prost_types::Any;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};

use crate::config::Resource;

type Answers<R> = ReceiverStream<Result<R, Status>>;

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct Management {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    all: Mutex<BTreeMap<&'static str, BTreeMap<String, discovery::Resource>>>,
    /// What is new, by type URL.
    news: broadcast::Sender<Arc<BTreeMap<&'static str, Vec<String>>>>,
    refused: Mutex<Option<String>>,
}

impl Management {
    /// Starts it, with nothing to tell.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            all: Mutex::default(),
            news: broadcast::Sender::new(64),
            refused: Mutex::default(),
        });
        let service = AggregatedDiscoveryServiceServer::new(Ads(Arc::clone(&shared)));
        let incoming = TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder();
        // It has no other service, so nothing has to tell them apart.
        let task = tokio::spawn(server.serve_with_incoming(service, incoming));
        Ok(Self { address, shared, task: task.abort_handle() })
    }

    /// Tells these from now on, beside the others.
    pub fn publish(&self, resources: Vec<Resource>) {
        let mut news: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut all = self.shared.all();
        for Resource { kind, name, body } in resources {
            let type_url = kind.type_url();
            let named = all.entry(type_url).or_default();
            let before = named.get(&name).and_then(|one| one.version.parse::<u64>().ok());
            let one = discovery::Resource {
                name: name.clone(),
                version: (before.unwrap_or(0) + 1).to_string(),
                resource: Some(Any { type_url: type_url.to_owned(), value: body }),
                ..discovery::Resource::default()
            };
            named.insert(name.clone(), one);
            news.entry(type_url).or_default().push(name);
        }
        drop(all);
        // Nobody may have come yet.
        let _ = self.shared.news.send(Arc::new(news));
    }

    /// What a client did not take, and why.
    pub fn refused(&self) -> Option<String> {
        self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Management {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn all(&self) -> MutexGuard<'_, BTreeMap<&'static str, BTreeMap<String, discovery::Resource>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Ads(Arc<Shared>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (out, answers) = mpsc::channel(16);
        let stream = Stream { shared: Arc::clone(&self.0), wanted: BTreeMap::new(), nonce: 0, out };
        tokio::spawn(stream.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// One stream.
struct Stream {
    shared: Arc<Shared>,
    /// Names by type URL. None: everything.
    wanted: BTreeMap<String, Option<BTreeSet<String>>>,
    nonce: u64,
    out: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Stream {
    async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        let mut news = self.shared.news.subscribe();
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.take(request).await,
                    _ => return,
                },
                news = news.recv() => match news {
                    Ok(news) => self.tell(&news).await,
                    Err(_) => return,
                },
            }
        }
    }

    async fn take(&mut self, request: DeltaDiscoveryRequest) {
        if let Some(error) = request.error_detail {
            let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert(error.message);
        }
        let (type_url, names) = (request.type_url, request.resource_names_subscribe);
        if !self.wanted.contains_key(&type_url) && names.is_empty() {
            self.wanted.insert(type_url.clone(), None);
            self.answer(&type_url, None, true).await;
        } else if !names.is_empty() {
            let wanted =
                self.wanted.entry(type_url.clone()).or_insert_with(|| Some(BTreeSet::new()));
            if let Some(wanted) = wanted {
                wanted.extend(names.iter().cloned());
            }
            self.answer(&type_url, Some(&names), false).await;
        }
    }

    async fn tell(&mut self, news: &BTreeMap<&'static str, Vec<String>>) {
        for (type_url, names) in news {
            let names: Vec<String> = match self.wanted.get(*type_url) {
                None => continue,
                Some(None) => names.clone(),
                Some(Some(wanted)) => {
                    names.iter().filter(|name| wanted.contains(*name)).cloned().collect()
                }
            };
            self.answer(type_url, Some(&names), false).await;
        }
    }

    /// These, or all; with `always` even if there are none.
    async fn answer(&mut self, type_url: &str, names: Option<&[String]>, always: bool) {
        let resources: Vec<discovery::Resource> = {
            let all = self.shared.all();
            let all = all.get(type_url);
            match names {
                None => all.into_iter().flat_map(BTreeMap::values).cloned().collect(),
                Some(names) => names.iter().filter_map(|name| all?.get(name)).cloned().collect(),
            }
        };
        if resources.is_empty() && !always {
            return;
        }
        self.nonce += 1;
        let answer = DeltaDiscoveryResponse {
            system_version_info: self.nonce.to_string(),
            nonce: self.nonce.to_string(),
            type_url: type_url.to_owned(),
            resources,
            ..DeltaDiscoveryResponse::default()
        };
        // A client that is gone hears nothing more.
        let _ = self.out.send(Ok(answer)).await;
    }
}
