//! Copies of requests (`request_mirror_policies`): sent when the original has been answered, so
//! that they cost it nothing; nobody waits for their answers.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request};

use super::admit::Plan;
use super::exchange::Exchange;
use super::source::Source;
use crate::cluster::{Cluster, PickContext, SendOptions};
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::route::{Mirror, Priority};

/// A copy that is never answered must not stay for ever.
const LIMIT: Duration = Duration::from_secs(15);

/// Send the copies that the route asks for. A body that was too large to be kept, or has not
/// been read to its end, is not mirrored.
pub(super) fn send(exchange: &Exchange, plan: &Plan<'_>, source: &Source<'_>) {
    for mirror in &plan.forward.mirrors {
        if fastrand::u64(..1_000_000) >= u64::from(mirror.parts_per_million) {
            continue;
        }
        let Some(request) = copy(mirror, source) else { continue };
        let name = match &mirror.header {
            Some(header) => request.headers().get(header).and_then(|name| name.to_str().ok()),
            None => Some(&*mirror.cluster),
        };
        let Some(cluster) = name.and_then(|name| exchange.live.cluster(name)) else { continue };
        let options = SendOptions {
            priority: Priority::Default,
            downstream_h2: exchange.connection.is_http2(),
            sni: None,
            behalf: exchange.connection.ends.behalf(),
            again: false,
        };
        let leaf = exchange.live.leaf(cluster, fastrand::u64(..));
        tokio::spawn(deliver(leaf, request, options));
    }
}

fn copy(mirror: &Mirror, source: &Source<'_>) -> Option<Request<RequestBody>> {
    let mut request = source.whole()?;
    if let Some(host) = &mirror.host {
        target::set_authority(&mut request, host);
        return Some(request);
    }
    if !mirror.shadow_host {
        return Some(request);
    }
    // Envoy: so that the shadow's logs can be told apart.
    let authority = target::authority(request.uri(), request.headers());
    let shadow = match authority.rsplit_once(':') {
        Some((host, port)) => format!("{host}-shadow:{port}"),
        None => format!("{authority}-shadow"),
    };
    if let Ok(shadow) = HeaderValue::from_str(&shadow) {
        target::set_authority(&mut request, &shadow);
    }
    Some(request)
}

async fn deliver(cluster: Arc<Cluster>, mut request: Request<RequestBody>, options: SendOptions) {
    let Ok(_permit) = cluster.admit(options.priority) else { return };
    let context = PickContext { random: fastrand::u64(..), ..PickContext::default() };
    let Ok(endpoint) = cluster.pick(&context) else { return };
    let answer = async {
        if let Ok(response) = cluster.send(&endpoint, &mut request, options).await {
            use http_body_util::BodyExt;
            // Read to its end, so that the connection can serve again.
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
    };
    let _ = tokio::time::timeout(LIMIT, answer).await;
}
