//! `jwt_authn.v3.JwtAuthentication` and `PerRouteConfig`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::filters::http::jwt_authn::v3 as pb;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, headers, matcher, route_match, service};
use crate::model::filter::{FilterKind, Override};
use crate::model::jwt::{
    Audiences, CacheLimits, JwtFilter, JwtRoute, KeySource, Lifetime, Places, Provider, RemoteKeys,
    Requirement, Rule, Tell,
};
use crate::model::tls::DataSource;
use crate::policy::jwt::parse_keys;

/// Envoy's defaults.
const CLOCK_SKEW: u32 = 60;
const CACHE: Duration = Duration::from_secs(600);
const REST: Duration = Duration::from_secs(1);
const CACHED_TOKENS: u32 = 100;
const CACHED_TOKEN_BYTES: u32 = 4096;
const PAUSE: Duration = Duration::from_secs(1);

type Providers = BTreeMap<String, Arc<Provider>>;

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::JwtAuthentication = common::unpack(at, packed)?;
    let providers_at = at.field("providers");
    let named: BTreeMap<_, _> = config.providers.iter().collect();
    let mut providers = Providers::new();
    for (name, provider) in named {
        let made = self::provider(&providers_at.key(name), name, provider)?;
        providers.insert(name.clone(), Arc::new(made));
    }
    let mut named = BTreeMap::new();
    let map_at = at.field("requirement_map");
    for (name, requirement) in config.requirement_map.iter().collect::<BTreeMap<_, _>>() {
        let made = self::requirement(&map_at.key(name), requirement, &providers, &[])?;
        named.insert(name.as_str().into(), made);
    }
    let rules_at = at.field("rules");
    let mut rules = Vec::with_capacity(config.rules.len());
    for (i, rule) in config.rules.iter().enumerate() {
        rules.push(self::rule(&rules_at.index(i), rule, &providers, &named)?);
    }
    Some(FilterKind::Jwt(Arc::new(JwtFilter {
        providers: providers.into_values().collect(),
        rules,
        named,
        bypass_cors_preflight: config.bypass_cors_preflight,
        strip_failure_response: config.strip_failure_response,
        stat_prefix: config.stat_prefix.as_str().into(),
        ..JwtFilter::default()
    })))
}

pub(super) fn per_route(at: &At<'_>, packed: &Any) -> Option<Override> {
    use pb::per_route_config::RequirementSpecifier as Kind;
    let config: pb::PerRouteConfig = common::unpack(at, packed)?;
    let route = match config.requirement_specifier {
        Some(Kind::Disabled(true)) => JwtRoute::Disabled,
        Some(Kind::Disabled(false)) => return at.field("disabled").refuse("expected true"),
        Some(Kind::RequirementName(name)) => {
            at.field("requirement_name").expect(!name.is_empty(), "is empty")?;
            JwtRoute::Named(name.into())
        }
        None => return at.refuse("expected disabled or requirement_name"),
    };
    Some(Override::Settings(FilterKind::JwtRoute(route)))
}

