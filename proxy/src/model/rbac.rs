//! Role-based access control (`envoy.config.rbac.v3`).

use ipnet::IpNet;

use super::Name;
use super::matcher::{HeaderMatcher, StringMatcher};

/// `RBAC`: who may do what.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    /// What a policy that matches means.
    pub action: Action,
    /// In the order of their names.
    pub policies: Vec<Policy>,
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
}
