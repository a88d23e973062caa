//! The thread of the control plane: one a process, started at first use.
//!
//! Its runtime has neither descriptors nor a clock: when no task can go on, the thread waits in the `Reactor`, which
//! has both. Whoever wakes a task from another thread rings its bell (`wake`). Names are looked up by threads of
//! their own. A child of a fork has none of it and begins anew: the parent's runtime is forgotten, never dropped, because
//! dropping it would wait for a thread that is not there.
//!
//! A task that panics fails what it worked for, and nothing else. Should the thread itself end, all that it worked for
//! is told why, and the next use begins with a new one.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Handle, Runtime};
#[cfg(test)]
use tokio::sync::Notify;

use super::error::ControlError;
use super::reactor::Reactor;
use crate::process::per_process::PerProcess;
use crate::process::threads;

static PLANE: PerProcess<Plane> = PerProcess::new();

struct Plane {
    handle: Handle,
    reactor: Arc<Reactor>,
    thread: Arc<Thread>,
}

/// What the plane and its thread share.
struct Thread {
    state: Mutex<State>,
    /// Ends it.
    #[cfg(test)]
    breakdown: Notify,
}

enum State {
    /// Made by one of two threads at once, of which only the winner's is started; or the system had no thread to give.
    New(Runtime),
    Running,
    /// It has ended, for this reason.
    Gone(String),
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").finish_non_exhaustive()
    }
}

/// Has the control plane work on `task`. Starts it when it does not run yet. Should the task panic, or the control
/// plane go before it is done, `failed` is told why, in one sentence.
///
/// # Errors
///
/// [`ControlError::Start`] when the system has no thread to give; the next call tries again.
pub fn spawn(
    task: impl Future<Output = ()> + Send + 'static,
    failed: impl FnOnce(String) + Send + 'static,
) -> Result<(), ControlError> {
    let plane = started()?;
    let thread = Arc::clone(&plane.thread);
    plane.handle.spawn(Task {
        work: Box::pin(task),
        failed: Some(Box::new(failed)),
        thread,
    });
    plane.reactor.ring();
    Ok(())
}

/// Has the thread look at what it was given to do from another thread: a task was notified.
pub(crate) fn wake() {
    if let Some(plane) = PLANE.get() {
        plane.reactor.ring();
    }
}

/// Starts the control plane, unless it runs.
///
/// # Errors
///
/// [`ControlError::Start`] when the system has no thread to give; the next call tries again.
pub fn start() -> Result<(), ControlError> {
    started().map(drop)
}

fn started() -> Result<&'static Plane, ControlError> {
    let plane = plane()?;
    plane
        .thread
        .start()
        .map_err(|source| ControlError::Start { source })?;
    Ok(plane)
}

/// What tasks of this process wait for sockets by.
///
/// # Errors
///
/// [`ControlError::Start`].
pub(crate) fn reactor() -> Result<Arc<Reactor>, ControlError> {
    Ok(Arc::clone(&plane()?.reactor))
}

fn plane() -> Result<&'static Plane, ControlError> {
    PLANE
        .get_or_remake(|plane| !plane.thread.has_gone(), |_gone| Plane::new())
        .map_err(|source| ControlError::Start { source })
}

/// Takes the lock, as a thread does that is caught by a fork.
#[cfg(test)]
pub(super) fn hold() -> Option<impl Drop> {
    Some(PLANE.get()?.thread.lock())
}

/// Has the thread panic, outside of any task.
#[cfg(test)]
pub(super) fn break_down() {
    if let Some(plane) = PLANE.get() {
        plane.thread.breakdown.notify_one();
    }
    wake();
}

/// Has the control plane come to an answer.
#[cfg(test)]
pub(super) fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    let work = async move { tell.send(work.await).unwrap() };
    spawn(work, |_why| {}).unwrap();
    told.recv().unwrap()
}

impl Plane {
    fn new() -> io::Result<Self> {
        let reactor = Arc::<Reactor>::default();
        let waits = Arc::clone(&reactor);
        let runtime = Builder::new_current_thread()
            .on_thread_park(move || waits.turn())
            .build()?;
        let ticks = Arc::clone(&reactor);
        // Woken after each wait, it keeps the runtime from waiting in its own way.
        runtime.spawn(poll_fn(move |cx| {
            ticks.tick(cx.waker());
            Poll::<()>::Pending
        }));
        Ok(Self {
            handle: runtime.handle().clone(),
            reactor,
            thread: Arc::new(Thread {
                state: Mutex::new(State::New(runtime)),
                #[cfg(test)]
                breakdown: Notify::new(),
            }),
        })
    }
}

