//! What the control plane has to tell: leases that were lost, for whoever asks.
//!
//! Nobody is called back. A thread that wants to know waits here, for one process at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::process::own::PerProcess;

#[derive(Debug, Default)]
struct News {
    lost: Mutex<VecDeque<u64>>,
    arrived: Condvar,
}

static NEWS: PerProcess<News> = PerProcess::new();

fn news() -> &'static News {
    match NEWS.get_or_make(|| Ok::<_, Infallible>(News::default())) {
        Ok(news) => news,
        Err(never) => match never {},
    }
}

/// Tells that a lease was lost; 0 is none, and only wakes who waits.
pub fn tell(lease: u64) {
    let news = news();
    let mut lost = news.lost.lock().unwrap_or_else(PoisonError::into_inner);
    lost.push_back(lease);
    news.arrived.notify_all();
}

/// Waits for news, for so long at most, and takes them: numbers of leases that were lost.
pub fn wait(at_most: Duration) -> Vec<u64> {
    let news = news();
    let lost = news.lost.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = news
        .arrived
        .wait_timeout_while(lost, at_most, |lost| lost.is_empty());
    let (mut lost, _) = waited.unwrap_or_else(PoisonError::into_inner);
    lost.drain(..).collect()
}
