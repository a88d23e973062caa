//! The times of one pool in one process.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::bounds::{EXPORTED, FINE};
use super::histogram::{Distribution, Histogram, gives_back, takes};

/// Names a scope in this process; 0 is none.
pub type ScopeId = u16;

/// Scopes that are told apart, with what was one too many.
pub const SCOPES: usize = 201;

/// How long callers waited for a slot and held it, how long connecting and asking took.
#[derive(Debug)]
pub struct Timings {
    made: Instant,
    /// Waits for a slot, of callers who got a connection.
    pub wait: Histogram,
    /// Opening a connection.
    pub connect: Histogram,
    /// Asking whether one is at rest.
    pub ping: Histogram,
    hold: Histogram,
    /// How late loops have let tasks go on whose turn had come; made at the first.
    lag: OnceLock<Box<Histogram>>,
    /// The same as `hold`, coarser, in no scope.
    unscoped: Histogram,
    /// The same for each scope that has held one; nothing is made as long as there is none.
    scoped: OnceLock<Box<[OnceLock<Box<Histogram>>]>>,
}

impl Timings {
    /// An empty one.
    pub fn new(now: Instant) -> Self {
        Self {
            made: now,
            wait: Histogram::new(&FINE),
            connect: Histogram::new(&FINE),
            ping: Histogram::new(&FINE),
            hold: Histogram::new(&FINE),
            lag: OnceLock::new(),
            unscoped: Histogram::new(&EXPORTED),
            scoped: OnceLock::new(),
        }
    }

    /// An instant as nanoseconds, 1 or more, since this was made.
    pub fn instant(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made);
        u64::try_from(since.as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }

    /// Counts one whose connection was held for so long.
    pub fn record_hold(&self, scope: ScopeId, held: Duration) {
        self.hold.record(held);
        if let Some(histogram) = self.of_scope(scope) {
            histogram.record(held);
        }
    }

    /// Counts a task that its loop has let go on so late.
    pub fn record_lag(&self, lag: Duration) {
        self.lags().record(lag);
    }

    fn lags(&self) -> &Histogram {
        self.lag.get_or_init(|| Box::new(Histogram::new(&FINE)))
    }

    /// How late loops have let tasks go on; none where no task has waited.
    pub fn lag(&self) -> Option<Distribution> {
        self.lag.get().map(|lag| lag.read())
    }

    /// Where a scope's are counted; made at its first. None for a number that no scope has.
    ///
    /// Nobody waits for one that is being made at a fork: these are the parent's then.
    fn of_scope(&self, scope: ScopeId) -> Option<&Histogram> {
        let Some(place) = usize::from(scope).checked_sub(1) else {
            return Some(&self.unscoped);
        };
        let places = self.scoped.get_or_init(|| {
            takes(PLACES);
            (0..SCOPES).map(|_| OnceLock::new()).collect()
        });
        let made = || Box::new(Histogram::new(&EXPORTED));
        places.get(place).map(|place| &**place.get_or_init(made))
    }

    /// How long connections were held.
    pub fn hold(&self) -> Distribution {
        self.hold.read()
    }

    /// The same for each scope that has held one, by number.
    pub fn holds_by_scope(&self) -> Vec<(ScopeId, Distribution)> {
        let mut found = vec![(0, self.unscoped.read())];
        if let Some(places) = self.scoped.get() {
            let made = (1..).zip(places.iter());
            found.extend(made.filter_map(|(scope, place)| Some((scope, place.get()?.read()))));
        }
        found.retain(|(_scope, held)| held.count() > 0);
        found
    }

    /// Adds what another pool has counted.
    pub fn absorb(&self, other: &Self) {
        self.wait.absorb(&other.wait);
        self.connect.absorb(&other.connect);
        self.ping.absorb(&other.ping);
        self.hold.absorb(&other.hold);
        self.unscoped.absorb(&other.unscoped);
        if let Some(lag) = other.lag.get() {
            self.lags().absorb(lag);
        }
        if let Some(places) = other.scoped.get() {
            for (scope, place) in (1..).zip(places.iter()) {
                if let (Some(theirs), Some(ours)) = (place.get(), self.of_scope(scope)) {
                    ours.absorb(theirs);
                }
            }
        }
    }
}

/// What the places of all scopes take.
const PLACES: usize = SCOPES * size_of::<OnceLock<Box<Histogram>>>();

impl Drop for Timings {
    fn drop(&mut self) {
        if self.scoped.get().is_some() {
            gives_back(PLACES);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may read the clock")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn holds_are_counted_as_a_whole_and_by_scope() {
        let timings = Timings::new(Instant::now());
        timings.record_hold(0, MS);
        timings.record_hold(7, MS * 2);
        timings.record_hold(7, MS * 3);
        assert_eq!(timings.hold().count(), 3);
        let scopes: Vec<_> = timings
            .holds_by_scope()
            .into_iter()
            .map(|(scope, held)| (scope, held.count(), held.sum))
            .collect();
        assert_eq!(scopes, [(0, 1, MS), (7, 2, MS * 5)]);
    }

    #[test]
    fn lags_are_counted_from_the_first_on() {
        let now = Instant::now();
        let (one, other) = (Timings::new(now), Timings::new(now));
        one.absorb(&other);
        assert!(one.lag().is_none());
        other.record_lag(MS);
        one.absorb(&other);
        one.record_lag(MS * 2);
        let lag = one.lag().expect("two were counted");
        assert_eq!((lag.count(), lag.sum), (2, MS * 3));
    }

    #[test]
    fn one_takes_over_what_another_has() {
        let now = Instant::now();
        let (one, other) = (Timings::new(now), Timings::new(now));
        one.record_hold(0, MS);
        other.record_hold(3, MS);
        other.wait.record_none();
        one.absorb(&other);
        assert_eq!((one.hold().count(), one.wait.read().none()), (2, 1));
        assert_eq!(one.holds_by_scope().len(), 2);
    }

    #[test]
    fn an_instant_is_never_nothing() {
        let now = Instant::now();
        let timings = Timings::new(now);
        assert_eq!(timings.instant(now), 1);
        assert_eq!(timings.instant(now + MS), 1_000_001);
    }
}
