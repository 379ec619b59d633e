//! Which of several control planes writes: the rules of a `coordination.k8s.io` Lease. Pure; the clock is an argument.
//!
//! As in client-go: the holder renews often, and gives up by itself well before others may take the lease. Others go
//! by how long they themselves saw it unchanged, so that clocks need not agree.

use std::time::Duration;
use std::time::Instant;

/// A lease that was not renewed for so long may be taken.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long stops to be the leader.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Pause between two looks.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// The lease as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Nobody when empty.
    pub(super) holder: String,
    pub(super) duration: Duration,
    pub(super) acquired: String,
    pub(super) renewed: String,
    pub(super) transitions: i64,
    pub(super) version: String,
}

/// What is to be done after a look at the lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make it; somebody else may be quicker.
    Create,
    /// Prolong ours.
    Renew,
    /// Take over one that is free or forgotten.
    Take,
    /// Somebody else leads.
    Wait,
}

/// What one control plane knows of the lease.
#[derive(Debug)]
pub(super) struct Election {
    pub(super) identity: String,
    seen: Option<(Record, Instant)>,
    until: Option<Instant>,
}

impl Election {
    pub(super) fn new(identity: String) -> Self {
        Self { identity, seen: None, until: None }
    }

    /// Takes in the lease as it is now.
    pub(super) fn observe(&mut self, now: Instant, record: Option<Record>) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((known, since)) if *known == record => *since,
            _ => now,
        };
        let step = if record.holder == self.identity {
            Step::Renew
        } else {
            // Whatever we believed: it is somebody else's.
            self.until = None;
            let forgotten = now.saturating_duration_since(since) >= record.duration;
            if record.holder.is_empty() || forgotten { Step::Take } else { Step::Wait }
        };
        self.seen = Some((record, since));
        step
    }

    /// The lease was written with our name. `asked` is the time before the request was sent.
    pub(super) fn written(&mut self, asked: Instant) {
        self.until = Some(asked + GIVE_UP);
    }

    /// It was given back.
    pub(super) fn released(&mut self) {
        self.until = None;
    }

    /// Until when we lead, if nothing is renewed.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        self.until
    }

    /// Transitions of the lease, and when it was acquired, as last seen.
    pub(super) fn seen(&self) -> Option<&Record> {
        self.seen.as_ref().map(|(record, _)| record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, version: u32) -> Record {
        Record {
            holder: holder.to_owned(),
            duration: LEASE,
            acquired: String::new(),
            renewed: String::new(),
            transitions: 0,
            version: version.to_string(),
        }
    }

    fn leads(election: &Election, now: Instant) -> bool {
        election.leads_until().is_some_and(|until| until > now)
    }

    #[test]
    fn a_holder_that_cannot_renew_gives_up_before_anyone_may_take_over() {
        let start = Instant::now();
        let (mut a, mut b) = (Election::new("a".into()), Election::new("b".into()));
        assert_eq!(a.observe(start, None), Step::Create);
        a.written(start);
        assert!(leads(&a, start + GIVE_UP - RETRY));
        let held = record("a", 1);
        assert_eq!(a.observe(start + RETRY, Some(held.clone())), Step::Renew);
        assert!(!leads(&a, start + GIVE_UP), "the renewal did not come through");
        // `b` saw the lease at the very moment of its last renewal.
        assert_eq!(b.observe(start, Some(held.clone())), Step::Wait);
        assert_eq!(b.observe(start + LEASE - RETRY, Some(held.clone())), Step::Wait);
        assert_eq!(b.observe(start + LEASE, Some(held)), Step::Take);
        assert!(GIVE_UP < LEASE);
    }

    #[test]
    fn every_renewal_starts_the_time_anew() {
        let start = Instant::now();
        let mut b = Election::new("b".into());
        assert_eq!(b.observe(start, Some(record("a", 1))), Step::Wait);
        assert_eq!(b.observe(start + LEASE - RETRY, Some(record("a", 2))), Step::Wait);
        assert_eq!(b.observe(start + LEASE, Some(record("a", 2))), Step::Wait);
        assert_eq!(b.observe(start + LEASE, Some(record("", 3))), Step::Take, "given back");
    }

    #[test]
    fn who_finds_another_holder_is_no_leader_any_more() {
        let start = Instant::now();
        let mut a = Election::new("a".into());
        a.written(start);
        assert!(leads(&a, start));
        assert_eq!(a.observe(start, Some(record("b", 9))), Step::Wait);
        assert!(!leads(&a, start));
    }
}