fn rule(
    at: &At<'_>,
    rule: &pb::RequirementRule,
    providers: &Providers,
    named: &BTreeMap<crate::model::Name, Requirement>,
) -> Option<Rule> {
    use pb::requirement_rule::RequirementType as Kind;
    let match_at = at.field("match");
    let config = match_at.required(rule.r#match.as_ref())?;
    let matches = route_match::matches(&match_at, config)?;
    let all = matches.headers.len() == config.headers.len()
        && matches.query.len() == config.query_parameters.len();
    match_at.expect(all, "a matcher is refused")?;
    let requirement = match &rule.requirement_type {
        None => Requirement::Nothing,
        Some(Kind::Requires(required)) => {
            requirement(&at.field("requires"), required, providers, &[])?
        }
        Some(Kind::RequirementName(name)) => match named.get(name.as_str()) {
            Some(requirement) => requirement.clone(),
            None => {
                let reason = format!("`{name}` is not in requirement_map");
                return at.field("requirement_name").refuse(reason);
            }
        },
    };
    Some(Rule { matches, requirement })
}

/// `beside`: the providers that stand next to it in a `requires_any`; those are meant by
/// `allow_missing`. Without any, all are.
fn requirement(
    at: &At<'_>,
    config: &pb::JwtRequirement,
    providers: &Providers,
    beside: &[Arc<Provider>],
) -> Option<Requirement> {
    use pb::jwt_requirement::RequiresType as Kind;
    let named = |at: &At<'_>, name: &String| match providers.get(name) {
        Some(provider) => Some(Arc::clone(provider)),
        None => at.refuse(format!("there is no provider `{name}`")),
    };
    let meant = || -> Vec<Arc<Provider>> {
        if beside.is_empty() { providers.values().cloned().collect() } else { beside.to_vec() }
    };
    Some(match &config.requires_type {
        None => Requirement::Nothing,
        Some(Kind::ProviderName(name)) => {
            Requirement::Provider(named(&at.field("provider_name"), name)?, None)
        }
        Some(Kind::ProviderAndAudiences(config)) => {
            let at = at.field("provider_and_audiences");
            let provider = named(&at.field("provider_name"), &config.provider_name)?;
            let own = (!config.audiences.is_empty()).then(|| Audiences::new(&config.audiences));
            Requirement::Provider(provider, own)
        }
        Some(Kind::RequiresAny(list)) => {
            any(&at.field("requires_any").field("requirements"), &list.requirements, providers)?
        }
        Some(Kind::RequiresAll(list)) => {
            let all_at = at.field("requires_all");
            let at = all_at.field("requirements");
            Requirement::All(several(&at, &list.requirements, providers, &[])?)
        }
        Some(Kind::AllowMissing(_)) => Requirement::AllowMissing(meant()),
        Some(Kind::AllowMissingOrFailed(_)) => Requirement::AllowMissingOrFailed(meant()),
    })
}

/// What may be missing is asked last, and once: `allow_missing_or_failed` wins.
fn any(at: &At<'_>, all: &[pb::JwtRequirement], providers: &Providers) -> Option<Requirement> {
    let made = several(at, all, providers, &[])?;
    let lenient = |one: &Requirement| {
        matches!(one, Requirement::AllowMissing(_) | Requirement::AllowMissingOrFailed(_))
    };
    let beside: Vec<Arc<Provider>> = made
        .iter()
        .filter_map(|one| match one {
            Requirement::Provider(provider, _) => Some(Arc::clone(provider)),
            _ => None,
        })
        .collect();
    let meant = if beside.is_empty() { providers.values().cloned().collect() } else { beside };
    let failed = made.iter().any(|one| matches!(one, Requirement::AllowMissingOrFailed(_)));
    let missing = made.iter().any(lenient);
    let mut strict: Vec<Requirement> = made.into_iter().filter(|one| !lenient(one)).collect();
    match (failed, missing) {
        (true, _) => strict.push(Requirement::AllowMissingOrFailed(meant)),
        (false, true) => strict.push(Requirement::AllowMissing(meant)),
        (false, false) => {}
    }
    Some(Requirement::Any(strict))
}

/// All or nothing: a list that lost a part would mean something else. Envoy asks for two at least.
fn several(
    at: &At<'_>,
    all: &[pb::JwtRequirement],
    providers: &Providers,
    beside: &[Arc<Provider>],
) -> Option<Vec<Requirement>> {
    at.expect(all.len() >= 2, "expected two requirements or more")?;
    let made = at.each(all, |at, one| requirement(at, one, providers, beside));
    (made.len() == all.len()).then_some(made)
}

fn provider(at: &At<'_>, name: &str, config: &pb::JwtProvider) -> Option<Provider> {
    let subjects = match &config.subjects {
        Some(matcher) => Some(matcher::string(&at.field("subjects"), matcher)?),
        None => None,
    };
    let lifetime_at = at.field("max_lifetime");
    let lifetime = match lifetime_at.duration(config.max_lifetime) {
        Some(most) => Lifetime::Below(most),
        None if config.max_lifetime.is_some() => return None,
        None if config.require_expiration => Lifetime::Bounded,
        None => Lifetime::Any,
    };
    let skew = match config.clock_skew_seconds {
        0 => CLOCK_SKEW,
        seconds => seconds,
    };
    let cache = config.jwt_cache_config.map(|cache| {
        let or = |value: u32, default: u32| if value == 0 { default } else { value } as usize;
        CacheLimits {
            tokens: or(cache.jwt_cache_size, CACHED_TOKENS),
            token_bytes: or(cache.jwt_max_token_size, CACHED_TOKEN_BYTES),
        }
    });
    let tell = tell(at, config)?;
    Some(Provider {
        name: name.into(),
        issuer: config.issuer.as_str().into(),
        audiences: Audiences::new(&config.audiences),
        subjects,
        lifetime,
        places: places(at, config)?,
        forward: config.forward,
        clear_route: config.clear_route_cache && !tell.claims.is_empty(),
        tell,
        clock_skew: Duration::from_secs(u64::from(skew)),
        cache,
        keys: keys(at, config.jwks_source_specifier.as_ref())?,
    })
}

