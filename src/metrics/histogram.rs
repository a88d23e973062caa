//! A histogram of times that any thread may write to, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often which time was taken. Only grows.
///
/// Its numbers are read one after the other, while others write: each is right, and none falls behind what an
/// earlier look has seen.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds: the last is of what is longer.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    longest_ns: AtomicU64,
}

impl Histogram {
    /// An empty one with these upper bounds, in growing order.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
            longest_ns: AtomicU64::new(0),
        }
    }

    /// Counts one that took no time at all.
    pub fn record_none(&self) {
        self.add(0);
    }

    /// Counts one.
    pub fn record(&self, took: Duration) {
        let took = nanoseconds(took);
        self.add(self.bounds.partition_point(|&bound| bound < took));
        self.sum_ns.fetch_add(took, Ordering::Relaxed);
        // Most are not the longest, and a look costs less than a change.
        if took > self.longest_ns.load(Ordering::Relaxed) {
            self.longest_ns.fetch_max(took, Ordering::Relaxed);
        }
    }

    fn add(&self, bucket: usize) {
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds what another has counted, bucket by bucket; both have the same bounds.
    pub fn absorb(&self, other: &Self) {
        for (ours, theirs) in self.counts.iter().zip(&other.counts) {
            ours.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sum_ns
            .fetch_add(other.sum_ns.load(Ordering::Relaxed), Ordering::Relaxed);
        self.longest_ns
            .fetch_max(other.longest_ns.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The numbers now.
    pub fn read(&self) -> Distribution {
        Distribution {
            bounds: self.bounds,
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
            longest: Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed)),
        }
    }
}

/// What a histogram had at one instant.
#[derive(Clone, Debug)]
pub struct Distribution {
    bounds: &'static [u64],
    counts: Vec<u64>,
    /// Of all together.
    pub sum: Duration,
    /// The longest one.
    pub longest: Duration,
}

impl Distribution {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many there were that took no time at all.
    pub fn none(&self) -> u64 {
        self.counts.first().copied().unwrap_or(0)
    }

    /// How many there were up to each of `bounds`, which must be bounds of the histogram.
    pub fn up_to(&self, bounds: &[u64]) -> Vec<u64> {
        bounds
            .iter()
            .map(|&bound| {
                let buckets = self.bounds.partition_point(|&own| own <= bound);
                self.counts.iter().take(buckets).sum()
            })
            .collect()
    }

    /// The time that this share of them did not exceed, within the width of a bucket; `None` where there was none.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate within a bucket"
    )]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let longest = nanoseconds(self.longest);
        let mut before = 0;
        for (bucket, &here) in self.counts.iter().enumerate() {
            if before + here >= rank {
                let upper = self.bounds.get(bucket).copied().unwrap_or(longest);
                let lower = bucket
                    .checked_sub(1)
                    .and_then(|below| self.bounds.get(below))
                    .copied()
                    .unwrap_or(0);
                let part = (rank - before) as f64 / here as f64;
                let within = (upper.saturating_sub(lower) as f64 * part) as u64;
                return Some(Duration::from_nanos((lower + within).min(longest)));
            }
            before += here;
        }
        Some(self.longest)
    }
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::metrics::bounds::{EXPORTED, FINE};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_empty_one_has_no_quantile() {
        let read = Histogram::new(&FINE).read();
        assert_eq!(read.count(), 0);
        assert_eq!(read.quantile(0.5), None);
    }

    #[test]
    fn quantiles_are_right_within_an_eighth() {
        let histogram = Histogram::new(&FINE);
        for number in 1..=1000 {
            histogram.record(MS * number);
        }
        let read = histogram.read();
        for (share, true_ms) in [(0.5, 500), (0.95, 950), (0.99, 990), (1.0, 1000)] {
            let found = read.quantile(share).unwrap();
            let (least, most) = (MS * true_ms * 7 / 8, MS * true_ms * 9 / 8);
            assert!((least..=most).contains(&found), "{share}: {found:?}");
        }
        assert_eq!(read.longest, MS * 1000);
        assert_eq!(read.sum, MS * 500_500);
    }

    #[test]
    fn who_did_not_wait_is_counted_apart() {
        let histogram = Histogram::new(&FINE);
        histogram.record_none();
        histogram.record(Duration::from_nanos(1));
        let read = histogram.read();
        assert_eq!((read.none(), read.count()), (1, 2));
        assert_eq!(read.quantile(0.5), Some(Duration::ZERO));
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        for bounds in [&FINE[..], &EXPORTED[..]] {
            let histogram = Histogram::new(bounds);
            histogram.record(MS);
            histogram.record(MS + Duration::from_nanos(1));
            let read = histogram.read();
            assert_eq!(read.up_to(&[500_000, 1_000_000, 2_500_000]), [0, 1, 2]);
        }
    }

    #[test]
    fn what_is_longer_than_all_bounds_is_counted_too() {
        let histogram = Histogram::new(&FINE);
        histogram.record(Duration::from_secs(5000));
        let read = histogram.read();
        assert_eq!(read.count(), 1);
        assert_eq!(read.up_to(&[30_000_000_000]), [0]);
        assert_eq!(read.quantile(0.5), Some(Duration::from_secs(5000)));
    }

    #[test]
    fn one_takes_over_what_another_has() {
        let (one, other) = (Histogram::new(&FINE), Histogram::new(&FINE));
        one.record(MS);
        other.record(MS * 3);
        one.absorb(&other);
        let read = one.read();
        assert_eq!((read.count(), read.sum, read.longest), (2, MS * 4, MS * 3));
    }

    #[test]
    fn threads_lose_nothing() {
        let histogram = Arc::new(Histogram::new(&FINE));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let histogram = Arc::clone(&histogram);
                thread::spawn(move || (0..10_000).for_each(|_| histogram.record(MS * writer)))
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        let read = histogram.read();
        assert_eq!((read.count(), read.sum), (40_000, MS * 60_000));
    }
}
