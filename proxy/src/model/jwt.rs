//! JSON Web Tokens (`jwt_authn.v3`): who issues them, where they are found, who needs which.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::Name;
use super::kept::Kept;
use super::matcher::StringMatcher;
use super::route::RouteMatch;
use super::service::HttpService;
use super::tls::DataSource;

/// `JwtAuthentication`
#[derive(Debug, Default)]
pub struct JwtFilter {
    /// In the order of their names.
    pub providers: Vec<Arc<Provider>>,
    /// The first that matches counts; where none does, no token is asked for.
    pub rules: Vec<Rule>,
    /// `requirement_map`, for routes.
    pub named: BTreeMap<Name, Requirement>,
    /// CORS preflights carry no token and need none.
    pub bypass_cors_preflight: bool,
    /// Refuse without saying why.
    pub strip_failure_response: bool,
    /// Put before the names of the counters.
    pub stat_prefix: Name,
    /// Keys that were fetched, and tokens that were good.
    pub kept: Kept,
}

/// `PerRouteConfig`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtRoute {
    /// No token is asked for here.
    Disabled,
    /// This entry of `requirement_map` holds here.
    Named(Name),
}

/// `RequirementRule`
#[derive(Debug)]
pub struct Rule {
    /// Which requests.
    pub matches: RouteMatch,
    /// What they need.
    pub requirement: Requirement,
}

/// `JwtRequirement`
#[derive(Clone, Debug)]
pub enum Requirement {
    /// Nothing.
    Nothing,
    /// A token of this provider; with audiences: for one of these rather than the provider's own.
    Provider(Arc<Provider>, Option<Audiences>),
    /// One of these, asked in order.
    Any(Vec<Self>),
    /// All of these.
    All(Vec<Self>),
    /// A token of one of these providers, if there is one at all.
    AllowMissing(Vec<Arc<Provider>>),
    /// Anything; good tokens of these providers are used as if they had been asked for.
    AllowMissingOrFailed(Vec<Arc<Provider>>),
}

/// `JwtProvider`
#[derive(Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: Name,
    /// `iss` of its tokens. Empty: any.
    pub issuer: Name,
    /// Allowed `aud`.
    pub audiences: Audiences,
    /// Allowed `sub`. None: any.
    pub subjects: Option<StringMatcher>,
    /// What `exp` has to say.
    pub lifetime: Lifetime,
    /// Where its tokens are found.
    pub places: Places,
    /// The token stays in the request.
    pub forward: bool,
    /// What the upstream is told of a good token.
    pub tell: Tell,
    /// Clocks may differ by so much. Default 60 s.
    pub clock_skew: Duration,
    /// Good tokens are remembered. None: each is verified each time.
    pub cache: Option<CacheLimits>,
    /// Routes are chosen again when claims were put into headers.
    pub clear_route: bool,
    /// Its keys.
    pub keys: KeySource,
}

/// What an upstream is told of a good token.
#[derive(Debug, Default)]
pub struct Tell {
    /// The payload, base64url, in this header.
    pub payload: Option<HeaderName>,
    /// With `=` at its end where base64 wants them.
    pub padded: bool,
    /// The claims, as dynamic metadata, in this field.
    pub metadata: Option<String>,
    /// Claims in headers of their own; dots lead into objects.
    pub claims: Vec<(HeaderName, String)>,
}

/// `require_expiration` and `max_lifetime`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// A token without `exp` is good for ever.
    #[default]
    Any,
    /// It needs an `exp`.
    Bounded,
    /// It needs one, less than this from now.
    Below(Duration),
}

/// Where tokens are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Headers, and what stands in them before the token.
    pub headers: Vec<(HeaderName, String)>,
    /// Query parameters.
    pub params: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
}

impl Places {
    /// `authorization: Bearer …` and the query parameter `access_token` (RFC 6750): where a
    /// provider names no place.
    pub fn usual() -> Self {
        Self {
            headers: vec![(AUTHORIZATION, "Bearer ".to_owned())],
            params: vec!["access_token".to_owned()],
            cookies: Vec::new(),
        }
    }
}

/// `jwt_cache_config`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Tokens. Default 100.
    pub tokens: usize,
    /// Bytes of a token; longer ones are not remembered. Default 4096.
    pub token_bytes: usize,
}

/// Where a provider's keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// `local_jwks`, given inline.
    Inline(Arc<Jwks>),
    /// `local_jwks`, in a file.
    File(DataSource),
    /// `remote_jwks`
    Remote(RemoteKeys),
}

/// `RemoteJwks`
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteKeys {
    /// Who is asked.
    pub service: HttpService,
    /// Keys are asked for again after so long. Default 10 minutes.
    pub cache: Duration,
    /// Ask before the first request needs them, and again before they are old.
    pub ahead: bool,
    /// After a failure nobody asks again for so long. Default 1 s.
    pub rest: Duration,
    /// Further tries of one question.
    pub retries: u32,
    /// Pause before the first of them, which grows twofold. Default 1 s.
    pub pause: Duration,
    /// Longest pause. Default ten times the first.
    pub longest_pause: Duration,
}

/// `aud` that are allowed, without scheme and closing slash, as Envoy compares them. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audiences(BTreeSet<String>);

impl Audiences {
    /// These.
    pub fn new(audiences: &[String]) -> Self {
        Self(audiences.iter().map(|one| bare(one).to_owned()).collect())
    }

    /// Whether one of a token's audiences is allowed.
    pub fn allow(&self, of_token: &[String]) -> bool {
        self.0.is_empty() || of_token.iter().any(|one| self.0.contains(bare(one)))
    }
}

fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// The usable keys of a JSON Web Key Set (RFC 7517).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jwks {
    /// In the order of the set.
    pub keys: Vec<Key>,
}

/// A key for verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `kid`. None: for any token.
    pub id: Option<String>,
    /// `alg`. None: any that goes with the material.
    pub algorithm: Option<Algorithm>,
    /// The key itself.
    pub material: Material,
}

/// What a key is made of. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// Modulus and public exponent, big-endian without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
    /// `RSAPublicKey` in DER, out of a certificate.
    RsaDer(Vec<u8>),
    /// A point of this curve, uncompressed.
    Ec(Curve, Vec<u8>),
    /// A public key of Ed25519.
    Ed25519(Vec<u8>),
    /// A shared secret.
    Oct(Arc<Zeroizing<Vec<u8>>>),
}

/// `crv` of an `EC` key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// P-256
    P256,
    /// P-384
    P384,
    /// P-521
    P521,
}

/// `alg` (RFC 7518 section 3.1, RFC 8037). There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registry's")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// By its registered name. None: it is not supported.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa(..) | Self::RsaDer(_) => "RSA",
            Self::Ec(Curve::P256, _) => "EC P-256",
            Self::Ec(Curve::P384, _) => "EC P-384",
            Self::Ec(Curve::P521, _) => "EC P-521",
            Self::Ed25519(_) => "OKP Ed25519",
            Self::Oct(_) => "oct",
        })
    }
}
