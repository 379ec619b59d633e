//! Keys that were fetched, and tokens that were good. Each provider has its own: one whose keys do
//! not come never touches another.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, StatusCode};
use sha2::{Digest, Sha256};

use super::JwtStats;
use crate::cluster::ask::Limits;
use crate::cluster::{Clusters, Live};
use crate::model::Name;
use crate::model::jwt::{CacheLimits, Jwks, JwtFilter, KeySource, Provider, RemoteKeys};
use crate::model::service::HttpService;
use crate::model::tls::DataSource;
use crate::policy::jwt::{Fault, Keys, World, parse_keys};

/// A key set is no larger than this.
const LARGEST_SET: usize = 1 << 20;
/// Keys in a file that could not be used are looked at again after this time.
const FILE_REST: Duration = Duration::from_secs(1);
/// Keys are asked for again so long before they are old (Envoy: `async_fetch`).
const BEFORE_OLD: Duration = Duration::from_secs(5);
/// Nobody is asked more often than this, whatever is configured.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// What lives as long as the settings of a filter.
#[derive(Debug)]
pub(super) struct State(HashMap<Name, OfProvider>);

#[derive(Debug, Default)]
struct OfProvider {
    /// The last good ones, however old.
    keys: ArcSwapOption<Fetched>,
    failed: Mutex<Option<Instant>>,
    /// One asks, the others wait for what it hears.
    asking: tokio::sync::Mutex<()>,
    good: Mutex<Good>,
}

#[derive(Debug)]
struct Fetched {
    keys: Arc<Jwks>,
    at: Instant,
}

/// Digests of good tokens, the oldest first, and the keys that they were verified with.
#[derive(Debug, Default)]
struct Good {
    with: Weak<Jwks>,
    known: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

/// The state as one request sees it.
pub(super) struct Seen<'a> {
    state: &'a State,
    /// Providers whose keys were fetched for this request: they are not fetched twice.
    asked: &'a [Name],
    stats: &'a JwtStats,
}

impl State {
    pub(super) fn of(config: &JwtFilter) -> &Self {
        config.kept.get(|| {
            let each = |one: &Arc<Provider>| (Arc::clone(&one.name), OfProvider::default());
            Self(config.providers.iter().map(each).collect())
        })
    }

    pub(super) fn as_seen<'a>(&'a self, asked: &'a [Name], stats: &'a JwtStats) -> Seen<'a> {
        Seen { state: self, asked, stats }
    }

    /// Have the keys of this provider fetched, by whoever comes first.
    pub(super) async fn fetch(&self, provider: &Provider, live: &Live, stats: &JwtStats) {
        let (Some(of), KeySource::Remote(remote)) = (self.0.get(&provider.name), &provider.keys)
        else {
            return;
        };
        let _one = of.asking.lock().await;
        if of.is_fresh(remote) || of.failed_within(remote.rest) {
            return;
        }
        of.ask(provider, remote, live, stats).await;
    }
}

impl OfProvider {
    fn is_fresh(&self, remote: &RemoteKeys) -> bool {
        self.keys.load().as_ref().is_some_and(|fetched| fetched.at.elapsed() < remote.cache)
    }

    fn failed_within(&self, time: Duration) -> bool {
        lock(&self.failed).is_some_and(|at| at.elapsed() < time)
    }

    async fn ask(&self, provider: &Provider, remote: &RemoteKeys, live: &Live, stats: &JwtStats) {
        let mut pause = remote.pause;
        for left in (0..=remote.retries).rev() {
            match fetched(&remote.service, live).await {
                Ok(keys) => {
                    stats.jwks_fetch_success.inc();
                    let fetched = Fetched { keys: Arc::new(keys), at: Instant::now() };
                    self.keys.store(Some(Arc::new(fetched)));
                    *lock(&self.failed) = None;
                    return;
                }
                Err(why) => {
                    tracing::warn!(provider = &*provider.name, why, left, "no keys were fetched");
                    if left > 0 {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(remote.longest_pause);
                    }
                }
            }
        }
        stats.jwks_fetch_failed.inc();
        *lock(&self.failed) = Some(Instant::now());
    }

    fn remote(&self, remote: &RemoteKeys, asked: bool) -> Keys {
        let last = self.keys.load_full();
        match last {
            Some(last) if self.is_fresh(remote) => Keys::Known(Arc::clone(&last.keys)),
            // The issuer does not answer: keys that were good are better than none.
            Some(last) if asked || self.failed_within(remote.rest) => {
                Keys::Known(Arc::clone(&last.keys))
            }
            None if asked || self.failed_within(remote.rest) => Keys::Failed(Fault::Fetch),
            _ => Keys::Absent,
        }
    }

