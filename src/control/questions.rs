//! Questions to Python: how is the next session to be made? For an engine whose parameters a function makes anew each
//! time, as a token of a cloud's.
//!
//! The control plane calls nobody. It leaves a question here, has the [`events`] tell of it, and goes on with other
//! things; a thread of Python takes the question, calls what is to be called, and answers. Who asked may have given up
//! by then. Nothing here is kept over a fork: a child asks by questions of its own.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::error::ControlError;
use super::stage::waiting_for;
use super::{events, plane};
use crate::conninfo::Conninfo;
use crate::process::generation;

/// What Python says: the parameters, or why there are none.
pub type Said = Result<Arc<Conninfo>, ControlError>;

/// The questions about one server.
#[derive(Debug)]
pub struct Questions {
    number: u64,
    generation: u64,
    asked: Mutex<VecDeque<oneshot::Sender<Said>>>,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            number: events::number(),
            generation: generation(),
            asked: Mutex::default(),
        }
    }
}

impl Questions {
    /// Their number, as [`events`] gives it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next question that is still asked; none in a child of the process that made them.
    pub fn take(&self) -> Option<Question> {
        if self.generation != generation() {
            return None;
        }
        let mut asked = self.lock();
        while let Some(answer) = asked.pop_front() {
            if !answer.is_closed() {
                return Some(Question {
                    answer: Some(answer),
                    generation: self.generation,
                });
            }
        }
        None
    }

    /// Asks. To be given up by dropping it, at any time.
    ///
    /// # Errors
    ///
    /// What Python says.
    pub(crate) async fn ask(&self) -> Said {
        let (answer, answered) = oneshot::channel();
        {
            let mut asked = self.lock();
            // Those that were given up, which a function that hangs leaves behind.
            asked.retain(|answer| !answer.is_closed());
            asked.push_back(answer);
        }
        events::tell(self.number);
        let what = "the function that gives its parameters";
        let answered = waiting_for(what, answered).await;
        answered.unwrap_or_else(|_dropped| {
            Err(ControlError::NotReady {
                what: "the function that gives the connection's parameters was not called".into(),
            })
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<Said>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock, as a thread does that is caught by a fork.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.lock()
    }
}

/// One question. Dropped, it is answered by that.
#[derive(Debug)]
pub struct Question {
    /// There, until it is answered.
    answer: Option<oneshot::Sender<Said>>,
    generation: u64,
}

impl Question {
    /// Answers it, if it is still asked, and in this process.
    pub fn answer(mut self, said: Said) {
        if self.generation == generation() {
            // Given up meanwhile, perhaps.
            let _told = self.answer.take().map(|answer| answer.send(said));
            plane::wake();
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else {
            return;
        };
        if self.generation == generation() {
            drop(answer);
            plane::wake();
        } else {
            // Who waits for it is of the parent: nothing of it is touched.
            mem::forget(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::conninfo::Surroundings;
    use crate::conninfo::given::Given;
    use crate::control::timer::timeout;

    #[test]
    fn a_question_is_answered_and_one_that_was_given_up_is_not_taken() {
        let questions = Arc::new(Questions::default());
        let (gives_up, asks) = (Arc::clone(&questions), Arc::clone(&questions));
        assert!(plane::run(async move { timeout(Duration::ZERO, gives_up.ask()).await }).is_err());
        assert!(questions.take().is_none());
        let answers = std::thread::spawn(move || {
            let conninfo = Conninfo::new(Given::default(), Surroundings::default());
            let question = loop {
                match questions.take() {
                    Some(question) => break question,
                    None => std::thread::yield_now(),
                }
            };
            question.answer(Ok(Arc::new(conninfo)));
        });
        assert!(plane::run(async move { asks.ask().await }).is_ok());
        answers.join().unwrap();
    }

    #[test]
    fn a_question_that_is_dropped_is_answered() {
        let questions = Arc::new(Questions::default());
        let asks = Arc::clone(&questions);
        let drops = std::thread::spawn(move || {
            while questions.take().is_none() {
                std::thread::yield_now();
            }
        });
        assert!(plane::run(async move { asks.ask().await }).is_err());
        drops.join().unwrap();
    }
}
