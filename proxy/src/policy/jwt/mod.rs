//! JSON Web Tokens: what a request has to show, and whether it does.
//!
//! Pure: the time and the keys are arguments. Where the keys of a provider are not at hand,
//! [`evaluate`] says whose it needs and is asked again when they are.

mod key_set;
mod places;
mod signature;
mod token;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

pub use key_set::parse as parse_keys;
pub use places::{Found, Place, find, remove};
pub use token::Token;

use crate::model::jwt::{Audiences, Jwks, Lifetime, Provider, Requirement};

/// Why a token, or a request without one, is refused. The text is Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`text` says it")]
pub enum Fault {
    Missing,
    NotYetValid,
    Expired,
    BadFormat,
    HeaderBase64,
    HeaderJson,
    HeaderAlg,
    UnknownAlg,
    HeaderKid,
    PayloadBase64,
    PayloadJson,
    Issuer,
    Subject,
    NotInteger(&'static str),
    OutOfRange(&'static str),
    TokenId,
    Audience,
    SignatureBase64,
    SignatureLength,
    UnknownIssuer,
    AudienceNotAllowed,
    Verification,
    SetJson,
    SetWithoutKeys,
    SetKeys,
    NoValidKeys,
    NoKeyMatches,
    Fetch,
}

impl Fault {
    /// What the client is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::BadFormat => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::HeaderAlg => "Jwt header [alg] field is required and must be a string",
            Self::UnknownAlg => "Jwt header [alg] is not supported",
            Self::HeaderKid => "Jwt header [kid] field is not a string",
            Self::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::Issuer => "Jwt payload [iss] field is not a string",
            Self::Subject => "Jwt payload [sub] field is not a string",
            Self::NotInteger("iat") => "Jwt payload [iat] field is not an integer",
            Self::NotInteger("nbf") => "Jwt payload [nbf] field is not an integer",
            Self::NotInteger(_) => "Jwt payload [exp] field is not an integer",
            Self::OutOfRange("iat") => "Jwt payload [iat] field is not a positive 64 bit integer",
            Self::OutOfRange("nbf") => "Jwt payload [nbf] field is not a positive 64 bit integer",
            Self::OutOfRange(_) => "Jwt payload [exp] field is not a positive 64 bit integer",
            Self::TokenId => "Jwt payload [jti] field is not a string",
            Self::Audience => "Jwt payload [aud] field is not a string or string list",
            Self::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::SignatureLength => "Jwt ED25519 signature is wrong length",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Self::Verification => "Jwt verification fails",
            Self::SetJson => "Jwks is an invalid JSON",
            Self::SetWithoutKeys => "Jwks does not have [keys] field",
            Self::SetKeys => "[keys] in Jwks is not an array",
            Self::NoValidKeys => "Jwks doesn't have any valid public key",
            Self::NoKeyMatches => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::Fetch => "Jwks remote fetch is failed",
        }
    }
}

/// The keys of a provider, as they are at this moment.
#[derive(Clone, Debug)]
pub enum Keys {
    /// These.
    Known(Arc<Jwks>),
    /// There are none, and why.
    Failed(Fault),
    /// They have to be fetched.
    Absent,
}

/// What [`evaluate`] asks the world.
pub trait World {
    /// The keys of this provider.
    fn keys(&self, provider: &Provider) -> Keys;
    /// The keys that this token was verified with before, if it was and that is remembered.
    fn remembered(&self, provider: &Provider, token: &str) -> Option<Arc<Jwks>>;
    /// This token is good.
    fn remember(&self, provider: &Provider, token: &str, keys: &Arc<Jwks>);
}

/// A token that is good, and what follows from it.
#[derive(Debug)]
pub struct Accepted {
    /// Whose it is.
    pub provider: Arc<Provider>,
    /// Where it was.
    pub place: Place,
    /// The token.
    pub token: Token,
}

/// What a request leads to.
#[derive(Debug)]
pub enum Verdict {
    /// It may pass; these tokens were looked at.
    Allowed(Vec<Accepted>),
    /// It may not.
    Denied(Fault),
    /// Ask again when the keys of this provider are known.
    Needs(Arc<Provider>),
}

/// Does the request (its `headers`, and the `path` with its query) show what is required?
/// `providers` are all of the filter.
pub fn evaluate(
    requirement: &Requirement,
    (headers, path): (&HeaderMap, &str),
    world: &dyn World,
    now: SystemTime,
) -> Verdict {
    let mut accepted = Vec::new();
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let asked = Asked { headers, path, world, now };
    match asked.check(requirement, &mut accepted) {
        Ok(()) => Verdict::Allowed(accepted),
        Err(Stop::Fault(fault)) => Verdict::Denied(fault),
        Err(Stop::Needs(provider)) => Verdict::Needs(provider),
    }
}

/// Every provider that a requirement may take a token of.
pub fn providers<'a>(requirement: &'a Requirement, found: &mut Vec<&'a Arc<Provider>>) {
    match requirement {
        Requirement::Nothing => {}
        Requirement::Provider(provider, _) => found.push(provider),
        Requirement::Any(all) | Requirement::All(all) => {
            all.iter().for_each(|one| providers(one, found));
        }
        Requirement::AllowMissing(all) | Requirement::AllowMissingOrFailed(all) => {
            found.extend(all);
        }
    }
}

enum Stop {
    Fault(Fault),
    Needs(Arc<Provider>),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

struct Asked<'a> {
    headers: &'a HeaderMap,
    path: &'a str,
    world: &'a dyn World,
    now: Duration,
}

