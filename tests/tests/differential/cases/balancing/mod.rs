//! Which endpoint a request goes to. Wherever that does not depend on chance, it is the same one.

mod affinity;
mod hashing;
mod places;
mod subsets;
mod twice;

use std::net::SocketAddr;
use std::sync::{LazyLock, mpsc};

use pillion_tests::backend::{Backend, Ledger, Speaks};
use pillion_tests::proxy::socket_address;

/// Eight servers, `e0` to `e7`, the same for both proxies: what is hashed by its address has to be at
/// the same address.
static SERVERS: LazyLock<Vec<SocketAddr>> = LazyLock::new(|| {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut kept = Vec::new();
            for index in 0..8 {
                let name = format!("e{index}");
                let backend = Backend::with(&name, Speaks::Http1, None, Ledger::default()).await;
                kept.push(backend.expect("a port"));
            }
            let addresses = kept.iter().map(|backend| backend.address).collect();
            tell.send(addresses).expect("somebody waits");
            // As long as the process.
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("servers that start")
});

/// The servers count requests of both sides together, so that nobody can compare that.
const MANAGER: &str = "route_config: {response_headers_to_remove: [x-attempt]}";

fn address(index: usize) -> SocketAddr {
    SERVERS[index]
}

/// `@e0@` and so on become addresses. Tables live as long as the tests.
fn with_servers(text: &str) -> &'static str {
    let mut text = text.to_owned();
    for (index, address) in SERVERS.iter().enumerate() {
        text = text.replace(&format!("@e{index}@"), &socket_address(*address).to_string());
    }
    text.leak()
}

/// A cluster of all servers. `each` is put into each endpoint, with `#` for its number: what stands
/// before a `|` inside, what stands after it beside. Of a kind that may be hashed by host names.
fn all(name: &str, each: &str, more: &str) -> String {
    let endpoints: Vec<String> = (0..8)
        .map(|index| {
            let each = each.replace('#', &index.to_string());
            let (inside, beside) = each.split_once('|').unwrap_or(("", &each));
            let gap = |text: &str| if text.is_empty() { "" } else { ", " }.to_owned() + text;
            format!("{{endpoint: {{address: @e{index}@{}}}{}}}", gap(inside), gap(beside))
        })
        .collect();
    format!(
        "- {{name: {name}, type: STRICT_DNS, load_assignment: {{cluster_name: {name}, endpoints: \
         [{{lb_endpoints: [{}]}}]}}, {more}}}\n",
        endpoints.join(", ")
    )
}
