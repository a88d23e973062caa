//! Looking names up: each name by a thread of its own, so that one whose server is silent delays no other.
//!
//! The system's resolver cannot be interrupted, and may take half a minute. Who asks for a name that is being looked up
//! waits for the same answer. Where no thread is to be had at this moment, or the answer is late, the addresses that
//! the name had last will do: a lease on a server that is there is not lost for want of its name.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::plane;
use super::timer::timeout;
use crate::process::per_process::PerProcess;
use crate::process::threads;

/// How long an answer may take where there is an earlier one.
const LATE: Duration = Duration::from_millis(500);
/// Names that are looked up at once, at most: each has a thread.
const MOST: usize = 32;

/// The addresses, or what the system says.
type Answer = Result<Vec<IpAddr>, String>;

#[derive(Debug, Default)]
struct Names {
    under_way: HashMap<String, watch::Receiver<Option<Answer>>>,
    known: HashMap<String, Vec<IpAddr>>,
}

static NAMES: PerProcess<Mutex<Names>> = PerProcess::new();

fn names() -> MutexGuard<'static, Names> {
    let names = match NAMES.get_or_make(|| Ok::<_, Infallible>(Mutex::default())) {
        Ok(names) => names,
        Err(never) => match never {},
    };
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses of `name`.
///
/// # Errors
///
/// What the system says.
pub(crate) async fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    let known = names().known.get(name).cloned();
    let asked_for = name.to_owned();
    let asked = begin(name, move || {
        let found = (asked_for.as_str(), 0).to_socket_addrs();
        let found = found.map(|found| found.map(|address| address.ip()).collect());
        found.map_err(|error| error.to_string())
    });
    first(asked, known).await
}

async fn first(
    asked: io::Result<watch::Receiver<Option<Answer>>>,
    known: Option<Vec<IpAddr>>,
) -> io::Result<Vec<IpAddr>> {
    let mut answer = match (asked, &known) {
        (Ok(answer), _) => answer,
        (Err(_shortage), Some(known)) => return Ok(known.clone()),
        (Err(shortage), None) => return Err(shortage),
    };
    let arrived = answer.wait_for(Option::is_some);
    let arrived = match known {
        Some(known) => match timeout(LATE, arrived).await {
            Ok(arrived) => arrived,
            Err(_late) => return Ok(known),
        },
        None => arrived.await,
    };
    match arrived.as_deref() {
        Ok(Some(Ok(found))) => Ok(found.clone()),
        Ok(Some(Err(why))) => Err(io::Error::other(why.clone())),
        Ok(None) | Err(_) => Err(io::Error::other("its name was not looked up")),
    }
}

/// Has a thread look a name up, unless one does.
fn begin(
    name: &str,
    look: impl FnOnce() -> Answer + Send + 'static,
) -> io::Result<watch::Receiver<Option<Answer>>> {
    let (told, answer) = {
        let mut names = names();
        if let Some(answer) = names.under_way.get(name) {
            return Ok(answer.clone());
        }
        if names.under_way.len() >= MOST {
            return Err(io::Error::other(format!(
                "{MOST} other names are being looked up"
            )));
        }
        let (told, answer) = watch::channel(None);
        names.under_way.insert(name.to_owned(), answer.clone());
        (told, answer)
    };
    let (asked, name) = (Asked(name.to_owned()), name.to_owned());
    threads::spawn("poolproof-names", move || {
        let found = look();
        if let Ok(found) = &found {
            names().known.insert(name, found.clone());
        }
        // Before it is told: who asks then asks anew.
        drop(asked);
        told.send_replace(Some(found));
        plane::wake();
    })?;
    Ok(answer)
}

/// A name that is being looked up, until this is dropped.
struct Asked(String);

impl Drop for Asked {
    fn drop(&mut self) {
        names().under_way.remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn many_names_whose_server_is_silent_delay_no_other() {
        let mut silent = Vec::new();
        for n in 0..8 {
            let (end, wait) = mpsc::channel::<()>();
            silent.push(end);
            let name = format!("silent {n}");
            begin(&name, move || {
                let _ended = wait.recv();
                Err("silent".into())
            })
            .unwrap();
        }
        assert!(!plane::run(addresses("localhost")).unwrap().is_empty());
    }

    #[test]
    fn a_late_answer_and_a_want_of_threads_leave_what_is_known() {
        let (_end, wait) = mpsc::channel::<()>();
        let late = begin("late", move || {
            let _ended = wait.recv();
            Err("late".into())
        });
        assert_eq!(plane::run(first(late, Some(vec![HERE]))).unwrap(), [HERE]);
        let none = || Err(io::Error::from(io::ErrorKind::WouldBlock));
        assert_eq!(plane::run(first(none(), Some(vec![HERE]))).unwrap(), [HERE]);
        assert!(plane::run(first(none(), None)).is_err());
    }

    #[test]
    fn who_asks_for_the_same_name_gets_the_same_answer() {
        let (end, wait) = mpsc::channel::<()>();
        let one = begin("same", move || {
            let _ended = wait.recv();
            Ok(vec![HERE])
        });
        let other = begin("same", || Err("asked twice".into()));
        drop(end);
        assert_eq!(plane::run(first(one, None)).unwrap(), [HERE]);
        assert_eq!(plane::run(first(other, None)).unwrap(), [HERE]);
    }
}