impl Asked<'_> {
    fn check(&self, requirement: &Requirement, out: &mut Vec<Accepted>) -> Result<(), Stop> {
        match requirement {
            Requirement::Nothing => Ok(()),
            Requirement::Provider(provider, audiences) => {
                self.of_provider(provider, audiences.as_ref(), out)
            }
            Requirement::All(all) => all.iter().try_for_each(|one| self.check(one, out)),
            Requirement::Any(any) => self.any(any, out),
            Requirement::AllowMissing(providers) => self.of_any(providers, out),
            Requirement::AllowMissingOrFailed(providers) => self.if_good(providers, out),
        }
    }

    /// The refusal is the last one that says more than that there was no token of this issuer.
    fn any(&self, any: &[Requirement], out: &mut Vec<Accepted>) -> Result<(), Stop> {
        let mut why = Fault::Missing;
        for one in any {
            let before = out.len();
            match self.check(one, out) {
                Ok(()) => return Ok(()),
                Err(Stop::Fault(fault)) => {
                    out.truncate(before);
                    let says_little =
                        |fault| matches!(fault, Fault::Missing | Fault::UnknownIssuer);
                    if !says_little(fault) || says_little(why) && fault != Fault::Missing {
                        why = fault;
                    }
                }
                needs => return needs,
            }
        }
        if any.is_empty() { Ok(()) } else { Err(why.into()) }
    }

    /// All tokens that this provider's places hold have to be good: the upstream could use any of
    /// them.
    fn of_provider(
        &self,
        provider: &Arc<Provider>,
        audiences: Option<&Audiences>,
        out: &mut Vec<Accepted>,
    ) -> Result<(), Stop> {
        let found = find(std::slice::from_ref(provider), self.headers, self.path);
        if found.is_empty() {
            return Err(Fault::Missing.into());
        }
        // The last place first, as in Envoy, so that the same refusal is told.
        for one in found.into_iter().rev() {
            let before = self.world.remembered(provider, &one.text);
            let token = Token::parse(&one.text)?;
            out.push(self.verify(provider, audiences, (token, before), one)?);
        }
        Ok(())
    }

    /// Tokens of whichever of these providers, all of them good; or none.
    fn of_any(&self, all: &[Arc<Provider>], out: &mut Vec<Accepted>) -> Result<(), Stop> {
        for one in find(all, self.headers, self.path).into_iter().rev() {
            out.push(self.by_issuer(all, one)?);
        }
        Ok(())
    }

    /// What is good is used, what is not is nobody's concern.
    fn if_good(&self, all: &[Arc<Provider>], out: &mut Vec<Accepted>) -> Result<(), Stop> {
        for one in find(all, self.headers, self.path).into_iter().rev() {
            match self.by_issuer(all, one) {
                Ok(good) => out.push(good),
                Err(Stop::Fault(_)) => {}
                Err(needs) => return Err(needs),
            }
        }
        Ok(())
    }

    fn by_issuer(&self, all: &[Arc<Provider>], found: Found) -> Result<Accepted, Stop> {
        let token = Token::parse(&found.text)?;
        let here = |provider: &&Arc<Provider>| found.of.iter().any(|name| *name == provider.name);
        let mut named = all.iter().filter(here);
        let provider = named
            .clone()
            .find(|provider| *provider.issuer == *token.issuer)
            .or_else(|| named.find(|provider| provider.issuer.is_empty()))
            .ok_or(Fault::UnknownIssuer)?;
        self.verify(provider, None, (token, None), found)
    }

    fn verify(
        &self,
        provider: &Arc<Provider>,
        audiences: Option<&Audiences>,
        (token, before): (Token, Option<Arc<Jwks>>),
        found: Found,
    ) -> Result<Accepted, Stop> {
        if !provider.issuer.is_empty() && *provider.issuer != *token.issuer {
            return Err(Fault::UnknownIssuer.into());
        }
        self.in_time(provider, &token)?;
        if !audiences.unwrap_or(&provider.audiences).allow(&token.audiences) {
            return Err(Fault::AudienceNotAllowed.into());
        }
        if !provider.subjects.as_ref().is_none_or(|allowed| allowed.matches(&token.subject)) {
            return Err(Fault::Verification.into());
        }
        let keys = match self.world.keys(provider) {
            Keys::Known(keys) => keys,
            Keys::Failed(fault) => return Err(fault.into()),
            Keys::Absent => return Err(Stop::Needs(Arc::clone(provider))),
        };
        if !before.is_some_and(|before| Arc::ptr_eq(&before, &keys)) {
            signature::verify(&token, &found.text, &keys)?;
            self.world.remember(provider, &found.text, &keys);
        }
        Ok(Accepted { provider: Arc::clone(provider), place: found.place, token })
    }

    fn in_time(&self, provider: &Provider, token: &Token) -> Result<(), Fault> {
        let (now, skew) = (self.now.as_secs(), provider.clock_skew.as_secs());
        if now.saturating_add(skew) < token.not_before {
            return Err(Fault::NotYetValid);
        }
        let ends = (token.expires > 0).then_some(token.expires);
        if ends.is_some_and(|ends| now > ends.saturating_add(skew)) {
            return Err(Fault::Expired);
        }
        match (provider.lifetime, ends) {
            (Lifetime::Any, _) | (Lifetime::Bounded, Some(_)) => Ok(()),
            (Lifetime::Below(most), Some(ends))
                if Duration::from_secs(ends).saturating_sub(self.now) < most =>
            {
                Ok(())
            }
            _ => Err(Fault::Verification),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
