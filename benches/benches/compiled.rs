//! Resources as the proxy reads them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use pillion_benches::config::{self, Kind};
use pillion_proxy::model::http::HttpManager;
use pillion_proxy::model::listener::Terminal;
use pillion_proxy::xds::kind;
use pillion_proxy::xds::translate::{self, Resource};
use serde_json::Value;

pub(crate) fn compiled(kind: Kind, value: &Value) -> anyhow::Result<Resource> {
    let resource = config::Resource::new(kind, value)?;
    let kind = kind::Kind::of(kind.type_url()).context("a kind that the proxy does not know")?;
    let (name, made) = translate::resource(kind, &resource.body);
    made.map_err(|refused| anyhow!("{name:?}: {refused:?}"))
}

/// The connection manager of a listener.
pub(crate) fn manager() -> anyhow::Result<Arc<HttpManager>> {
    let address = (Ipv4Addr::LOCALHOST, 80).into();
    let made = compiled(Kind::Listener, &config::listener(address))?;
    let Resource::Listener(listener) = made else { bail!("no listener: {made:?}") };
    match &listener.filter_chains.first().context("no filter chain")?.terminal {
        Terminal::Http(manager) => Ok(Arc::clone(manager)),
        Terminal::Tcp(_) => bail!("not HTTP"),
    }
}
