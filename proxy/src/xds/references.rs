//! What resources name that comes from elsewhere.

use super::kind::Kind;
use super::translate::Resource;
use crate::model::Name;
use crate::model::cluster::{Cluster, Discovery};
use crate::model::filter::FilterKind;
use crate::model::http::RouteSource;
use crate::model::listener::{Listener, Terminal};
use crate::model::source::Reference;
use crate::model::tls::{CommonTls, SecretRef};

/// Everything that a resource names.
pub(super) fn of(resource: &Resource) -> Vec<(Kind, &Reference)> {
    match resource {
        Resource::Cluster(cluster, _) => of_cluster(cluster),
        Resource::Listener(listener) => of_listener(listener),
        Resource::Routes(_)
        | Resource::Endpoints(..)
        | Resource::Secret(_)
        | Resource::Extension(_) => Vec::new(),
    }
}

/// Its endpoints and secrets.
pub(super) fn of_cluster(cluster: &Cluster) -> Vec<(Kind, &Reference)> {
    let endpoints = match &cluster.discovery {
        Discovery::Eds(reference) => Some((Kind::Endpoints, reference)),
        _ => None,
    };
    let secrets = cluster.tls_contexts().flat_map(|tls| secrets(&tls.common));
    endpoints.into_iter().chain(secrets).collect()
}

/// Its routes, secrets and settings of filters.
pub(super) fn of_listener(listener: &Listener) -> Vec<(Kind, &Reference)> {
    let mut all = Vec::new();
    for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
        if let Terminal::Http(manager) = &chain.terminal {
            if let RouteSource::Rds(reference) = &manager.routes {
                all.push((Kind::Routes, reference));
            }
            all.extend(manager.filters.iter().filter_map(|filter| match &filter.kind {
                FilterKind::Discovered(found) => Some((Kind::Extension, &found.reference)),
                _ => None,
            }));
        }
        all.extend(chain.tls.iter().flat_map(|tls| secrets(&tls.common)));
    }
    all
}

/// Its route tables, each with the `stat_prefix` of the connection manager that names it.
pub(super) fn routes_of(listener: &Listener) -> Vec<(&Name, &Reference)> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let managers = chains.filter_map(|chain| match &chain.terminal {
        Terminal::Http(manager) => Some(manager),
        Terminal::Tcp(_) => None,
    });
    let found = managers.filter_map(|manager| match &manager.routes {
        RouteSource::Rds(reference) => Some((&manager.stat_prefix, reference)),
        _ => None,
    });
    found.collect()
}

fn secrets(tls: &CommonTls) -> impl Iterator<Item = (Kind, &Reference)> {
    let own = tls.certificates.iter().filter_map(|certificate| match certificate {
        SecretRef::Sds(reference) => Some(reference),
        SecretRef::Inline(_) => None,
    });
    let trust = tls.validation.iter().filter_map(|validation| validation.sds.as_ref());
    own.chain(trust).map(|reference| (Kind::Secret, reference))
}
