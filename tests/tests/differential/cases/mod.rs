//! The table.

mod failures;
mod filters;
mod headers;
mod protocols;
mod retries;
mod routing;
mod tls;

use super::case::Case;

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let parts = [
        routing::cases(),
        headers::cases(),
        failures::cases(),
        filters::cases(),
        retries::cases(),
        protocols::cases(),
        tls::cases(),
    ];
    parts.into_iter().flatten().collect()
}
