//! Local rate limits (`envoy.extensions.filters.http.local_ratelimit.v3`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;

use super::Name;
use super::format::Template;
use super::headers::HeaderOps;
use super::kept::Kept;
use super::matcher::{HeaderKey, HeaderMatcher, QueryMatcher};

/// `LocalRateLimit`, with its buckets: they live as long as the configuration that made them.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// `<stat_prefix>.http_local_rate_limit.`
    pub stat_prefix: Name,
    /// Of a refused request. Default 429.
    pub status: StatusCode,
    /// gRPC requests get RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
    /// For requests without a descriptor of their own, or for all. None: only descriptors limit.
    pub bucket: Option<TokenBucket>,
    /// A request with a descriptor takes from the bucket above too. Default true.
    pub always_take_default: bool,
    /// Buckets of their own.
    pub descriptors: Vec<Limited>,
    /// How requests get descriptors. Empty: as routes and virtual hosts say.
    pub describe: Vec<Rule>,
    /// Only rules of this stage.
    pub stage: u32,
    /// Whether rules of the virtual host count beside those of the route.
    pub host: HostLimits,
    /// Every connection of a downstream has buckets of its own.
    pub per_connection: bool,
    /// Share of requests that are looked at, out of a million.
    pub enabled: u32,
    /// Share of those that are really refused.
    pub enforced: u32,
    /// Put into refusals.
    pub response_headers: HeaderOps,
    /// Put into requests that would have been refused.
    pub request_headers: HeaderOps,
    /// Answer with `x-ratelimit-limit`, `-remaining` and `-reset`.
    pub headers: bool,
    /// Its counters.
    pub kept: Kept,
}

impl LocalRateLimit {
    /// The same with buckets of its own, all full.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self {
            stat_prefix: Arc::clone(&self.stat_prefix),
            bucket: self.bucket.as_ref().map(|bucket| TokenBucket::new(bucket.rate)),
            descriptors: self.descriptors.iter().map(Limited::fresh).collect(),
            describe: self.describe.clone(),
            response_headers: self.response_headers.clone(),
            request_headers: self.request_headers.clone(),
            kept: Kept::default(),
            ..*self
        }
    }
}

impl Limited {
    fn fresh(&self) -> Self {
        let buckets = match &self.buckets {
            Buckets::One(_) => Buckets::One(TokenBucket::new(self.rate)),
            Buckets::Each(_, most) => Buckets::Each(Mutex::default(), *most),
        };
        Self { entries: self.entries.clone(), rate: self.rate, buckets }
    }
}

/// A descriptor that has buckets.
#[derive(Debug)]
pub struct Limited {
    /// Key and value; an empty value stands for every value, with a bucket for each.
    pub entries: Vec<(Name, Name)>,
    /// Of which kind each bucket is.
    pub rate: Rate,
    /// The one bucket, or one for each value.
    pub buckets: Buckets,
}

/// Buckets of a descriptor.
#[derive(Debug)]
pub enum Buckets {
    /// All values are fixed.
    One(TokenBucket),
    /// By the values that were left open, at most so many; the one that was full the longest goes.
    Each(Mutex<HashMap<String, Arc<TokenBucket>>>, usize),
}

/// `route.v3.RateLimit`: makes a descriptor of a request.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which filters look at it.
    pub stage: u32,
    /// Each makes an entry; if one cannot, there is no descriptor.
    pub actions: Vec<DescribeBy>,
    /// How much the request counts for. None: once.
    pub hits: Option<Hits>,
}

/// `RateLimit.HitsAddend`
#[derive(Clone, Debug)]
pub enum Hits {
    /// So often.
    Number(u64),
    /// As often as this says.
    Format(Template),
}

/// `VhRateLimitsOptions`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostLimits {
    /// OVERRIDE: only if the route has no rules.
    #[default]
    Override,
    /// INCLUDE: always.
    Include,
    /// IGNORE: never.
    Ignore,
}

/// `RateLimit.Action`: one entry of a descriptor.
#[derive(Clone, Debug)]
pub enum DescribeBy {
    /// A fixed key and value.
    Generic(Name, Name),
    /// Value of a request header; true: left out if the header is absent.
    Header(HeaderKey, Name, bool),
    /// Value of a query parameter; true: left out if it is absent.
    Query(Name, Name, bool),
    /// `remote_address`: the client's, as far as `x-forwarded-for` is trusted.
    RemoteAddress,
    /// `masked_remote_address`: bits of IPv4 and IPv6 networks.
    MaskedAddress(u8, u8),
    /// `destination_cluster`
    DestinationCluster,
    /// A fixed key and value if the headers match, or if they do not.
    HeaderMatch(Name, Name, Vec<HeaderMatcher>, bool),
    /// The same for query parameters.
    QueryMatch(Name, Name, Vec<QueryMatcher>, bool),
    /// `source_cluster`: this proxy's own (`node.cluster`).
    SourceCluster,
}

/// `TokenBucket`: a rate and a depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Depth; a new bucket is full.
    pub max: u32,
    /// Nanoseconds in which one token comes back.
    pub nanos_per_token: u64,
}

