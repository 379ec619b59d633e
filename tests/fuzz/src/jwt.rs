//! A token in its first line, after it a key set: what a stranger sends, and what an issuer answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use pillion_proxy::model::jwt::{
    Audiences, Jwks, KeySource, Lifetime, Places, Provider, Requirement, Tell,
};
use pillion_proxy::policy::jwt::{Fault, Keys, Verdict, World, evaluate, parse_keys};

struct Known(Result<Arc<Jwks>, Fault>);

impl World for Known {
    fn keys(&self, _: &Provider) -> Keys {
        match &self.0 {
            Ok(keys) => Keys::Known(Arc::clone(keys)),
            Err(fault) => Keys::Failed(*fault),
        }
    }

    fn remembered(&self, _: &Provider, _: &str) -> Option<Arc<Jwks>> {
        None
    }

    fn remember(&self, _: &Provider, _: &str, _: &Arc<Jwks>) {}
}

/// Whoever is let in was let in by a key: without keys nobody is.
pub(super) fn target(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, set) = data.split_at(end);
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", line].concat()) else { return };
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    let path = format!("/?access_token={}", String::from_utf8_lossy(line));
    let keys = parse_keys(set).map(Arc::new);
    let needs = Requirement::Provider(Arc::new(anybody()), None);
    let ask = |keys: Result<Arc<Jwks>, Fault>| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_300_000_000);
        evaluate(&needs, (&headers, &path), &Known(keys), now)
    };
    let verdict = ask(keys.clone());
    if keys.is_err() {
        assert!(matches!(verdict, Verdict::Denied(_)), "let in without a key");
    }
    if let Verdict::Allowed(accepted) = &verdict {
        assert!(!accepted.is_empty(), "let in without a token");
        for one in accepted {
            assert_eq!(one.token.payload(true).len() % 4, 0);
            let _ = one.token.claim("a.b.c");
        }
    }
    let without = ask(Ok(Arc::default()));
    assert!(matches!(without, Verdict::Denied(_)), "let in by no key at all");
}

fn anybody() -> Provider {
    Provider {
        name: "anybody".into(),
        issuer: "".into(),
        audiences: Audiences::default(),
        subjects: None,
        lifetime: Lifetime::Any,
        places: Places::usual(),
        forward: false,
        tell: Tell::default(),
        clock_skew: Duration::from_secs(60),
        cache: None,
        clear_route: false,
        keys: KeySource::Inline(Arc::default()),
    }
}