fn places(at: &At<'_>, config: &pb::JwtProvider) -> Option<Places> {
    let headers_at = at.field("from_headers");
    let headers = headers_at.each(&config.from_headers, |at, header| {
        Some((headers::name_of(&at.field("name"), &header.name)?, header.value_prefix.clone()))
    });
    headers_at.expect(headers.len() == config.from_headers.len(), "a header is refused")?;
    let places = Places {
        headers,
        params: config.from_params.clone(),
        cookies: config.from_cookies.clone(),
    };
    Some(if places == Places::default() { Places::usual() } else { places })
}

fn tell(at: &At<'_>, config: &pb::JwtProvider) -> Option<Tell> {
    let claims_at = at.field("claim_to_headers");
    let claims = claims_at.each(&config.claim_to_headers, |at, claim| {
        at.field("claim_name").expect(!claim.claim_name.is_empty(), "is empty")?;
        let name = headers::name_of(&at.field("header_name"), &claim.header_name)?;
        Some((name, claim.claim_name.clone()))
    });
    claims_at.expect(claims.len() == config.claim_to_headers.len(), "a claim is refused")?;
    let payload = match config.forward_payload_header.as_str() {
        "" => None,
        name => Some(headers::name_of(&at.field("forward_payload_header"), name)?),
    };
    let metadata = Some(&config.payload_in_metadata).filter(|key| !key.is_empty()).cloned();
    Some(Tell { payload, padded: config.pad_forward_payload_header, metadata, claims })
}

fn keys(at: &At<'_>, source: Option<&pb::jwt_provider::JwksSourceSpecifier>) -> Option<KeySource> {
    use pb::jwt_provider::JwksSourceSpecifier as Kind;
    match at.field("jwks_source_specifier").required(source)? {
        Kind::LocalJwks(source) => {
            let at = at.field("local_jwks");
            match common::data_source(&at, Some(source))? {
                file @ DataSource::File(_) => Some(KeySource::File(file)),
                DataSource::Inline(bytes) => match parse_keys(&bytes) {
                    Ok(keys) => Some(KeySource::Inline(Arc::new(keys))),
                    Err(fault) => at.refuse(fault.text()),
                },
            }
        }
        Kind::RemoteJwks(remote) => {
            Some(KeySource::Remote(self::remote(&at.field("remote_jwks"), remote)?))
        }
    }
}

fn remote(at: &At<'_>, config: &pb::RemoteJwks) -> Option<RemoteKeys> {
    let cache_at = at.field("cache_duration");
    let ahead = config.async_fetch.as_ref();
    let ahead_at = at.field("async_fetch");
    let rest_at = ahead_at.field("failed_refetch_duration");
    let rest = ahead.and_then(|ahead| rest_at.duration(ahead.failed_refetch_duration));
    let retry_at = at.field("retry_policy");
    let (retries, pause, longest_pause) = match &config.retry_policy {
        Some(policy) => retry(&retry_at, policy)?,
        None => (0, PAUSE, PAUSE),
    };
    Some(RemoteKeys {
        service: service::http(&at.field("http_uri"), config.http_uri.as_ref())?,
        cache: cache_at.duration(config.cache_duration).unwrap_or(CACHE),
        ahead: ahead.is_some(),
        rest: rest.unwrap_or(REST),
        retries,
        pause,
        longest_pause,
    })
}

/// Number of further tries, first and longest pause.
fn retry(at: &At<'_>, policy: &core::RetryPolicy) -> Option<(u32, Duration, Duration)> {
    let usual = policy.retry_on.is_empty();
    at.field("retry_on").expect(usual, "is not supported: every failure is tried again")?;
    let retries = policy.num_retries.unwrap_or(1);
    let Some(pauses) = &policy.retry_back_off else { return Some((retries, PAUSE, PAUSE * 10)) };
    let at = at.field("retry_back_off");
    let base_at = at.field("base_interval");
    let base = base_at.required(base_at.duration(pauses.base_interval))?;
    let most = at.field("max_interval").duration(pauses.max_interval).unwrap_or(base * 10);
    at.expect(most >= base, "expected a max_interval of at least base_interval")?;
    Some((retries, base, most))
}
