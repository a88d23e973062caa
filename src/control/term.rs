//! For how long a holder may believe in its lease: plain arithmetic on instants, without a clock.
//!
//! The server counts the expiry from when it carried the renewal out; the holder counts from before it sent it, which
//! is earlier, and stops believing a margin sooner. So the holder knows that the lease is lost before the server lets
//! anybody else have it, as long as the two clocks run at about the same speed.

use std::time::Duration;

/// What a holder knows of its right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    ttl: Duration,
    sent: Duration,
}

impl Term {
    /// A lease of `ttl`, by a request that was sent at `sent`.
    pub fn new(ttl: Duration, sent: Duration) -> Self {
        Self { ttl, sent }
    }

    /// For how long after it was sent a granted request counts. A twentieth less than the server grants, for clocks
    /// that run at different speeds, and for the way to whoever has to stop.
    pub fn certain(ttl: Duration) -> Duration {
        ttl / 20 * 19
    }

    /// Until when the lease is certain.
    pub fn certain_until(&self) -> Duration {
        self.sent + Self::certain(self.ttl)
    }

    /// Whether nobody can say any more that the lease is held.
    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.certain_until()
    }

    /// Notes a renewal that was sent at `sent` and granted.
    pub fn renewed(&mut self, sent: Duration) {
        self.sent = self.sent.max(sent);
    }

    /// When to renew next, after one that was granted.
    pub fn next(&self) -> Duration {
        self.sent + self.ttl / 6
    }

    /// How long an attempt that begins now may take: half of what is left, so that there is time for another, but no
    /// longer than a person would wait for an answer.
    pub fn attempt(&self, now: Duration) -> Duration {
        let left = self.certain_until().saturating_sub(now);
        let half = (left / 2).clamp(Duration::from_millis(100), Duration::from_secs(10));
        half.min(left)
    }

    /// How long to rest after so many attempts that failed in a row; the first is repeated at once.
    pub fn pause(ttl: Duration, failures: u32) -> Duration {
        let most = (ttl / 20).min(Duration::from_secs(2));
        (ttl / 600 * (1 << failures.min(10)) / 2).min(most) * u32::from(failures > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_certain_until_a_margin_before_its_expiry() {
        let term = Term::new(TTL, at(100));
        assert_eq!(term.certain_until(), at(157));
        assert!(!term.is_over(at(156)));
        assert!(term.is_over(at(157)));
    }

    #[test]
    fn an_answer_that_was_overtaken_does_not_shorten_the_lease() {
        let mut term = Term::new(TTL, at(100));
        term.renewed(at(110));
        term.renewed(at(105));
        assert_eq!(term.certain_until(), at(167));
        assert_eq!(term.next(), at(120));
    }

    #[test]
    fn the_first_failure_is_repeated_at_once_and_later_ones_after_a_rest() {
        assert_eq!(Term::pause(TTL, 1), Duration::ZERO);
        assert!(Term::pause(TTL, 2) > Duration::ZERO);
        assert!(Term::pause(TTL, 3) > Term::pause(TTL, 2));
        assert_eq!(Term::pause(TTL, 40), at(2));
        assert_eq!(Term::pause(at(1), 40), Duration::from_millis(50));
    }

    #[test]
    fn several_attempts_fit_into_a_lease_of_any_length() {
        for ttl in [1, 2, 10, 60, 1800] {
            let term = Term::new(at(ttl), at(0));
            let (mut now, mut attempts) = (term.next(), 0);
            while !term.is_over(now) {
                let within = term.attempt(now);
                assert!(within > Duration::ZERO && now + within <= term.certain_until());
                now += within;
                attempts += 1;
            }
            assert!(attempts >= 3, "{ttl} s: {attempts}");
        }
    }
}
