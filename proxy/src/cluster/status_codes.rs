//! Statuses of answers, counted in a scope of its own, such as that of a virtual cluster.

use std::sync::{Arc, OnceLock};

use crate::telemetry::stats::{Counter, Scope};

/// `upstream_rq_<code>` and `upstream_rq_<class>`.
#[derive(Debug)]
pub struct Codes {
    scope: Scope,
    /// 1xx to 5xx. A class is allocated when its first status is seen.
    classes: [OnceLock<Box<Class>>; 5],
}

#[derive(Debug)]
struct Class {
    all: Counter,
    codes: [OnceLock<Counter>; 100],
}

impl Codes {
    /// Counters in this scope; a code is made when it is first seen.
    pub fn new(scope: Scope) -> Self {
        Self { scope, classes: Default::default() }
    }

    /// Counts a status.
    pub fn charge(&self, status: u16) {
        let (hundreds, rest) = (status / 100, status % 100);
        let Some(slot) = usize::from(hundreds).checked_sub(1).and_then(|at| self.classes.get(at))
        else {
            return;
        };
        let class = slot.get_or_init(|| {
            let flat = format!("upstream_rq_{hundreds}xx");
            let label = ("envoy_response_code_class", Arc::from(hundreds.to_string()));
            let all = self.scope.labelled_counter(&flat, "upstream_rq_xx", label);
            Box::new(Class { all, codes: [const { OnceLock::new() }; 100] })
        });
        class.all.inc();
        if let Some(code) = class.codes.get(usize::from(rest)) {
            code.get_or_init(|| {
                let flat = format!("upstream_rq_{status}");
                let label = ("envoy_response_code", Arc::from(status.to_string()));
                self.scope.labelled_counter(&flat, "upstream_rq", label)
            })
            .inc();
        }
    }
}
