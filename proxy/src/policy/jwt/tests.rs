use std::cell::RefCell;
use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde_json::{Value, json};

use super::*;
use crate::model::jwt::{KeySource, Places, Tell};

/// RFC 7515 appendix A.2.1
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
/// RFC 7520 section 3.3
const BILBO_N: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";
/// RFC 7515 appendix A.1
const OCT_K: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
/// The claims of RFC 7515 appendix A: of `joe`, until 1300819380.
const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const RS256: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const ES256: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn keys(keys: &[Value]) -> Jwks {
    parse_keys(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn rsa(n: &str) -> Value {
    json!({"kty": "RSA", "n": n, "e": "AQAB"})
}

fn p256() -> Value {
    json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
}

fn ed25519() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

/// A token with these claims, signed with the secret of RFC 7515 appendix A.1.
fn token_with(header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let secret = URL_SAFE_NO_PAD.decode(OCT_K).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
    format!("{signed}.{}", base64(tag))
}

fn token(claims: &Value) -> String {
    token_with(&json!({"alg": "HS256"}), claims)
}

/// Is the JWS of these parts signed by a key of the set? The published examples do not all carry
/// claims, so that only signature and keys are looked at.
fn is_signed(header: &str, payload: &str, sig: &str, jwks: &Jwks) -> Result<(), Fault> {
    let with_claims = format!("{header}.{CLAIMS}.{sig}");
    let mut token = Token::parse(&with_claims)?;
    let text = format!("{header}.{payload}.{sig}");
    token.signed = header.len() + 1 + payload.len();
    signature::verify(&token, &text, jwks)
}

#[test]
fn rfc_7515_appendix_a() {
    let header = base64("{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}");
    let hs256 = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let oct = json!({"kty": "oct", "k": OCT_K});
    assert_eq!(is_signed(&header, CLAIMS, hs256, &keys(&[oct])), Ok(()));
    let header = base64(r#"{"alg":"RS256"}"#);
    assert_eq!(is_signed(&header, CLAIMS, RS256, &keys(&[rsa(RSA_N)])), Ok(()));
    let header = base64(r#"{"alg":"ES256"}"#);
    assert_eq!(is_signed(&header, CLAIMS, ES256, &keys(&[p256()])), Ok(()));
    let p521 = json!({"kty": "EC", "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"});
    let es512 = "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    let header = base64(r#"{"alg":"ES512"}"#);
    assert_eq!(is_signed(&header, "UGF5bG9hZA", es512, &keys(&[p521])), Ok(()));
}

#[test]
fn rfc_8037_appendix_a_4() {
    let header = base64(r#"{"alg":"EdDSA"}"#);
    let payload = "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let good =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let set = keys(&[ed25519()]);
    assert_eq!(is_signed(&header, payload, good, &set), Ok(()));
    assert_eq!(is_signed(&header, payload, ES256, &set), Err(Fault::Verification));
    assert_eq!(is_signed(&header, payload, "AAAA", &set), Err(Fault::SignatureLength));
}

#[test]
fn rfc_7520_section_4_2() {
    let header = "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9";
    let payload = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
    let ps384 = "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw";
    let mut bilbo = rsa(BILBO_N);
    assert_eq!(is_signed(header, payload, ps384, &keys(&[bilbo.clone()])), Ok(()));
    bilbo["kid"] = json!("frodo");
    assert_eq!(
        is_signed(header, payload, ps384, &keys(&[bilbo.clone()])),
        Err(Fault::NoKeyMatches)
    );
    bilbo["kid"] = json!("bilbo.baggins@hobbiton.example");
    assert_eq!(is_signed(header, payload, ps384, &keys(&[rsa(RSA_N), bilbo])), Ok(()));
}

#[test]
fn a_public_key_is_no_secret() {
    // Signed with the bytes of the RSA modulus as the secret of HS256.
    let signed = format!("{}.{CLAIMS}", base64(r#"{"alg":"HS256"}"#));
    let secret = URL_SAFE_NO_PAD.decode(RSA_N).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
    let header = base64(r#"{"alg":"HS256"}"#);
    let verdict = is_signed(&header, CLAIMS, &base64(tag), &keys(&[rsa(RSA_N)]));
    assert_eq!(verdict, Err(Fault::Verification));
    // And a secret verifies nothing but HS*.
    let oct = keys(&[json!({"kty": "oct", "k": OCT_K})]);
    let text = token_with(&json!({"alg": "RS256"}), &json!({}));
    let parsed = Token::parse(&text).unwrap();
    assert_eq!(signature::verify(&parsed, &text, &oct), Err(Fault::Verification));
}

#[test]
fn an_ecdsa_signature_of_zeros_is_none() {
    let header = base64(r#"{"alg":"ES256"}"#);
    let zeros = base64([0_u8; 64]);
    let verdict = is_signed(&header, CLAIMS, &zeros, &keys(&[p256()]));
    assert_eq!(verdict, Err(Fault::Verification));
}

#[test]
fn tokens_that_cannot_be_read() {
    let with = |header: &str, claims: &str| {
        Token::parse(&format!("{}.{}.AAAA", base64(header), base64(claims))).map(drop)
    };
    let hs = r#"{"alg":"HS256"}"#;
    assert_eq!(Token::parse("").map(drop), Err(Fault::BadFormat));
    assert_eq!(Token::parse("a.b").map(drop), Err(Fault::BadFormat));
    assert_eq!(Token::parse("a.b.c.d").map(drop), Err(Fault::BadFormat));
    assert_eq!(Token::parse("a..c").map(drop), Err(Fault::BadFormat));
    assert_eq!(Token::parse(&format!("{}..", base64(hs))).map(drop), Err(Fault::BadFormat));
    assert_eq!(Token::parse("%.b.c").map(drop), Err(Fault::HeaderBase64));
    assert_eq!(with("[1]", "{}"), Err(Fault::HeaderJson));
    assert_eq!(with("{}", "{}"), Err(Fault::HeaderAlg));
    assert_eq!(with(r#"{"alg":1}"#, "{}"), Err(Fault::HeaderAlg));
    for alg in ["none", "None", "NONE", "", "hs256", "RS1", "A128KW"] {
        assert_eq!(with(&json!({ "alg": alg }).to_string(), "{}"), Err(Fault::UnknownAlg), "{alg}");
    }
    assert_eq!(with(r#"{"alg":"HS256","kid":7}"#, "{}"), Err(Fault::HeaderKid));
    assert_eq!(
        with(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, "{}"),
        Err(Fault::Verification)
    );
    assert_eq!(with(hs, "nothing"), Err(Fault::PayloadJson));
    for (claims, fault) in [
        (r#"{"iss":1}"#, Fault::Issuer),
        (r#"{"sub":[]}"#, Fault::Subject),
        (r#"{"exp":"soon"}"#, Fault::NotInteger("exp")),
        (r#"{"nbf":-1}"#, Fault::OutOfRange("nbf")),
        (r#"{"iat":1e30}"#, Fault::OutOfRange("iat")),
        (r#"{"jti":1}"#, Fault::TokenId),
        (r#"{"aud":{"a":1}}"#, Fault::Audience),
        (r#"{"aud":["a",1]}"#, Fault::Audience),
    ] {
        assert_eq!(with(hs, claims), Err(fault), "{claims}");
    }
    let text = format!("{}.{}.!", base64(hs), base64("{}"));
    assert_eq!(Token::parse(&text).map(drop), Err(Fault::SignatureBase64));
}

#[test]
fn key_sets() {
    let read = |text: &str| parse_keys(text.as_bytes()).map(|set| set.keys.len());
    assert_eq!(read("nothing"), Err(Fault::SetJson));
    assert_eq!(read("{}"), Err(Fault::SetWithoutKeys));
    assert_eq!(read(r#"{"keys":{}}"#), Err(Fault::SetKeys));
    assert_eq!(read(r#"{"keys":[]}"#), Err(Fault::NoValidKeys));
    let weak = json!({"kty": "RSA", "n": base64([0xff; 128]), "e": "AQAB"});
    let odd = json!({"kty": "RSA", "n": RSA_N, "e": "AAABBB"});
    let other =
        json!({"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let crossed = json!({"kty": "EC", "crv": "P-256", "alg": "ES384", "x": "AQ", "y": "AQ"});
    let sealing = json!({"kty": "RSA", "use": "enc", "n": RSA_N, "e": "AQAB"});
    let bad = json!({"keys": [weak, odd, other, crossed, sealing, 7, {"kty": "oct", "k": ""}]});
    assert_eq!(read(&bad.to_string()), Err(Fault::NoValidKeys));
    // One odd key is no reason to use none of the others.
    let mixed = json!({"keys": [{"kty": "LFSR"}, p256(), ed25519(), rsa(RSA_N)]});
    assert_eq!(read(&mixed.to_string()), Ok(3));
    let secret = format!("{:?}", keys(&[json!({"kty": "oct", "k": OCT_K})]));
    assert!(secret.contains("oct") && secret.len() < 100, "{secret}");
}

/// Providers' keys, and what was remembered.
#[derive(Default)]
struct Table {
    keys: BTreeMap<&'static str, Result<Arc<Jwks>, Fault>>,
    remembered: RefCell<Vec<String>>,
}

impl World for Table {
    fn keys(&self, provider: &Provider) -> Keys {
        match self.keys.get(&*provider.name) {
            None => Keys::Absent,
            Some(Ok(keys)) => Keys::Known(Arc::clone(keys)),
            Some(Err(fault)) => Keys::Failed(*fault),
        }
    }

    fn remembered(&self, provider: &Provider, token: &str) -> Option<Arc<Jwks>> {
        let known = self.remembered.borrow().iter().any(|one| one == token);
        known.then(|| self.keys.get(&*provider.name)?.clone().ok())?
    }

    fn remember(&self, _: &Provider, token: &str, _: &Arc<Jwks>) {
        self.remembered.borrow_mut().push(token.to_owned());
    }
}

fn provider(name: &str, change: impl FnOnce(&mut Provider)) -> Arc<Provider> {
    let mut made = Provider {
        name: name.into(),
        issuer: name.into(),
        audiences: Audiences::default(),
        subjects: None,
        lifetime: Lifetime::Any,
        places: Places::usual(),
        forward: false,
        tell: Tell::default(),
        clock_skew: Duration::from_secs(60),
        cache: None,
        keys: KeySource::Inline(Arc::default()),
        clear_route: false,
    };
    change(&mut made);
    Arc::new(made)
}

fn known(names: &[&'static str]) -> Table {
    let set = Arc::new(keys(&[json!({"kty": "oct", "k": OCT_K})]));
    let keys = names.iter().map(|name| (*name, Ok(Arc::clone(&set)))).collect();
    Table { keys, remembered: RefCell::default() }
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    headers
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What `evaluate` says at second 1000: `Ok` is the number of tokens that were accepted.
fn ask(
    required: &Requirement,
    headers: &HeaderMap,
    path: &str,
    table: &Table,
) -> Result<usize, String> {
    match evaluate(required, (headers, path), table, at(1000)) {
        Verdict::Allowed(accepted) => Ok(accepted.len()),
        Verdict::Denied(fault) => Err(fault.text().to_owned()),
        Verdict::Needs(provider) => Err(format!("needs {}", provider.name)),
    }
}

fn needs(provider: &Arc<Provider>) -> Requirement {
    Requirement::Provider(Arc::clone(provider), None)
}

#[test]
fn a_token_of_the_right_issuer_in_its_time() {
    let table = known(&["joe"]);
    let joe = needs(&provider("joe", |_| ()));
    let with = |claims: Value| ask(&joe, &bearer(&token(&claims)), "/", &table);
    assert_eq!(with(json!({"iss": "joe"})), Ok(1));
    assert_eq!(with(json!({"iss": "jack"})), Err("Jwt issuer is not configured".into()));
    assert_eq!(with(json!({"iss": "joe", "exp": 941})), Ok(1));
    assert_eq!(with(json!({"iss": "joe", "exp": 939})), Err("Jwt is expired".into()));
    assert_eq!(with(json!({"iss": "joe", "nbf": 1060})), Ok(1));
    assert_eq!(with(json!({"iss": "joe", "nbf": 1061})), Err("Jwt not yet valid".into()));
    assert_eq!(ask(&joe, &HeaderMap::new(), "/", &table), Err("Jwt is missing".into()));
    let path = format!("/?access_token={}", token(&json!({"iss": "joe"})));
    assert_eq!(ask(&joe, &HeaderMap::new(), &path, &table), Ok(1));
}

#[test]
fn how_long_a_token_may_live() {
    let table = known(&["joe"]);
    let with = |lifetime, claims: Value| {
        let joe = needs(&provider("joe", |joe| joe.lifetime = lifetime));
        ask(&joe, &bearer(&token(&claims)), "/", &table).is_ok()
    };
    let below = Lifetime::Below(Duration::from_secs(100));
    assert!(!with(Lifetime::Bounded, json!({"iss": "joe"})));
    assert!(with(Lifetime::Bounded, json!({"iss": "joe", "exp": 1_u64 << 40})));
    assert!(!with(below, json!({"iss": "joe"})));
    assert!(!with(below, json!({"iss": "joe", "exp": 1100})));
    assert!(with(below, json!({"iss": "joe", "exp": 1099})));
}

#[test]
fn audiences_and_subjects() {
    let table = known(&["joe"]);
    let joe = provider("joe", |joe| {
        joe.audiences = Audiences::new(&["https://shop.example/".to_owned()]);
        joe.subjects = Some(crate::model::matcher::StringMatcher::exact("web"));
    });
    let with = |required: &Requirement, claims: Value| {
        ask(required, &bearer(&token(&claims)), "/", &table)
    };
    let own = needs(&joe);
    assert_eq!(
        with(&own, json!({"iss": "joe", "aud": "http://shop.example", "sub": "web"})),
        Ok(1)
    );
    assert_eq!(
        with(&own, json!({"iss": "joe", "aud": ["x", "shop.example"], "sub": "web"})),
        Ok(1)
    );
    let no_audience = Err("Audiences in Jwt are not allowed".into());
    assert_eq!(with(&own, json!({"iss": "joe", "sub": "web"})), no_audience);
    let no_subject = Err("Jwt verification fails".into());
    assert_eq!(with(&own, json!({"iss": "joe", "aud": "shop.example"})), no_subject);
    let other = Requirement::Provider(joe, Some(Audiences::new(&["other".to_owned()])));
    assert_eq!(with(&other, json!({"iss": "joe", "aud": "other", "sub": "web"})), Ok(1));
}

#[test]
fn every_token_that_the_upstream_could_use_has_to_be_good() {
    let table = known(&["joe"]);
    let joe = needs(&provider("joe", |_| ()));
    let good = token(&json!({"iss": "joe"}));
    let path = |token: &str| format!("/?access_token={token}");
    assert_eq!(ask(&joe, &bearer(&good), &path(&good), &table), Ok(2));
    assert!(ask(&joe, &bearer(&good), &path("bad"), &table).is_err());
    assert!(ask(&joe, &bearer("bad"), &path(&good), &table).is_err());
    let twice = format!("/?access_token={good}&access_token=bad");
    assert!(ask(&joe, &HeaderMap::new(), &twice, &table).is_err());
}

#[test]
fn one_issuer_whose_keys_are_missing_does_not_touch_the_others() {
    let mut table = known(&["joe"]);
    let (joe, jack) = (provider("joe", |_| ()), provider("jack", |_| ()));
    let any = Requirement::Any(vec![needs(&jack), needs(&joe)]);
    let of = |issuer: &str| bearer(&token(&json!({"iss": issuer})));
    assert_eq!(ask(&any, &of("joe"), "/", &table), Ok(1));
    assert_eq!(ask(&any, &of("jack"), "/", &table), Err("needs jack".into()));
    table.keys.insert("jack", Err(Fault::Fetch));
    assert_eq!(ask(&any, &of("joe"), "/", &table), Ok(1));
    assert_eq!(ask(&any, &of("jack"), "/", &table), Err("Jwks remote fetch is failed".into()));
    assert_eq!(ask(&any, &of("john"), "/", &table), Err("Jwt issuer is not configured".into()));
    assert_eq!(ask(&any, &HeaderMap::new(), "/", &table), Err("Jwt is missing".into()));
}

#[test]
fn all_missing_and_failed() {
    let table = known(&["joe", "jack"]);
    let (joe, jack) = (
        provider("joe", |_| ()),
        provider("jack", |jack| {
            jack.places = Places { params: vec!["jack".into()], ..Places::default() };
        }),
    );
    let all = Requirement::All(vec![needs(&joe), needs(&jack)]);
    let of = |issuer: &str| token(&json!({"iss": issuer}));
    let path = format!("/?jack={}", of("jack"));
    assert_eq!(ask(&all, &bearer(&of("joe")), &path, &table), Ok(2));
    assert_eq!(ask(&all, &bearer(&of("joe")), "/", &table), Err("Jwt is missing".into()));
    let both = vec![Arc::clone(&joe), Arc::clone(&jack)];
    let missing = Requirement::Any(vec![needs(&joe), Requirement::AllowMissing(both.clone())]);
    assert_eq!(ask(&missing, &HeaderMap::new(), "/", &table), Ok(0));
    assert_eq!(ask(&missing, &bearer(&of("joe")), "/", &table), Ok(1));
    assert!(ask(&missing, &bearer("bad"), "/", &table).is_err());
    let failed = Requirement::AllowMissingOrFailed(both);
    assert_eq!(ask(&failed, &bearer("bad"), &path, &table), Ok(1));
    // A token of `jack` where only those of `joe` belong is nobody's.
    assert_eq!(ask(&failed, &bearer(&of("jack")), "/", &table), Ok(0));
}

#[test]
fn a_good_token_is_verified_once() {
    let table = known(&["joe"]);
    let joe = needs(&provider("joe", |_| ()));
    let good = token(&json!({"iss": "joe"}));
    assert_eq!(ask(&joe, &bearer(&good), "/", &table), Ok(1));
    assert_eq!(table.remembered.borrow().as_slice(), std::slice::from_ref(&good));
    // Remembered or not, its claims are looked at each time.
    let old = token(&json!({"iss": "joe", "exp": 1}));
    table.remembered.borrow_mut().push(old.clone());
    assert_eq!(ask(&joe, &bearer(&old), "/", &table), Err("Jwt is expired".into()));
    // With other keys it is as good as any other.
    let mut forged = token(&json!({"iss": "joe", "sub": "x"}));
    forged.truncate(forged.len() - 4);
    forged.push_str("AAAA");
    table.remembered.borrow_mut().push(forged.clone());
    assert_eq!(ask(&joe, &bearer(&forged), "/", &table), Ok(1), "as it was remembered");
}

#[test]
fn claims_in_headers() {
    let claims = json!({"iss": "joe", "n": 7, "r": 1.5, "yes": true, "list": ["a"], "none": null,
        "deep": {"er": "here"}, "a.b": "dotted"});
    let parsed = Token::parse(&token(&claims)).unwrap();
    let claim = |name| parsed.claim(name);
    assert_eq!(claim("iss").as_deref(), Some("joe"));
    assert_eq!(claim("n").as_deref(), Some("7"));
    assert_eq!(claim("r").as_deref(), Some("1.500000"));
    assert_eq!(claim("yes").as_deref(), Some("true"));
    assert_eq!(claim("deep.er").as_deref(), Some("here"));
    assert_eq!(claim("a.b").as_deref(), Some("dotted"));
    assert_eq!((claim("none"), claim("absent"), claim("iss.x")), (None, None, None));
    assert_eq!(parsed.payload(true).len() % 4, 0);
    assert!(!format!("{parsed:?}").contains("joe"));
}

#[test]
fn places_of_tokens() {
    let joe = provider("joe", |joe| {
        joe.places = Places {
            headers: vec![("x-token".parse().unwrap(), "tok ".to_owned())],
            params: vec!["t".to_owned()],
            cookies: vec!["c".to_owned()],
        };
    });
    let mut headers = bearer("not here");
    headers.append("x-token", HeaderValue::from_static("tok   a.b.c"));
    headers.append("x-token", HeaderValue::from_static("other"));
    headers.append("cookie", HeaderValue::from_static("x=1; c=d.e.f; cc=2"));
    let found = find(&[joe], &headers, "/p?a=1&t=g%2Eh.i&b=2");
    let texts: Vec<&str> = found.iter().map(|one| &*one.text).collect();
    assert_eq!(texts, ["a.b.c", "g.h.i", "d.e.f"]);
    let mut path = "/p?a=1&t=g%2Eh.i&b=2".to_owned();
    for one in &found {
        if let Some(changed) = remove(&one.place, &mut headers, &path) {
            path = changed;
        }
    }
    assert_eq!(path, "/p?a=1&b=2");
    assert!(!headers.contains_key("x-token") && headers.contains_key("cookie"));
    assert_eq!(remove(&Place::Param("t".into()), &mut headers, "/p?t=x").as_deref(), Some("/p"));
}
