//! The clock that a lease is counted by: monotonic, and it goes on while the machine is suspended.

use std::time::Duration;

/// How long this machine has been up. Only differences mean anything.
///
/// A laptop that was closed, a virtual machine that was frozen: the ordinary monotonic clock would not count that
/// time, and the holder would go on believing in a lease that has long run out.
#[cfg(target_os = "linux")]
pub fn now() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// How long this machine has been up and awake. Only differences mean anything.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Duration {
    use crate::process::per_process::PerProcess;
    use std::convert::Infallible;
    use std::time::Instant;
    static EPOCH: PerProcess<Instant> = PerProcess::new();
    let since = EPOCH
        .get_or_make(|| Ok::<_, Infallible>(Instant::now()))
        .map_or(Duration::ZERO, Instant::elapsed);
    // Not zero: an instant of a second ago can be told.
    since + Duration::from_secs(1 << 20)
}
