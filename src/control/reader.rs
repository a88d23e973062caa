//! Reading files, on a thread of its own: a pipe, a disk or a file server that does not answer holds up nothing else,
//! neither another server's lease nor a fork.
//!
//! Each server has one such thread at most. Who has given up leaves it where it hangs, and what is asked next waits
//! for it: what it reads then is of no use any more, since it began before.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turns, oneshot};

use super::plane;
use super::stage::waiting_for;
use crate::process::threads;

/// Reads the files of one server's connections, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    turns: Arc<Turns<()>>,
}

impl Reader {
    /// Has `work` read files. It may be given up at any time.
    ///
    /// # Errors
    ///
    /// The work panicked.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        waiting_for(
            "the files that it needs (certificates, keys, passwords, services, the names of users) to be read",
            async {
                let turn = Arc::clone(&self.turns).lock_owned().await;
                let (tell, told) = oneshot::channel();
                // Taken by the thread; or here, where there is none.
                let place = Arc::new(Mutex::new(Some(work)));
                let taken = Arc::clone(&place);
                let started = threads::spawn("poolproof-files", move || {
                    if let Some(work) = take(&taken) {
                        let read = work();
                        drop(turn);
                        // Given up by now, perhaps.
                        let _told = tell.send(read);
                        plane::wake();
                    }
                });
                if started.is_err() {
                    // No thread is to be had at this moment. Most files can be read at once, and a lease is not to be
                    // lost for the others.
                    if let Some(work) = take(&place) {
                        return Ok(work());
                    }
                }
                told.await.map_err(|_gone| {
                    io::Error::other("a defect of poolproof ended the reading of files")
                })
            },
        )
        .await
    }
}

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::control::timer::timeout;

    #[test]
    fn what_hangs_holds_up_its_own_server_alone_until_it_ends() {
        let (end, hangs) = mpsc::channel::<()>();
        let short = Duration::from_millis(20);
        let (given_up, behind, beside, after) = plane::run(async move {
            let (stuck, free) = (Reader::default(), Reader::default());
            let given_up = timeout(short, stuck.read(move || hangs.recv().is_err())).await;
            let behind = timeout(short, stuck.read(|| 1)).await;
            let beside = free.read(thread::current).await.unwrap();
            drop(end);
            (
                given_up.is_err(),
                behind.is_err(),
                beside,
                stuck.read(|| 2).await.unwrap(),
            )
        });
        assert!(given_up && behind);
        assert_eq!(beside.name(), Some("poolproof-files"));
        assert_eq!(after, 2);
    }

    #[test]
    #[allow(clippy::panic, reason = "that is what is tested")]
    fn work_that_panics_is_an_error_and_the_next_is_done() {
        let read = plane::run(async {
            let reader = Reader::default();
            let failed = reader.read(|| panic!("no luck")).await;
            (failed.is_err(), reader.read(|| 1).await.unwrap())
        });
        assert_eq!(read, (true, 1));
    }
}
