//! Role-based access control (`envoy.config.rbac.v3`).

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::Name;
use super::dynamic::{MetadataMatcher, StateMatcher};
use super::matcher::{HeaderKey, HeaderMatcher, StringMatcher};

/// `RBAC`: who may do what.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    /// What a policy that matches means.
    pub action: Action,
    /// In the order of their names.
    pub policies: Vec<Policy>,
    /// Decides alone where it is there (`matcher`, `shadow_matcher`).
    pub matcher: Option<Arc<Matcher>>,
}

/// `xds.type.matcher.v3.Matcher` whose outcomes are `rbac.v3.Action`.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// What is looked at.
    pub branches: Branches,
    /// What follows if no branch matches. None: the matcher does not match.
    pub otherwise: Option<Outcome>,
}

/// The branches of a matcher.
#[derive(Clone, Debug)]
pub enum Branches {
    /// There are none.
    None,
    /// The first whose predicate holds.
    List(Vec<(Predicate, Outcome)>),
    /// The one of this very text.
    Exact(Input, BTreeMap<String, Outcome>),
    /// The one of the longest prefix; sorted so.
    Prefix(Input, Vec<(String, Outcome)>),
    /// The one of the longest range of addresses; sorted so.
    Ranges(Input, Vec<Range>),
}

/// A branch of `IPMatcher`.
#[derive(Clone, Debug)]
pub struct Range {
    /// Which addresses.
    pub net: IpNet,
    /// Wider ranges are not looked at, even if this comes to nothing.
    pub exclusive: bool,
    /// What follows.
    pub outcome: Outcome,
}

/// What follows a match.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// An action, or a matcher that goes on.
    pub kind: OutcomeKind,
    /// Go on as if it had not matched.
    pub keep_matching: bool,
}

/// See [`Outcome`].
#[derive(Clone, Debug)]
pub enum OutcomeKind {
    /// `rbac.v3.Action`: its name, and what is done. Of a `filter_chain_matcher`: the name of a chain.
    Act(Name, Action),
    /// This one decides.
    Deeper(Arc<Matcher>),
}

/// A condition of a branch.
#[derive(Clone, Debug)]
pub enum Predicate {
    /// The input is there, and the text matches.
    Text(Input, StringMatcher),
    /// All of these.
    And(Vec<Self>),
    /// One of these.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
}

/// What a matcher looks at.
#[derive(Clone, Debug)]
pub enum Input {
    /// A header; several lines joined by `,`.
    Header(HeaderKey),
    /// A query parameter.
    Query(String),
    /// Address that the peer connected to.
    DestinationIp,
    /// Port that the peer connected to.
    DestinationPort,
    /// Address of the client, as far as `x-forwarded-for` is trusted.
    SourceIp,
    /// Address of the peer of the connection.
    DirectSourceIp,
    /// Name of the TLS hello.
    ServerName,
    /// URI names of the peer's certificate, joined by `,`.
    UriSan,
    /// DNS names of the peer's certificate, joined by `,`.
    DnsSan,
    /// Subject of the peer's certificate.
    Subject,
    /// `tls` or `raw_buffer`.
    Transport,
    /// `'h2','http/1.1'`: what the client offers, or what its first bytes are.
    Protocols,
}

/// `RBAC.Action`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Only what a policy matches is allowed.
    #[default]
    Allow,
    /// What a policy matches is refused.
    Deny,
    /// Nothing is refused.
    Log,
}

/// One policy: it matches if one of its permissions and one of its principals do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name, for logs.
    pub name: Name,
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// `Permission`
#[derive(Clone, Debug)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these.
    And(Vec<Self>),
    /// One of these.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// A request header.
    Header(HeaderMatcher),
    /// Path without query.
    Path(StringMatcher),
    /// Address that the peer connected to.
    DestinationIp(IpNet),
    /// Port that the peer connected to, in `start..end`.
    DestinationPort(u32, u32),
    /// Name that the peer asked for in its TLS hello.
    ServerName(StringMatcher),
    /// What filters noted.
    Metadata(MetadataMatcher),
}

/// `Principal`
#[derive(Clone, Debug)]
pub enum Principal {
    /// Anyone.
    Any,
    /// All of these.
    And(Vec<Self>),
    /// One of these.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// Who showed a certificate; with a matcher: of this URI name, else DNS name, else subject.
    Authenticated(Option<StringMatcher>),
    /// Address of the client, taken from `x-forwarded-for` as far as that is trusted.
    RemoteIp(IpNet),
    /// Address of the peer of the connection.
    DirectRemoteIp(IpNet),
    /// A request header.
    Header(HeaderMatcher),
    /// Path without query.
    Path(StringMatcher),
    /// What filters noted.
    Metadata(MetadataMatcher),
    /// An object of the filter state.
    State(StateMatcher),
}
