//! The reactor: where the thread of the control plane waits, for its sockets and for the time, when no task can go on.
//!
//! Tokio's own works by epoll and an eventfd, by number: when a daemoniser closes all descriptors, it panics, and writes
//! to and closes what the application has opened under these numbers since. This one waits by poll(2), for sockets that
//! are known by device and inode. A socket that has gone wakes its task, which is told so; the bell that wakes the
//! thread itself is made anew.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use super::clock;
use crate::socket::owned::OwnedSocket;
use crate::socket::readiness::{self, Wanted};

/// How long the thread waits at most before it looks whether its sockets are still there.
const SLICE: Duration = Duration::from_secs(5);
/// The same, without a bell, and after an error.
const PAUSE: Duration = Duration::from_millis(20);

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Reading,
    Writing,
}

/// Who waits for which socket. No waker is woken or dropped while the lock is held: either may come back here.
#[derive(Debug, Default)]
pub(crate) struct Reactor {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waits: HashMap<u64, Wait>,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    /// A task that is woken after each wait, so that the thread looks at all there is to do.
    ticker: Option<Waker>,
    bell: Option<Bell>,
    last: u64,
}

#[derive(Debug)]
struct Wait {
    socket: Arc<OwnedSocket>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What is sent into one end wakes the thread, which waits for the other.
#[derive(Clone, Debug)]
struct Bell {
    rope: Arc<OwnedSocket>,
    tongue: Arc<OwnedSocket>,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let (rope, tongue) = OwnedSocket::pair()?;
        Ok(Self {
            rope: Arc::new(rope),
            tongue: Arc::new(tongue),
        })
    }

    fn is_intact(&self) -> bool {
        self.rope.fd().is_some() && self.tongue.fd().is_some()
    }
}

impl Reactor {
    /// A number for a socket or a sleeper.
    pub(crate) fn number(&self) -> u64 {
        let mut state = self.lock();
        state.last += 1;
        state.last
    }

    /// Has `waker` woken when there is something to read, or room to write, in place of an earlier one.
    pub(crate) fn wait(
        &self,
        number: u64,
        socket: &Arc<OwnedSocket>,
        direction: Direction,
        waker: &Waker,
    ) {
        let waker = Some(waker.clone());
        let earlier = {
            let mut state = self.lock();
            let wait = state.waits.entry(number).or_insert_with(|| Wait {
                socket: Arc::clone(socket),
                reader: None,
                writer: None,
            });
            match direction {
                Direction::Reading => std::mem::replace(&mut wait.reader, waker),
                Direction::Writing => std::mem::replace(&mut wait.writer, waker),
            }
        };
        drop(earlier);
    }

    /// Waits for a socket no more.
    pub(crate) fn forget(&self, number: u64) {
        let forgotten = self.lock().waits.remove(&number);
        drop(forgotten);
    }

    /// Has `waker` woken at an instant, in place of an earlier one.
    pub(crate) fn wake_at(&self, instant: Duration, number: u64, waker: &Waker) {
        let waker = waker.clone();
        let earlier = self.lock().sleepers.insert((instant, number), waker);
        drop(earlier);
    }

    /// Takes that back.
    pub(crate) fn let_sleep(&self, instant: Duration, number: u64) {
        let forgotten = self.lock().sleepers.remove(&(instant, number));
        drop(forgotten);
    }

    /// Has `waker` woken after each wait.
    pub(crate) fn tick(&self, waker: &Waker) {
        let waker = Some(waker.clone());
        let earlier = std::mem::replace(&mut self.lock().ticker, waker);
        drop(earlier);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread, for whoever has given it something to do from another. A thread that waits for a bell that was
    /// closed is woken by that.
    pub(crate) fn ring(&self) {
        let bell = self.bell();
        if let Some(bell) = bell {
            // A bell that is full has been rung.
            let _rung = bell.rope.send(&[1]);
        }
    }

    /// The bell, made anew when it has gone; none when the system has no descriptors to give.
    fn bell(&self) -> Option<Bell> {
        let (bell, older) = {
            let mut state = self.lock();
            let older = if state.bell.as_ref().is_some_and(Bell::is_intact) {
                None
            } else {
                std::mem::replace(&mut state.bell, Bell::new().ok())
            };
            (state.bell.clone(), older)
        };
        drop(older);
        bell
    }

    /// Waits once, and wakes whom it concerns. Called by the thread when no task can go on.
    pub(crate) fn turn(&self) {
        let bell = self.bell();
        let (mut wanted, mut numbers, mut woken) = self.survey();
        let tongue = bell.as_ref().and_then(|bell| bell.tongue.fd());
        if let Some(fd) = tongue {
            numbers.push(0);
            wanted.push(Wanted {
                fd,
                reading: true,
                writing: false,
            });
        }
        let most = if tongue.is_some() { SLICE } else { PAUSE };
        let at_most = if woken.is_empty() {
            self.rest().min(most)
        } else {
            Duration::ZERO
        };
        match readiness::wait(&wanted, at_most) {
            Ok(ready) => {
                if let Some(bell) = bell {
                    // What is in it is one message: look again.
                    let _emptied = bell.tongue.receive(&mut [0; 64]);
                }
                woken.extend(self.take(&numbers, &ready));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_shortage) => thread::sleep(PAUSE),
        }
        woken.extend(self.due());
        for waker in woken {
            waker.wake();
        }
    }

    /// How long nobody is to be woken; rounded up, so that the instant has come when the wait is over.
    fn rest(&self) -> Duration {
        let state = self.lock();
        let first = state.sleepers.keys().next();
        first.map_or(SLICE, |(instant, _)| {
            let left = instant.saturating_sub(clock::now());
            left.saturating_add(Duration::from_micros(999))
        })
    }

    /// Whose time has come, and the ticker.
    fn due(&self) -> Vec<Waker> {
        let now = clock::now();
        let mut state = self.lock();
        let later = state.sleepers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.sleepers, later);
        due.into_values().chain(state.ticker.clone()).collect()
    }

    /// What is waited for, by which numbers, and whose socket has gone.
    fn survey(&self) -> (Vec<Wanted>, Vec<u64>, Vec<Waker>) {
        let (mut wanted, mut numbers, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (number, wait) in &mut self.lock().waits {
            let Some(fd) = wait.socket.fd() else {
                gone.extend(wait.reader.take());
                gone.extend(wait.writer.take());
                continue;
            };
            let (reading, writing) = (wait.reader.is_some(), wait.writer.is_some());
            if reading || writing {
                numbers.push(*number);
                wanted.push(Wanted {
                    fd,
                    reading,
                    writing,
                });
            }
        }
        (wanted, numbers, gone)
    }

    fn take(&self, numbers: &[u64], ready: &[(bool, bool)]) -> Vec<Waker> {
        let mut woken = Vec::new();
        let mut state = self.lock();
        for (number, (can_read, can_write)) in numbers.iter().zip(ready) {
            if let Some(wait) = state.waits.get_mut(number) {
                woken.extend(wait.reader.take_if(|_| *can_read));
                woken.extend(wait.writer.take_if(|_| *can_write));
            }
        }
        woken
    }
}
