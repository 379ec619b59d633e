//! Filters whose settings come from elsewhere (ECDS). They live with the settings, not with the
//! listener: new settings are in force for the next request, on connections that are open too, and
//! a request that is under way goes on with those it began with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;

use super::{Filter, begin, built};
use crate::model::Name;
use crate::model::extension::{Discovered, Extension};
use crate::model::filter::HttpFilter;
use crate::serve::exchange::Exchange;
use crate::telemetry::reason::{Reason, Refusal};

/// By what differs between connection managers: their prefix, and whether the filter is off there.
type Lives = ArcSwap<Vec<((Name, bool), Arc<Filter>)>>;

/// The filter with the settings that hold now. None: it does nothing.
///
/// # Errors
/// There are no settings, and no default.
pub(super) fn find(
    exchange: &Exchange,
    filter: &Filter,
    discovered: &Discovered,
) -> Result<Option<Arc<Filter>>, Refusal> {
    let found = exchange.live.snapshot.extensions.get(discovered.reference.key());
    let extension = found.or(discovered.default.as_ref()).ok_or_else(|| {
        let name = discovered.reference.name();
        let detail = format!("the settings of filter `{name}` have not arrived");
        Refusal::downstream(Reason::NoFilterConfig, StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    Ok(living(exchange, filter, extension))
}

fn living(exchange: &Exchange, filter: &Filter, extension: &Extension) -> Option<Arc<Filter>> {
    let kind = extension.kind.as_ref()?;
    let http = &exchange.connection.http;
    let (prefix, disabled) = (&http.manager.stat_prefix, filter.config.disabled);
    let lives = extension.live.get(Lives::default);
    let known = |all: &[((Name, bool), Arc<Filter>)]| {
        let one = all.iter().find(|((of, off), _)| of == prefix && *off == disabled);
        one.map(|(_, live)| Arc::clone(live))
    };
    if let Some(live) = known(&lives.load()) {
        return Some(live);
    }
    let config =
        HttpFilter { name: Name::clone(&filter.config.name), disabled, kind: kind.clone() };
    let made = Arc::new(built(&config, &http.context.registry, prefix));
    // Somebody else may have been faster: then theirs it is.
    let mut first = false;
    lives.rcu(|all| {
        first = known(all).is_none();
        let mut all = Vec::clone(all);
        if first {
            all.push(((Name::clone(prefix), disabled), Arc::clone(&made)));
        }
        all
    });
    let live = known(&lives.load()).unwrap_or(made);
    if first {
        begin(std::slice::from_ref(&*live), &http.context.clusters);
    }
    Some(live)
}
