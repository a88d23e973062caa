//! The bounds of the buckets, in nanoseconds.
//!
//! Each is the upper end of a bucket and belongs to it, as in Prometheus. The first is 0: who did not wait at all
//! is counted apart. In each decade from 10 µs to 1,000 s a bucket is at most an eighth as wide as its lower end,
//! and 1, 2.5 and 5 are bounds, so that what is exported is exact.

const DECADES: u32 = 8;
const PER_DECADE: usize = 32;
/// The shortest time that is told from a shorter one.
const LEAST: u64 = 10_000;
const FINE_LEN: usize = 2 + DECADES as usize * PER_DECADE;

/// For quantiles: 258 bounds.
pub static FINE: [u64; FINE_LEN] = fine();

/// What is exported: 0.1 ms to 30 s, and 0.
pub static EXPORTED: [u64; 18] = [
    0,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

const fn fine() -> [u64; FINE_LEN] {
    let mut bounds = [0; FINE_LEN];
    bounds[1] = LEAST;
    let mut decade = 0;
    while decade < DECADES {
        let twentieth = LEAST * 10_u64.pow(decade) / 20;
        let mut step = 0;
        while step < PER_DECADE {
            // 1.1, 1.2 … 2; 2.25, 2.5 … 5; 5.5, 6 … 10
            let twentieths = if step < 10 {
                22 + 2 * step as u64
            } else if step < 22 {
                45 + 5 * (step as u64 - 10)
            } else {
                110 + 10 * (step as u64 - 22)
            };
            bounds[2 + decade as usize * PER_DECADE + step] = twentieth * twentieths;
            step += 1;
        }
        decade += 1;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow_by_an_eighth_at_most() {
        assert_eq!(FINE.last(), Some(&1_000_000_000_000));
        for pair in FINE[1..].windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
            assert!((pair[1] - pair[0]) * 8 <= pair[0], "{pair:?}");
        }
    }

    #[test]
    fn what_is_exported_is_told_exactly() {
        for bound in EXPORTED {
            assert!(FINE.contains(&bound), "{bound}");
        }
    }
}