impl Rate {
    /// A rate of `per_fill` tokens in `interval`.
    pub fn new(max: u32, per_fill: u32, interval: Duration) -> Self {
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self { max, nanos_per_token: (nanos / u64::from(per_fill.max(1))).max(1) }
    }

    fn depth(self) -> u64 {
        self.nanos_per_token.saturating_mul(u64::from(self.max))
    }
}

/// A bucket, refilled steadily, without lock. Times are nanoseconds after a moment long before the
/// process began, so that a new bucket is full.
#[derive(Debug)]
pub struct TokenBucket {
    rate: Rate,
    /// When the bucket would have been empty.
    empty_at: AtomicU64,
}

/// What taking a token came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// There was one.
    pub granted: bool,
    /// Depth of the bucket.
    pub limit: u32,
    /// Whole tokens left.
    pub remaining: u32,
    /// Until the next whole token.
    pub reset: Duration,
}

impl TokenBucket {
    /// A full one.
    pub fn new(rate: Rate) -> Self {
        Self { rate, empty_at: AtomicU64::new(0) }
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: u64) -> Taken {
        let cost = self.rate.nanos_per_token;
        let floor = now.saturating_sub(self.rate.depth());
        let before = self.empty_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
            let after = at.max(floor).saturating_add(cost);
            (after <= now).then_some(after)
        });
        let (granted, at) = match before {
            Ok(at) => (true, at.max(floor).saturating_add(cost)),
            Err(at) => (false, at.max(floor)),
        };
        let filled = now.saturating_sub(at);
        let next = cost - filled % cost;
        Taken {
            granted,
            limit: self.rate.max,
            remaining: u32::try_from(filled / cost).unwrap_or(u32::MAX).min(self.rate.max),
            reset: Duration::from_nanos(next),
        }
    }

    /// When it was empty, or would have been: the smaller, the longer it is full.
    fn age(&self) -> u64 {
        self.empty_at.load(Ordering::Relaxed)
    }
}

impl Buckets {
    /// The bucket for these open values.
    pub fn take(&self, values: &str, rate: Rate, now: u64) -> Taken {
        match self {
            Self::One(bucket) => bucket.take(now),
            Self::Each(buckets, most) => {
                let bucket = {
                    let mut buckets =
                        buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match buckets.get(values) {
                        Some(bucket) => Arc::clone(bucket),
                        None => {
                            make_room(&mut buckets, *most);
                            let bucket = Arc::new(TokenBucket::new(rate));
                            buckets.insert(values.to_owned(), Arc::clone(&bucket));
                            bucket
                        }
                    }
                };
                bucket.take(now)
            }
        }
    }
}

/// Whoever was away the longest loses nothing by losing a bucket that is full again.
fn make_room(buckets: &mut HashMap<String, Arc<TokenBucket>>, most: usize) {
    if buckets.len() < most {
        return;
    }
    let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.age()).map(|(key, _)| key.clone());
    if let Some(oldest) = oldest {
        buckets.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const LONG_AGO: u64 = 1 << 60;

    #[test]
    fn a_bucket_gives_its_depth_and_then_its_rate() {
        let bucket = TokenBucket::new(Rate::new(3, 2, Duration::from_secs(1)));
        let granted = |now| (0..10).filter(|_| bucket.take(LONG_AGO + now).granted).count();
        assert_eq!(granted(0), 3);
        assert_eq!(granted(SECOND / 2 - 1), 0);
        assert_eq!(granted(SECOND / 2), 1);
        assert_eq!(granted(100 * SECOND), 3);
    }

    #[test]
    fn what_is_left_is_told() {
        let bucket = TokenBucket::new(Rate::new(2, 1, Duration::from_secs(10)));
        let taken = bucket.take(LONG_AGO);
        assert_eq!((taken.granted, taken.limit, taken.remaining), (true, 2, 1));
        bucket.take(LONG_AGO);
        let taken = bucket.take(LONG_AGO + 4 * SECOND);
        assert_eq!((taken.granted, taken.remaining), (false, 0));
        assert_eq!(taken.reset, Duration::from_secs(6));
    }

    #[test]
    fn every_open_value_has_a_bucket_and_their_number_is_bounded() {
        let rate = Rate::new(1, 1, Duration::from_secs(60));
        let buckets = Buckets::Each(Mutex::default(), 2);
        assert!(buckets.take("a", rate, LONG_AGO).granted);
        assert!(!buckets.take("a", rate, LONG_AGO).granted);
        assert!(buckets.take("b", rate, LONG_AGO + SECOND).granted);
        // A third value drives out the one that has waited longest.
        assert!(buckets.take("c", rate, LONG_AGO + 2 * SECOND).granted);
        assert!(!buckets.take("b", rate, LONG_AGO + 2 * SECOND).granted);
        let Buckets::Each(all, _) = &buckets else { unreachable!() };
        assert_eq!(all.lock().unwrap().len(), 2);
    }
}
