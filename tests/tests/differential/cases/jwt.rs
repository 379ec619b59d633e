//! JSON Web Tokens, with keys that are made for the run.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::differential::case::{Case, Request, get, grpc, request};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;
use crate::differential::web;

const SECRET: &[u8] = b"a secret of thirty-two bytes, no less";
/// Far away from now, either way.
const PAST: u64 = 1_000_000_000;
const FUTURE: u64 = 4_000_000_000;

struct Signers {
    rsa: rsa::KeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    p521: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    rsa: rsa::KeyPair::generate(KeySize::Rsa2048).expect("aws-lc makes keys and signs"),
    p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
        .expect("aws-lc makes keys and signs"),
    p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)
        .expect("aws-lc makes keys and signs"),
    p521: EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING)
        .expect("aws-lc makes keys and signs"),
    ed25519: Ed25519KeyPair::generate().expect("aws-lc makes keys and signs"),
});

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Every key, each with the name of its algorithm's family as its id.
fn key_set() -> String {
    let signers = &*SIGNERS;
    let ec = |id: &str, curve: &str, key: &EcdsaKeyPair| {
        let point = &key.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        json!({"kty": "EC", "kid": id, "crv": curve, "x": base64(x), "y": base64(y)})
    };
    let rsa = signers.rsa.public_key();
    json!({"keys": [
        {"kty": "RSA", "kid": "rsa", "n": base64(rsa.modulus().big_endian_without_leading_zero()),
            "e": "AQAB"},
        ec("p256", "P-256", &signers.p256),
        ec("p384", "P-384", &signers.p384),
        ec("p521", "P-521", &signers.p521),
        {"kty": "OKP", "kid": "ed", "crv": "Ed25519",
            "x": base64(signers.ed25519.public_key().as_ref())},
        {"kty": "oct", "kid": "oct", "k": base64(SECRET)},
        {"kty": "RSA", "kid": "only-rs256", "alg": "RS256",
            "n": base64(rsa.modulus().big_endian_without_leading_zero()), "e": "AQAB"},
    ]})
    .to_string()
}

fn sign(algorithm: &str, text: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let signers = &*SIGNERS;
    let rsa = |encoding: &'static dyn RsaEncoding| {
        let mut signature = vec![0; signers.rsa.public_modulus_len()];
        signers
            .rsa
            .sign(encoding, &random, text, &mut signature)
            .expect("aws-lc makes keys and signs");
        signature
    };
    let ec = |key: &EcdsaKeyPair| {
        key.sign(&random, text).expect("aws-lc makes keys and signs").as_ref().to_vec()
    };
    let secret = |algorithm| hmac::sign(&hmac::Key::new(algorithm, SECRET), text).as_ref().to_vec();
    match algorithm {
        "RS256" => rsa(&RSA_PKCS1_SHA256),
        "RS384" => rsa(&RSA_PKCS1_SHA384),
        "RS512" => rsa(&RSA_PKCS1_SHA512),
        "PS256" => rsa(&RSA_PSS_SHA256),
        "PS384" => rsa(&RSA_PSS_SHA384),
        "PS512" => rsa(&RSA_PSS_SHA512),
        "ES256" => ec(&signers.p256),
        "ES384" => ec(&signers.p384),
        "ES512" => ec(&signers.p521),
        "EdDSA" => signers.ed25519.sign(text).as_ref().to_vec(),
        "HS256" => secret(hmac::HMAC_SHA256),
        "HS384" => secret(hmac::HMAC_SHA384),
        "HS512" => secret(hmac::HMAC_SHA512),
        _ => Vec::new(),
    }
}

fn token_with(header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let signature = sign(header["alg"].as_str().unwrap_or_default(), signed.as_bytes());
    format!("{signed}.{}", base64(signature))
}

fn token(claims: &Value) -> String {
    token_with(&json!({"alg": "ES256", "kid": "p256"}), claims)
}

/// Of the issuer `joe`, with these claims beside.
fn joe(mut more: Value) -> String {
    more["iss"] = json!("joe");
    token(&more)
}

