//! Where a resource comes from that others name (`core.v3.ConfigSource`).

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::service::GrpcService;

/// Envoy's default for `initial_fetch_timeout`.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Stands between a resource's name and what describes its source.
const FROM: &str = " @ ";

/// Where from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The ADS stream.
    Ads,
    /// A stream of its own (`api_config_source`).
    Stream(Arc<Stream>),
    /// A file (`path_config_source`).
    File(Arc<File>),
}

/// A management server, and how it is spoken to (`ApiConfigSource`).
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// The server.
    pub service: GrpcService,
    /// `DELTA_GRPC`: only what changed. Else `GRPC`: everything, each time.
    pub delta: bool,
    /// Say who we are once a stream, not in every request.
    pub node_on_first_message_only: bool,
}

/// `PathConfigSource`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// A `DiscoveryResponse` in YAML, JSON or binary.
    pub path: PathBuf,
    /// The file is read again when something is moved into this folder. None: when it changes.
    pub watched: Option<PathBuf>,
}

/// A resource that is named here and comes from elsewhere. It reads as its key: the name under which
/// it stands in a [`Snapshot`](super::Snapshot), which is its own name if it comes over ADS, and
/// else says from where as well, so that two servers may have resources of the same name.
#[derive(Clone)]
pub struct Reference {
    key: Name,
    name: Name,
    source: Source,
    timeout: Duration,
    types: Arc<[Name]>,
    waits: bool,
}

impl Reference {
    /// `timeout` is the `initial_fetch_timeout`; zero: wait for ever.
    pub fn new(name: &str, source: Source, timeout: Duration) -> Self {
        let name = Name::from(name);
        let key = match source.describe() {
            None => Name::clone(&name),
            Some(from) => format!("{name}{FROM}{from}").into(),
        };
        Self { key, name, source, timeout, types: Arc::default(), waits: true }
    }

    /// It has to be one of these messages (full names). Without `waits`, nobody waits for it.
    #[must_use]
    pub fn of_types(self, types: Vec<Name>, waits: bool) -> Self {
        Self { types: types.into(), waits, ..self }
    }

    /// Full names of the messages that it may be. Empty: whatever is of its kind.
    pub fn types(&self) -> &Arc<[Name]> {
        &self.types
    }

    /// Whether what names it waits for it.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Under which it stands in a snapshot.
    pub fn key(&self) -> &Name {
        &self.key
    }

    /// As its source calls it.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How long whatever names it waits for it (`initial_fetch_timeout`); zero: for ever.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Of two that are the same resource, the one that is waited for longest.
    #[must_use]
    pub fn patient(self, other: &Self) -> Self {
        let longest = |one: &Self| (one.timeout.is_zero(), one.timeout);
        if longest(other) > longest(&self) { other.clone() } else { self }
    }
}

/// Over ADS, with Envoy's default timeout.
impl From<&str> for Reference {
    fn from(name: &str) -> Self {
        Self::new(name, Source::Ads, FETCH_TIMEOUT)
    }
}

impl Deref for Reference {
    type Target = Name;

    fn deref(&self) -> &Name {
        &self.key
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

/// The key says it all but the patience, and what is expected.
impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        let patience = |one: &Self| (one.timeout, one.waits);
        self.key == other.key && self.types == other.types && patience(self) == patience(other)
    }
}

/// The name that a source calls a resource by, of its key.
pub fn plain(key: &str) -> &str {
    key.split_once(FROM).map_or(key, |(name, _)| name)
}

impl Source {
    /// Sources that differ differ here. None: the one that needs no saying.
    fn describe(&self) -> Option<String> {
        match self {
            Self::Ads => None,
            Self::Stream(stream) => Some(stream.describe()),
            Self::File(file) => Some(match &file.watched {
                None => format!("file {}", file.path.display()),
                Some(watched) => format!("file {} ({})", file.path.display(), watched.display()),
            }),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe().as_deref().unwrap_or("ADS"))
    }
}

impl Stream {
    /// Metadata may be a token: only its hash is told.
    fn describe(&self) -> String {
        let kind = if self.delta { "DELTA_GRPC" } else { "GRPC" };
        let service = &self.service;
        let mut text = format!("{kind} {}", service.cluster);
        let plain = service.metadata.is_empty() && service.authority.is_none();
        if !plain || self.node_on_first_message_only {
            let mut hasher = DefaultHasher::new();
            (&service.authority, self.node_on_first_message_only).hash(&mut hasher);
            for (name, value) in &service.metadata {
                (name.as_str(), value.as_bytes()).hash(&mut hasher);
            }
            text.push_str(&format!("#{:08x}", hasher.finish() as u32));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn stream(metadata: &[&'static str]) -> Source {
        let metadata = metadata.iter().map(|value| {
            (HeaderName::from_static("authorization"), HeaderValue::from_static(value))
        });
        Source::Stream(Arc::new(Stream {
            service: GrpcService {
                cluster: "sds-grpc".into(),
                authority: None,
                timeout: None,
                metadata: metadata.collect(),
            },
            delta: true,
            node_on_first_message_only: false,
        }))
    }

    #[test]
    fn the_key_tells_sources_apart_and_no_secrets() {
        let key = |source: Source| Reference::new("default", source, FETCH_TIMEOUT).to_string();
        assert_eq!(key(Source::Ads), "default");
        assert_eq!(key(stream(&[])), "default @ DELTA_GRPC sds-grpc");
        let (one, other) = (key(stream(&["token-1"])), key(stream(&["token-2"])));
        assert!(one != other && !one.contains("token"), "{one} {other}");
        assert_eq!(plain(&one), "default");
        assert_eq!(plain("default"), "default");
    }

    #[test]
    fn the_longest_patience_wins_and_for_ever_is_longer_than_any() {
        let wait = |seconds| Reference::new("a", Source::Ads, Duration::from_secs(seconds));
        assert_eq!(wait(3).patient(&wait(5)).timeout(), Duration::from_secs(5));
        assert_eq!(wait(5).patient(&wait(3)).timeout(), Duration::from_secs(5));
        assert_eq!(wait(5).patient(&wait(0)).timeout(), Duration::ZERO);
        assert_eq!(wait(0).patient(&wait(5)).timeout(), Duration::ZERO);
    }
}
