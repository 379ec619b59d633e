//! Slow start: the weight of a new endpoint grows to what is configured (Envoy's "Slow start
//! mode").

use std::time::Duration;

use crate::model::balancing::SlowStart;

/// Which share of its weight an endpoint has that is well for `age`.
pub(crate) fn factor(config: &SlowStart, age: Duration) -> f64 {
    if age >= config.window {
        return 1.0;
    }
    let age = age.max(Duration::from_millis(1)).as_secs_f64();
    (age / config.window.as_secs_f64()).powf(1.0 / config.aggression).max(config.min_weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_grows_with_age() {
        let config = |aggression| SlowStart {
            window: Duration::from_secs(100),
            aggression,
            min_weight: 0.1,
        };
        let at = |seconds, aggression| factor(&config(aggression), Duration::from_secs(seconds));
        assert_eq!([0, 5, 50, 100, 1000].map(|age| at(age, 1.0)), [0.1, 0.1, 0.5, 1.0, 1.0]);
        assert!((at(25, 2.0) - 0.5).abs() < 1e-9);
        assert!((at(50, 0.5) - 0.25).abs() < 1e-9);
    }
}