fn with(path: &str, token: &str) -> Request {
    get(path).header("authorization", &format!("Bearer {token}"))
}

/// Listener filters; `KEYS` is where the keys go.
const FILTERS: &str = "
- name: jwt
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
    bypass_cors_preflight: true
    providers:
      joe: {issuer: joe, local_jwks: {inline_string: KEYS}, jwt_cache_config: {}}
      jack: {issuer: jack, local_jwks: {inline_string: KEYS}, from_headers: [{name: x-jack}]}
      anybody: {local_jwks: {inline_string: KEYS}, from_cookies: [session], forward: true}
      shop: {issuer: joe, audiences: ['https://shop.example/', orders], local_jwks: {inline_string: KEYS}}
      web: {issuer: joe, subjects: {prefix: 'web-'}, local_jwks: {inline_string: KEYS}}
      bounded: {issuer: joe, require_expiration: true, local_jwks: {inline_string: KEYS}}
      brief: {issuer: joe, max_lifetime: 3600s, local_jwks: {inline_string: KEYS}}
      skewed: {issuer: joe, clock_skew_seconds: 4000000000, local_jwks: {inline_string: KEYS}}
      places: {issuer: joe, local_jwks: {inline_string: KEYS}, from_params: [t],
        from_headers: [{name: x-a, value_prefix: 'tok '}, {name: x-b}], from_cookies: [c]}
      told: {issuer: joe, local_jwks: {inline_string: KEYS}, forward: true, forward_payload_header: x-payload, payload_in_metadata: claims,
        pad_forward_payload_header: true, claim_to_headers: [
          {header_name: x-sub, claim_name: sub}, {header_name: x-n, claim_name: num},
          {header_name: x-r, claim_name: r}, {header_name: x-yes, claim_name: sure},
          {header_name: x-deep, claim_name: deep.er}, {header_name: x-list, claim_name: list}]}
      told-raw: {issuer: joe, local_jwks: {inline_string: KEYS}, forward_payload_header: x-payload}
      remote: {issuer: joe, remote_jwks: {http_uri: {uri: 'http://keys.test/all?x', cluster: keys, timeout: 5s}}}
      ahead: {issuer: joe, remote_jwks: {http_uri: {uri: 'http://keys.test/all', cluster: keys, timeout: 5s}, async_fetch: {}}}
      lost: {issuer: lost, remote_jwks: {http_uri: {uri: 'http://keys.test/all', cluster: refused, timeout: 5s}}}
      garbage: {issuer: joe, remote_jwks: {http_uri: {uri: 'http://keys.test/garbage', cluster: keys, timeout: 5s}}}
      broken: {issuer: joe, remote_jwks: {http_uri: {uri: 'http://keys.test/500', cluster: keys, timeout: 5s}}}
      routed: {issuer: joe, local_jwks: {inline_string: KEYS}, clear_route_cache: true, claim_to_headers: [{header_name: x-sub, claim_name: sub}]}
    requirement_map:
      of-joe: {provider_name: joe}
      of-jack: {provider_name: jack}
    rules:
    - {match: {prefix: /free}}
    - {match: {prefix: /named}, requirement_name: of-joe}
    - {match: {prefix: /audience}, requires: {provider_and_audiences: {provider_name: shop, audiences: [special]}}}
    - {match: {prefix: /any}, requires: {requires_any: {requirements: [{provider_name: joe}, {provider_name: jack}]}}}
    - {match: {prefix: /all}, requires: {requires_all: {requirements: [{provider_name: joe}, {provider_name: jack}]}}}
    - {match: {prefix: /missing}, requires: {requires_any: {requirements: [{provider_name: joe}, {allow_missing: {}}]}}}
    - {match: {prefix: /failed}, requires: {requires_any: {requirements: [{provider_name: joe}, {allow_missing_or_failed: {}}]}}}
    - {match: {prefix: /alone}, requires: {allow_missing: {}}}
    - {match: {prefix: /lost-or-joe}, requires: {requires_any: {requirements: [{provider_name: lost}, {provider_name: joe}]}}}
    - {match: {path: /exact, headers: [{name: x-strict, present_match: true}]}, requires: {provider_name: joe}}
    - {match: {prefix: /joe}, requires: {provider_name: joe}}
    - {match: {prefix: /whoever}, requires: {provider_name: anybody}}
    - {match: {prefix: /shop}, requires: {provider_name: shop}}
    - {match: {prefix: /web}, requires: {provider_name: web}}
    - {match: {prefix: /bounded}, requires: {provider_name: bounded}}
    - {match: {prefix: /brief}, requires: {provider_name: brief}}
    - {match: {prefix: /skewed}, requires: {provider_name: skewed}}
    - {match: {prefix: /places}, requires: {provider_name: places}}
    - {match: {prefix: /told-raw}, requires: {provider_name: told-raw}}
    - {match: {prefix: /told}, requires: {provider_name: told}}
    - {match: {prefix: /remote}, requires: {provider_name: remote}}
    - {match: {prefix: /ahead}, requires: {provider_name: ahead}}
    - {match: {prefix: /lost}, requires: {provider_name: lost}}
    - {match: {prefix: /garbage}, requires: {provider_name: garbage}}
    - {match: {prefix: /broken}, requires: {provider_name: broken}}
    - {match: {prefix: /routed}, requires: {provider_name: routed}}";