    fn file(&self, source: &DataSource) -> Keys {
        if let Some(read) = self.keys.load_full() {
            return Keys::Known(Arc::clone(&read.keys));
        }
        if self.failed_within(FILE_REST) {
            return Keys::Failed(Fault::NoValidKeys);
        }
        let read = match source {
            DataSource::File(path) => std::fs::read(path).map_err(|error| error.to_string()),
            DataSource::Inline(bytes) => Ok(bytes.to_vec()),
        };
        match read.and_then(|json| parse_keys(&json).map_err(|fault| fault.text().to_owned())) {
            Ok(keys) => {
                let keys = Arc::new(keys);
                let read = Fetched { keys: Arc::clone(&keys), at: Instant::now() };
                self.keys.store(Some(Arc::new(read)));
                Keys::Known(keys)
            }
            Err(why) => {
                tracing::warn!(?source, why, "these keys cannot be used");
                *lock(&self.failed) = Some(Instant::now());
                Keys::Failed(Fault::NoValidKeys)
            }
        }
    }
}

impl World for Seen<'_> {
    fn keys(&self, provider: &Provider) -> Keys {
        let Some(of) = self.state.0.get(&provider.name) else {
            return Keys::Failed(Fault::NoValidKeys);
        };
        match &provider.keys {
            KeySource::Inline(keys) => Keys::Known(Arc::clone(keys)),
            KeySource::File(source) => of.file(source),
            KeySource::Remote(remote) => of.remote(remote, self.asked.contains(&provider.name)),
        }
    }

    fn remembered(&self, provider: &Provider, token: &str) -> Option<Arc<Jwks>> {
        let with = provider.cache.zip(self.state.0.get(&provider.name)).and_then(|(limits, of)| {
            let good = lock(&of.good);
            let known = token.len() <= limits.token_bytes && good.known.contains(&digest(token));
            known.then(|| good.with.upgrade())?
        });
        let count =
            if with.is_some() { &self.stats.jwt_cache_hit } else { &self.stats.jwt_cache_miss };
        count.inc();
        with
    }

    fn remember(&self, provider: &Provider, token: &str, keys: &Arc<Jwks>) {
        if let (Some(limits), Some(of)) = (provider.cache, self.state.0.get(&provider.name))
            && token.len() <= limits.token_bytes
        {
            lock(&of.good).add(digest(token), keys, limits);
        }
    }
}

impl Good {
    fn add(&mut self, token: [u8; 32], keys: &Arc<Jwks>, limits: CacheLimits) {
        if Weak::as_ptr(&self.with) != Arc::as_ptr(keys) {
            *self = Self { with: Arc::downgrade(keys), ..Self::default() };
        }
        if self.known.insert(token) {
            self.order.push_back(token);
        }
        while self.order.len() > limits.tokens {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Keeps the keys of these providers fresh for as long as the settings hold.
pub(super) fn fetch_ahead(config: &Arc<JwtFilter>, stats: &JwtStats, clusters: &Arc<Clusters>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    for provider in &config.providers {
        let KeySource::Remote(remote) = &provider.keys else { continue };
        if !remote.ahead {
            continue;
        }
        let (config, clusters) = (Arc::downgrade(config), Arc::downgrade(clusters));
        let (provider, stats) = (Arc::clone(provider), stats.clone());
        runtime.spawn(async move {
            while let Some(pause) = ahead(&config, &clusters, &provider, &stats).await {
                tokio::time::sleep(pause).await;
            }
        });
    }
}

/// One fetch, and the time until the next. None: the settings are gone.
async fn ahead(
    config: &Weak<JwtFilter>,
    clusters: &Weak<Clusters>,
    provider: &Provider,
    stats: &JwtStats,
) -> Option<Duration> {
    let (config, clusters) = (config.upgrade()?, clusters.upgrade()?);
    let KeySource::Remote(remote) = &provider.keys else { return None };
    let of = State::of(&config).0.get(&provider.name)?;
    let _one = of.asking.lock().await;
    of.ask(provider, remote, &clusters.load(), stats).await;
    let failed = lock(&of.failed).is_some();
    let pause = if failed {
        remote.rest
    } else if remote.cache > BEFORE_OLD {
        remote.cache - BEFORE_OLD
    } else {
        remote.cache
    };
    Some(pause.max(SHORTEST_PAUSE))
}

async fn fetched(service: &HttpService, live: &Live) -> Result<Jwks, String> {
    let path = service.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = service.uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = path.parse().map_err(|_| format!("`{path}` is no path"))?;
    if let Ok(authority) = HeaderValue::from_str(authority) {
        request.headers_mut().insert(HOST, authority);
    }
    let limits = Limits { time: service.timeout, body: LARGEST_SET };
    let answer = live.ask(&service.cluster, request, limits).await;
    let answer = answer.map_err(|refusal| refusal.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("answered {}", answer.status()));
    }
    parse_keys(answer.body()).map_err(|fault| fault.text().to_owned())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
