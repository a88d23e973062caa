//! Sleeping, and bounding what others do, by the reactor's clock: the runtime itself has none.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::reactor::Reactor;
use super::{clock, plane};

/// The time was over first.
#[derive(Debug)]
pub(crate) struct Elapsed;

/// Rests for so long. To be awaited in the control plane.
pub(crate) fn sleep(length: Duration) -> Sleep {
    Sleep {
        until: clock::now().saturating_add(length),
        asked: None,
    }
}

/// Gives `work` so much time.
pub(crate) async fn timeout<T>(
    length: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let (mut work, mut rest) = (pin!(work), sleep(length));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        Pin::new(&mut rest).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// See [`sleep`].
#[derive(Debug)]
pub(crate) struct Sleep {
    until: Duration,
    asked: Option<(Arc<Reactor>, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if clock::now() >= self.until {
            return Poll::Ready(());
        }
        let until = self.until;
        if self.asked.is_none() {
            self.asked = plane::reactor().ok().map(|reactor| {
                let number = reactor.number();
                (reactor, number)
            });
        }
        if let Some((reactor, number)) = &self.asked {
            reactor.wake_at(until, *number, cx.waker());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((reactor, number)) = &self.asked {
            reactor.let_sleep(self.until, *number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn a_task_rests_and_what_takes_longer_is_given_up() {
        let short = Duration::from_millis(5);
        let long = Duration::from_secs(60);
        let (rested, given_up, done) = plane::run(async move {
            let began = clock::now();
            sleep(short).await;
            let rested = clock::now().saturating_sub(began);
            let given_up = timeout(short, pending::<()>()).await.is_err();
            let done = timeout(long, sleep(short)).await.is_ok();
            (rested, given_up, done)
        });
        assert!(rested >= short);
        assert!(given_up && done);
    }
}