const CLUSTERS: &str = "
- name: keys
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: keys, endpoints: [{lb_endpoints: [{endpoint: {address: @keys@}}]}]}";

const VHOST: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}";

const ON_PURPOSE: OnPurpose = &[
    (
        "jwt-algorithms.19",
        "",
        "an HS256 token and an Ed25519 key: Envoy measures the signature before it sees that the \
         algorithm is another",
    ),
    (
        "jwt-requirements.6",
        "headers: only envoy {www-authenticate",
        "the realm is without the query, which may hold a token",
    ),
    ("jwt-places.10", "headers: only envoy {www-authenticate", "the same"),
];

#[tokio::test]
async fn json_web_tokens() -> anyhow::Result<()> {
    let keys = serde_json::to_string(&key_set())?;
    let filters: &'static str = Box::leak(FILTERS.replace("KEYS", &keys).into_boxed_str());
    same(Part {
        cases: [algorithms(), unreadable(), claims(), requirements(), places(), remote(), routes()]
            .into_iter()
            .flatten()
            .collect(),
        filters,
        clusters: CLUSTERS,
        log: "%RESPONSE_CODE_DETAILS% %DYNAMIC_METADATA(envoy.filters.http.jwt_authn)% \
              %DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims:sub)%",
        metrics: &["http.http.jwt_authn"],
        texts: true,
        on_purpose: ON_PURPOSE,
        servers: vec![("keys", || {
            Box::pin(web::serve(false, |request| {
                let path =
                    request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
                Box::pin(async move { (keys_at(&path), HeaderMap::new()) })
            }))
        })],
        ..Part::default()
    })
    .await
}

fn keys_at(path: &str) -> Response<Bytes> {
    let text = match path {
        "/all" | "/all?x" => key_set(),
        _ => "no keys".to_owned(),
    };
    let mut response = Response::new(Bytes::from(text));
    if path == "/500" {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response
}

fn algorithms() -> Vec<Case> {
    let mut case = Case::new("jwt algorithms", VHOST);
    for (algorithm, id) in [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("ES512", "p521"),
        ("EdDSA", "ed"),
        ("HS256", "oct"),
        ("HS384", "oct"),
        ("HS512", "oct"),
    ] {
        let header = json!({"alg": algorithm, "kid": id});
        case = case.ask(with("/joe", &token_with(&header, &json!({"iss": "joe"}))), "200 - r a");
    }
    let of = |header: Value| token_with(&header, &json!({"iss": "joe"}));
    let mut forged = of(json!({"alg": "ES256", "kid": "p256"}));
    forged.replace_range(forged.len() - 8..forged.len() - 2, "AAAAAA");
    let as_secret = {
        let signed = format!(
            "{}.{}",
            base64(json!({"alg": "HS256", "kid": "rsa"}).to_string()),
            base64(json!({"iss": "joe"}).to_string())
        );
        let modulus = SIGNERS.rsa.public_key().modulus().big_endian_without_leading_zero().to_vec();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &modulus), signed.as_bytes());
        format!("{signed}.{}", base64(tag))
    };
    let case = case
        .ask(with("/joe", &of(json!({"alg": "RS256"}))), "200 - r a")
        .ask(with("/joe", &of(json!({"alg": "EdDSA", "kid": ""}))), "200 - r a")
        .ask(with("/joe", &of(json!({"alg": "RS256", "kid": "only-rs256"}))), "200 - r a")
        .ask(with("/joe", &of(json!({"alg": "RS384", "kid": "only-rs256"}))), "401 - r a")
        .ask(with("/joe", &of(json!({"alg": "ES256", "kid": "p384"}))), "401 - r a")
        .ask(with("/joe", &of(json!({"alg": "ES256", "kid": "unknown"}))), "401 - r a")
        .ask(with("/joe", &of(json!({"alg": "HS256", "kid": "ed"}))), "401 - r a")
        .ask(with("/joe", &as_secret), "401 - r a")
        .ask(with("/joe", &forged), "401 - r a");
    vec![case]
}

