//! A histogram of times that any thread may write to, without a lock.
//!
//! Most times of one pool are of few magnitudes, so buckets are made in parts of neighbours, each with the first
//! time that falls into it: a pool in use takes a third of what all of its buckets would.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Buckets that are made together: those that are exported fill one part.
const PART: usize = 20;

type Part = Box<[AtomicU64; PART]>;

/// What all histograms of this process take.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// How many bytes all histograms of this process take.
pub fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// Counts memory that histograms take, besides their parts.
pub(super) fn takes(bytes: usize) {
    BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// The same memory, given back.
pub(super) fn gives_back(bytes: usize) {
    BYTES.fetch_sub(bytes, Ordering::Relaxed);
}

/// How often which time was taken. Only grows.
///
/// Its numbers are read one after the other, while others write: each is right, and none falls behind what an
/// earlier look has seen.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One bucket more than there are bounds: the last is of what is longer.
    ///
    /// Nobody waits for a part that is being made at a fork: it is the parent's then.
    parts: Box<[OnceLock<Part>]>,
    sum_ns: AtomicU64,
    longest_ns: AtomicU64,
}

impl Histogram {
    /// An empty one with these upper bounds, in growing order.
    pub fn new(bounds: &'static [u64]) -> Self {
        let parts = (bounds.len() + 1).div_ceil(PART);
        takes(own_size(parts));
        Self {
            bounds,
            parts: (0..parts).map(|_| OnceLock::new()).collect(),
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
        self.add_many(bucket, 1);
    }

    fn add_many(&self, bucket: usize, more: u64) {
        if let Some(place) = self.parts.get(bucket / PART) {
            let part = place.get_or_init(|| {
                takes(size_of::<[AtomicU64; PART]>());
                Box::new([const { AtomicU64::new(0) }; PART])
            });
            if let Some(count) = part.get(bucket % PART) {
                count.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Each bucket in turn.
    fn counts(&self) -> impl Iterator<Item = u64> {
        let of = |place: &OnceLock<Part>, number: usize| {
            let count = place.get().and_then(|part| part.get(number));
            count.map_or(0, |count| count.load(Ordering::Relaxed))
        };
        let parts = self.parts.iter();
        parts
            .flat_map(move |place| (0..PART).map(move |number| of(place, number)))
            .take(self.bounds.len() + 1)
    }

    /// Adds what another has counted, bucket by bucket; both have the same bounds.
    pub fn absorb(&self, other: &Self) {
        for (bucket, count) in other.counts().enumerate() {
            if count > 0 {
                self.add_many(bucket, count);
            }
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
            counts: self.counts().collect(),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
            longest: Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed)),
        }
    }
}

impl Drop for Histogram {
    fn drop(&mut self) {
        let made = self.parts.iter().filter(|part| part.get().is_some());
        let parts = made.count() * size_of::<[AtomicU64; PART]>();
        gives_back(own_size(self.parts.len()) + parts);
    }
}

/// What a histogram takes without its buckets.
const fn own_size(parts: usize) -> usize {
    size_of::<Histogram>() + parts * size_of::<OnceLock<Part>>()
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
    fn buckets_are_made_where_times_fall() {
        let histogram = Histogram::new(&FINE);
        let made = |histogram: &Histogram| {
            let parts = histogram.parts.iter();
            parts.filter(|part| part.get().is_some()).count()
        };
        assert_eq!(made(&histogram), 0);
        histogram.record_none();
        histogram.record(MS);
        histogram.record(MS);
        assert_eq!(made(&histogram), 2);
        // What another has not counted takes no room here.
        let other = Histogram::new(&FINE);
        other.absorb(&histogram);
        assert_eq!(made(&other), 2);
        assert_eq!(other.read().up_to(&FINE), histogram.read().up_to(&FINE));
        // Up to the last, which is longer than every bound.
        for (number, &bound) in FINE.iter().enumerate() {
            let one = Histogram::new(&FINE);
            one.record(Duration::from_nanos(bound));
            assert_eq!(one.counts().position(|count| count > 0), Some(number));
        }
        let longest = Histogram::new(&FINE);
        longest.record(Duration::MAX);
        assert_eq!(
            longest.counts().position(|count| count > 0),
            Some(FINE.len())
        );
    }

    #[test]
    fn what_they_take_is_known() {
        // Others are made and end beside this test, but none so large.
        let many: Vec<_> = (0..10_000).map(|_| Histogram::new(&EXPORTED)).collect();
        let before = bytes();
        assert!(before >= 10_000 * own_size(1));
        for one in &many {
            one.record(MS);
        }
        let parts = 10_000 * size_of::<[AtomicU64; PART]>();
        assert!(bytes() >= before + parts / 2);
        drop(many);
        assert!(bytes() < before + parts / 2 - 10_000 * own_size(1));
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
