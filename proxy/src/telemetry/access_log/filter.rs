//! Which requests and connections an access log takes.

use crate::model::access_log::LogFilter;
use crate::model::duration::millis;
use crate::model::matcher::RequestView;
use crate::telemetry::format::{self, Record};
use crate::telemetry::trace::Span;

/// Whether a filter lets it through.
pub(super) fn passes(filter: &LogFilter, record: &Record<'_>) -> bool {
    match filter {
        LogFilter::Status(op, want) => op.holds(&u32::from(record.status.unwrap_or(0)), want),
        LogFilter::Duration(op, want) => {
            op.holds(&millis(record.duration.unwrap_or_default()), want)
        }
        LogFilter::NotHealthCheck => !record.health_check,
        LogFilter::Traceable => record.span.is_some_and(Span::is_sampled),
        LogFilter::Kind { kinds, exclude } => {
            kinds.iter().any(|kind| **kind == *record.kind.as_str()) != *exclude
        }
        LogFilter::Fraction(share) => fastrand::u32(..1_000_000) < *share,
        LogFilter::And(filters) => filters.iter().all(|filter| passes(filter, record)),
        LogFilter::Or(filters) => filters.iter().any(|filter| passes(filter, record)),
        LogFilter::Header(header) => record.request_headers.is_some_and(|headers| {
            header.matches(&RequestView {
                method: record.method.unwrap_or(""),
                path: record.path.unwrap_or(""),
                authority: Some(record.authority.unwrap_or("")),
                scheme: Some(record.scheme.unwrap_or("")),
                headers,
            })
        }),
        LogFilter::ResponseFlags(wanted) if wanted.is_empty() => !record.flags.is_empty(),
        LogFilter::ResponseFlags(wanted) => {
            wanted.iter().any(|flag| record.flags.contains(&&**flag))
        }
        LogFilter::GrpcStatus { codes, exclude } => {
            const UNKNOWN: u32 = 2;
            let code = format::any_grpc_status(record).unwrap_or(UNKNOWN);
            codes.contains(&code) != *exclude
        }
    }
}