fn unreadable() -> Vec<Case> {
    let signed = |header: &str, claims: &str| {
        format!("{}.{}.{}", base64(header), base64(claims), base64([7; 64]))
    };
    let es = r#"{"alg":"ES256"}"#;
    let mut case = Case::new("jwt unreadable", VHOST);
    for text in [
        "nothing".to_owned(),
        "a.b".to_owned(),
        "a.b.c.d".to_owned(),
        "!.b.c".to_owned(),
        signed("nothing", "{}"),
        signed("{}", "{}"),
        signed(r#"{"alg":1}"#, "{}"),
        signed(r#"{"alg":"none"}"#, r#"{"iss":"joe"}"#),
        signed(r#"{"alg":"HS257"}"#, "{}"),
        signed(r#"{"alg":"ES256","kid":1}"#, "{}"),
        format!("{}.!.AAAA", base64(es)),
        signed(es, "nothing"),
        signed(es, r#"{"iss":1}"#),
        signed(es, r#"{"sub":1}"#),
        signed(es, r#"{"iat":"x"}"#),
        signed(es, r#"{"iat":-1}"#),
        signed(es, r#"{"nbf":"x"}"#),
        signed(es, r#"{"nbf":-1}"#),
        signed(es, r#"{"exp":"x"}"#),
        signed(es, r#"{"exp":-1}"#),
        signed(es, r#"{"jti":1}"#),
        signed(es, r#"{"aud":1}"#),
        signed(es, r#"{"aud":["a",1]}"#),
        format!("{}.{}.!", base64(es), base64("{}")),
        signed(r#"{"alg":"EdDSA","kid":"ed"}"#, r#"{"iss":"joe"}"#),
        format!("{}.{}.AAAA", base64(r#"{"alg":"EdDSA","kid":"ed"}"#), base64(r#"{"iss":"joe"}"#)),
    ] {
        case = case.ask(with("/joe", &text), "401 - r a");
    }
    let none = format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(r#"{"iss":"joe"}"#));
    let case = case
        .ask(with("/joe", &none), "401 - r a")
        .ask(get("/joe"), "401 - r a")
        .ask(get("/joe").header("authorization", "Basic abc"), "401 - r a")
        .ask(get("/joe").header("authorization", "Bearer "), "401 - r a")
        .ask(
            get("/joe").header("authorization", &format!("bearer {}", joe(json!({})))),
            "401 - r a",
        )
        .ask(grpc("hello"), "200 - r a");
    let strict = Case::new("jwt for grpc", "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2}}],
        typed_per_filter_config: {jwt: {'@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, requirement_name: of-joe}}}")
        .ask(grpc("hello"), "200 - r h2")
        .ask(grpc("hello").header("authorization", "Bearer a.b"), "200 - r h2")
        .ask(grpc("hello").header("authorization", &format!("Bearer {}", joe(json!({})))), "200 - r h2");
    vec![case, strict]
}

fn claims() -> Vec<Case> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    vec![
        Case::new("jwt claims", VHOST)
            .ask(with("/joe", &token(&json!({"iss": "jack"}))), "401 - r a")
            .ask(with("/joe", &token(&json!({}))), "401 - r a")
            .ask(with("/joe", &joe(json!({"exp": PAST}))), "401 - r a")
            .ask(with("/joe", &joe(json!({"exp": 0}))), "200 - r a")
            .ask(with("/joe", &joe(json!({"exp": now - 30}))), "200 - r a")
            .ask(with("/joe", &joe(json!({"exp": now - 90}))), "401 - r a")
            .ask(with("/joe", &joe(json!({"exp": FUTURE, "nbf": PAST, "iat": PAST}))), "200 - r a")
            .ask(with("/joe", &joe(json!({"nbf": FUTURE}))), "401 - r a")
            .ask(with("/joe", &joe(json!({"nbf": now + 30}))), "200 - r a")
            .ask(with("/joe", &joe(json!({"exp": 1.5e9}))), "401 - r a")
            .ask(with("/skewed", &joe(json!({"exp": PAST, "nbf": FUTURE}))), "200 - r a")
            .ask(with("/bounded", &joe(json!({}))), "401 - r a")
            .ask(with("/bounded", &joe(json!({"exp": FUTURE}))), "200 - r a")
            .ask(with("/brief", &joe(json!({}))), "401 - r a")
            .ask(with("/brief", &joe(json!({"exp": FUTURE}))), "401 - r a")
            .ask(with("/brief", &joe(json!({"exp": now + 1800}))), "200 - r a")
            .ask(with("/shop", &joe(json!({}))), "403 - r a")
            .ask(with("/shop", &joe(json!({"aud": "other"}))), "403 - r a")
            .ask(with("/shop", &joe(json!({"aud": "shop.example"}))), "200 - r a")
            .ask(with("/shop", &joe(json!({"aud": ["x", "http://orders/"]}))), "200 - r a")
            .ask(with("/audience", &joe(json!({"aud": "orders"}))), "403 - r a")
            .ask(with("/audience", &joe(json!({"aud": "special"}))), "200 - r a")
            .ask(with("/web", &joe(json!({"sub": "web-1"}))), "200 - r a")
            .ask(with("/web", &joe(json!({"sub": "app-1"}))), "401 - r a")
            .ask(with("/web", &joe(json!({}))), "401 - r a"),
    ]
}

fn requirements() -> Vec<Case> {
    let good = joe(json!({}));
    let jack = token(&json!({"iss": "jack"}));
    let preflight = |path: &str| {
        request(Method::OPTIONS, path)
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "PUT")
    };
    vec![
        Case::new("jwt requirements", VHOST)
            .ask(get("/free"), "200 - r a")
            .ask(get("/nothing-said"), "200 - r a")
            .ask(get("/exact"), "200 - r a")
            .ask(get("/exact").header("x-strict", "1"), "401 - r a")
            .ask(with("/exact?x", &good).header("x-strict", "1"), "200 - r a")
            .ask(with("/named", &good), "200 - r a")
            .ask(get("/named?with=query"), "401 - r a")
            .ask(with("/any", &good), "200 - r a")
            .ask(get("/any").header("x-jack", &jack), "200 - r a")
            .ask(get("/any"), "401 - r a")
            .ask(with("/any", "bad"), "401 - r a")
            .ask(with("/any", &jack), "401 - r a")
            .ask(with("/any", "bad").header("x-jack", &jack), "200 - r a")
            .ask(with("/all", &good), "401 - r a")
            .ask(with("/all", &good).header("x-jack", &jack), "200 - r a")
            .ask(get("/missing"), "200 - r a")
            .ask(with("/missing", &good), "200 - r a")
            .ask(with("/missing", "bad"), "401 - r a")
            .ask(with("/missing", &joe(json!({"exp": PAST}))), "401 - r a")
            .ask(get("/failed"), "200 - r a")
            .ask(with("/failed", "bad"), "200 - r a")
            .ask(with("/failed", &good), "200 - r a")
            .ask(get("/alone"), "200 - r a")
            .ask(with("/alone", "bad"), "401 - r a")
            .ask(preflight("/joe"), "200 - r a")
            .ask(
                request(Method::OPTIONS, "/joe").header("origin", "https://shop.example"),
                "401 - r a",
            ),
    ]
}

fn places() -> Vec<Case> {
    let good = joe(
        json!({"sub": "me", "num": 7, "r": 1.5, "sure": true, "deep": {"er": "here"}, "list": ["a", 1]}),
    );
    vec![
        Case::new("jwt places", VHOST)
            .ask(get("/places").header("x-a", &format!("tok {good}")), "200 - r a")
            .ask(get("/places").header("x-a", &format!("well, tok   {good}")), "200 - r a")
            .ask(get("/places").header("x-a", &good), "401 - r a")
            .ask(get("/places").header("x-b", &good), "200 - r a")
            .ask(get(&format!("/places?t={good}")), "200 - r a")
            .ask(get(&format!("/places?a=1&t={good}&b=2")), "200 - r a")
            .ask(get("/places").header("cookie", &format!("x=1; c={good}; d=2")), "200 - r a")
            .ask(get("/places").header("cookie", "cc=1"), "401 - r a")
            .ask(with("/places", &good), "401 - r a")
            .ask(get("/places").header("x-b", &good).header("cookie", "c=bad"), "401 - r a")
            .ask(get("/places?t=bad").header("x-b", &good), "401 - r a")
            .ask(get(&format!("/joe?access_token={good}")), "200 - r a")
            .ask(get("/whoever").header("cookie", &format!("session={good}")), "200 - r a")
            .ask(
                get("/whoever")
                    .header("cookie", &format!("session={}", token(&json!({"iss": "x"})))),
                "200 - r a",
            )
            .ask(
                with("/told", &good).header("x-sub", "root").header("x-payload", "forged"),
                "200 - r a",
            )
            .ask(with("/told", &joe(json!({"sub": ""}))).header("x-n", "8"), "200 - r a")
            .ask(with("/told-raw", &good), "200 - r a"),
    ]
}

fn remote() -> Vec<Case> {
    let good = joe(json!({}));
    vec![
        Case::new("jwt remote keys", VHOST)
            .ask(get("/remote"), "401 - r a")
            .ask(with("/remote", &good), "200 - r a")
            .ask(with("/remote", &good), "200 - r a")
            .ask(with("/ahead", &good), "200 - r a")
            .ask(with("/lost-or-joe", &good), "200 - r a")
            .ask(with("/lost", &good), "401 - r a")
            .ask(with("/lost", &token(&json!({"iss": "lost"}))), "401 - r a")
            .ask(with("/garbage", &good), "401 - r a")
            .ask(with("/broken", &good), "401 - r a"),
    ]
}

fn routes() -> Vec<Case> {
    let good = joe(json!({"sub": "me"}));
    vec![
        Case::new("jwt on routes", "{routes: [
                {name: without, match: {prefix: /joe/off}, route: {cluster: a}, typed_per_filter_config: {jwt: {
                    '@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, disabled: true}}},
                {name: jack, match: {prefix: /joe/jack}, route: {cluster: a}, typed_per_filter_config: {jwt: {
                    '@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, requirement_name: of-jack}}},
                {name: wrong, match: {prefix: /joe/wrong}, route: {cluster: a}, typed_per_filter_config: {jwt: {
                    '@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, requirement_name: of-nobody}}},
                {name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/joe/off"), "200 - without a")
            .ask(with("/joe/jack", &good), "401 - jack a")
            .ask(get("/joe/jack").header("x-jack", &token(&json!({"iss": "jack"}))), "200 - jack a")
            .ask(get("/joe/wrong"), "403 - wrong a")
            .ask(get("/joe"), "401 - r a"),
        Case::new("jwt and the route again", "{routes: [
                {name: mine, match: {prefix: /, headers: [{name: x-sub, string_match: {exact: me}}]}, route: {cluster: b}},
                {name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(with("/routed", &good), "200 - mine b")
            .ask(with("/told", &good), "200 - r a"),
    ]
}
