//! Statuses of answers: `upstream_rq_<code>`, `upstream_rq_<class>` and `upstream_rq_completed`. One
//! atomic add an answer; classes and sums are computed when somebody reads them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::stats::{Item, Reading};

/// Statuses of some answers.
#[derive(Debug, Default)]
pub(super) struct Codes {
    /// 1xx to 5xx; made when the first of a class is seen.
    classes: [OnceLock<Box<Class>>; 5],
    /// What is no status at all.
    others: AtomicU64,
}

#[derive(Debug)]
struct Class([AtomicU64; 100]);

impl Codes {
    pub(super) fn charge(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(1).and_then(|at| self.classes.get(at));
        let counter = match class {
            Some(class) => {
                let class =
                    class.get_or_init(|| Box::new(Class([const { AtomicU64::new(0) }; 100])));
                class.0.get(usize::from(status % 100)).unwrap_or(&self.others)
            }
            None => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows these together; each name begins with `start`. `upstream_rq_completed` is always there.
    pub(super) fn each(all: &[&Self], start: &str, see: &mut dyn FnMut(Item<'_>, Reading)) {
        let mut completed: u64 = all.iter().map(|one| one.others.load(Ordering::Relaxed)).sum();
        for hundreds in 1..=5 {
            let mut in_class = 0;
            for rest in 0..100 {
                let count: u64 = all.iter().map(|one| one.count(hundreds, rest)).sum();
                if count == 0 {
                    continue;
                }
                in_class += count;
                let code = (hundreds * 100 + rest).to_string();
                let flat = format!("{start}upstream_rq_{code}");
                let family = format!("{start}upstream_rq");
                let label = Some(("envoy_response_code", code.as_str()));
                see(Item { flat: &flat, family: &family, label }, Reading::Counter(count));
            }
            if in_class > 0 {
                let class = hundreds.to_string();
                let flat = format!("{start}upstream_rq_{class}xx");
                let family = format!("{start}upstream_rq_xx");
                let label = Some(("envoy_response_code_class", class.as_str()));
                see(Item { flat: &flat, family: &family, label }, Reading::Counter(in_class));
            }
            completed += in_class;
        }
        let name = format!("{start}upstream_rq_completed");
        see(Item::plain(&name), Reading::Counter(completed));
    }

    /// Shows these, if there was an answer.
    pub(super) fn each_used(&self, start: &str, see: &mut dyn FnMut(Item<'_>, Reading)) {
        let made = self.classes.iter().any(|class| class.get().is_some());
        if made || self.others.load(Ordering::Relaxed) > 0 {
            Self::each(&[self], start, see);
        }
    }

    pub(super) fn reset(&self) {
        let made = self.classes.iter().filter_map(OnceLock::get);
        made.flat_map(|class| &class.0).for_each(|count| count.store(0, Ordering::Relaxed));
        self.others.store(0, Ordering::Relaxed);
    }

    fn count(&self, hundreds: usize, rest: usize) -> u64 {
        let class = self.classes.get(hundreds - 1).and_then(OnceLock::get);
        let counter = class.and_then(|class| class.0.get(rest));
        counter.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}
