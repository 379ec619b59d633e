//! What single steps of a request cost: `cargo bench -p pillion-benches`, about two minutes. A part of a name, such as
//! `route/` or `pick/maglev`, runs only those.

mod balancing;
mod compiled;
mod headers;
mod metrics;
mod rbac;
mod routes;
mod snapshot;

use std::time::Duration;

use criterion::Criterion;

/// As in the proxy.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    routes::benches(&mut criterion)?;
    balancing::benches(&mut criterion)?;
    headers::benches(&mut criterion)?;
    rbac::benches(&mut criterion)?;
    snapshot::benches(&mut criterion)?;
    metrics::benches(&mut criterion);
    criterion.final_summary();
    Ok(())
}
