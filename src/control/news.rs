//! What the control plane has to tell: leases that were lost, backends that were ended, for whoever asks.
//!
//! Nobody is called back. A thread that wants to know waits here, for one process at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::process::own::PerProcess;

#[derive(Debug, Default)]
struct News {
    of: Mutex<VecDeque<u64>>,
    arrived: Condvar,
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);
static NEWS: PerProcess<News> = PerProcess::new();

fn news() -> &'static News {
    match NEWS.get_or_make(|| Ok::<_, Infallible>(News::default())) {
        Ok(news) => news,
        Err(never) => match never {},
    }
}

/// A number of this process by which there may be news.
pub fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Tells that there is news by this number; 0 is none, and only wakes who waits.
pub fn tell(number: u64) {
    let news = news();
    let mut lost = news.of.lock().unwrap_or_else(PoisonError::into_inner);
    lost.push_back(number);
    news.arrived.notify_all();
}

/// Waits for news, for so long at most, and takes them.
pub fn wait(at_most: Duration) -> Vec<u64> {
    let news = news();
    let lost = news.of.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = news
        .arrived
        .wait_timeout_while(lost, at_most, |lost| lost.is_empty());
    let (mut lost, _) = waited.unwrap_or_else(PoisonError::into_inner);
    lost.drain(..).collect()
}