impl Thread {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn has_gone(&self) -> bool {
        matches!(*self.lock(), State::Gone(_))
    }

    /// Starts it, unless it runs.
    fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.lock();
        if !matches!(*state, State::New(_)) {
            return Ok(());
        }
        // The thread waits for this lock until it is known that it runs.
        let place = Arc::new(Mutex::new(None));
        let (thread, taken) = (Arc::clone(self), Arc::clone(&place));
        let mut place = lock(&place);
        threads::spawn("poolproof-control", move || {
            let runtime = lock(&taken).take();
            if let Some(runtime) = runtime {
                thread.run(runtime);
            }
        })?;
        if let State::New(runtime) = std::mem::replace(&mut *state, State::Running) {
            *place = Some(runtime);
        }
        Ok(())
    }

    /// Works until it panics.
    fn run(&self, runtime: Runtime) {
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(self.last())));
        let cause = match ended {
            Ok(()) => "it came to its end".into(),
            Err(panic) => said(&*panic),
        };
        *self.lock() = State::Gone(cause);
        // Its tasks are dropped, and tell what they worked for.
        let _dropped = catch_unwind(AssertUnwindSafe(|| drop(runtime)));
    }

    #[cfg(not(test))]
    async fn last(&self) {
        std::future::pending::<()>().await;
    }

    #[cfg(test)]
    #[allow(clippy::panic, reason = "that is what is tested")]
    async fn last(&self) {
        self.breakdown.notified().await;
        panic!("broken down by a test");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The boxed half of [`spawn`].
struct Task<F> {
    work: Pin<Box<F>>,
    /// Gone, once the work has come to its end.
    failed: Option<Box<dyn FnOnce(String) + Send>>,
    thread: Arc<Thread>,
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let work = self.work.as_mut();
        match catch_unwind(AssertUnwindSafe(|| work.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => self.failed = None,
            Err(panic) => {
                if let Some(failed) = self.failed.take() {
                    failed(format!("a defect of poolproof ended it: {}", said(&*panic)));
                }
            }
        }
        Poll::Ready(())
    }
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        if let Some(failed) = self.failed.take() {
            let cause = match &*self.thread.lock() {
                State::Gone(cause) => cause.clone(),
                State::New(_) | State::Running => "this process ends".into(),
            };
            failed(format!("the control plane has gone: {cause}"));
        }
    }
}

/// What a panic has said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a word".into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::process::in_child;

    #[test]
    #[allow(clippy::panic, reason = "that is what is tested")]
    fn a_task_that_panics_tells_why_and_the_next_is_worked_on() {
        let (tell, told) = mpsc::channel();
        let panics = async { panic!("no luck") };
        spawn(panics, move |why| tell.send(why).unwrap()).unwrap();
        assert_eq!(
            told.recv().unwrap(),
            "a defect of poolproof ended it: no luck"
        );
        let (tell, told) = mpsc::channel();
        let ends = async move { tell.send(()).unwrap() };
        spawn(ends, |_why| {}).unwrap();
        told.recv().unwrap();
    }

    #[test]
    fn when_the_thread_ends_all_are_told_and_the_next_use_begins_anew() {
        // In a process of its own: other tests use theirs.
        assert!(in_child(|| {
            // It would be long about it.
            std::panic::set_hook(Box::new(|_panic| {}));
            let (tell, told) = mpsc::channel();
            let (_never, waits) = oneshot::channel::<()>();
            let waiting = async move { drop(waits.await) };
            let failed = move |why: String| drop(tell.send(why));
            let began = spawn(waiting, failed);
            break_down();
            let why = told.recv().unwrap_or_default();
            let (tell, told) = mpsc::channel();
            let again = spawn(async move { tell.send(()).unwrap() }, |_why| {});
            began.is_ok()
                && why == "the control plane has gone: broken down by a test"
                && again.is_ok()
                && told.recv().is_ok()
        }));
    }
}
