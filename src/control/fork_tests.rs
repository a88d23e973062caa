//! Whatever lock a thread of the parent held at a fork: no verb of an inherited object waits for it in the child.
//!
//! Each test forks while it holds one lock itself, so a verb that takes it hangs, and the child is ended by its alarm.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Backends;
use super::error::ControlError;
use super::heartbeat::{Beats, Heartbeat, Rhythm};
use super::lease::{Lease, LeaseState, Terms};
use super::pending::pending;
use super::questions::Questions;
use super::server::{Server, make_ready};
use super::servers::Source;
use super::table::Table;
use super::{active, events, plane};
use crate::conninfo::given::Given;
use crate::conninfo::{Conninfo, Surroundings};
use crate::process::in_child;
use crate::socket::address::SocketAddress;

const SOON: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);

/// A server at a socket that is not there.
fn server() -> Arc<Server> {
    let mut given = Given::default();
    given.set("host", "/nowhere");
    given.set("user", "nobody");
    let conninfo = Conninfo::new(given, Surroundings::default());
    Arc::new(Server::new(Source::Known(Arc::new(conninfo)), 2).unwrap())
}

fn lease(server: &Arc<Server>) -> Arc<Lease> {
    let terms = Terms {
        name: "of a fork".into(),
        table: Table::named("none"),
        ttl: LONG,
        timeout: None,
        steal_grace: Duration::ZERO,
        max_silence: None,
        host: String::new(),
        pid: 1,
        thread: String::new(),
        application: String::new(),
        token: "t".into(),
    };
    Lease::ask(server, terms).unwrap().0
}

fn rhythm() -> Rhythm {
    Rhythm {
        statement: "SELECT".into(),
        values: Vec::new(),
        every: LONG,
        stale_after: None,
    }
}

#[test]
fn a_lease_whose_lock_was_held_is_of_no_use_and_no_harm() {
    let lease = lease(&server());
    let held = lease.lock();
    assert!(in_child(|| {
        lease.touch();
        lease.leave();
        lease.disown("no".into());
        lease.phase() == LeaseState::Over
            && lease.right().0 == 0
            && lease.counts().0 == 0
            && lease.trouble().blips == 0
            && !lease.is_ending()
            && !lease.is_ours()
    }));
    drop(held);
    lease.leave();
}

#[test]
fn a_heartbeat_whose_lock_was_held_is_still() {
    let (heartbeat, _first, _over) = Heartbeat::start(&server(), rhythm()).unwrap();
    let held = heartbeat.lock();
    assert!(in_child(|| {
        heartbeat.touch();
        heartbeat.leave();
        heartbeat.beats() == Beats::default()
    }));
    drop(held);
    heartbeat.leave();
}

#[test]
fn backends_whose_locks_were_held_are_left_to_the_parent() {
    let backends = Backends::new(server());
    let place = || SocketAddress::Unix(PathBuf::from("/nowhere"));
    let backend = backends.meet(1, place()).unwrap();
    let (_news, _fate) = (backends.hold(), backend.hold());
    assert!(in_child(|| {
        backend.fate().is_none()
            && matches!(backend.end(), Err(ControlError::Forked))
            && matches!(backends.meet(1, place()), Err(ControlError::Forked))
    }));
}

#[test]
fn an_answer_whose_locks_were_held_never_comes() {
    let (waiting, _promise) = pending::<u8>();
    let _held = waiting.hold();
    assert!(in_child(|| {
        waiting.announce();
        !waiting.wait(SOON) && waiting.take().is_none()
    }));
}

#[test]
fn questions_whose_lock_was_held_are_not_answered() {
    let questions = Questions::default();
    let _held = questions.hold();
    assert!(in_child(|| questions.take().is_none()));
}

#[test]
fn an_inherited_server_is_asked_nothing() {
    let server = server();
    assert!(in_child(|| {
        server.sessions() == 0
            && matches!(server.check(), Err(ControlError::Forked))
            && matches!(
                Heartbeat::start(&server, rhythm()),
                Err(ControlError::Forked)
            )
    }));
}

#[test]
fn news_roll_and_plane_are_made_anew() {
    let lease = lease(&server());
    let held = (events::hold(), active::hold(), plane::hold());
    assert!(in_child(|| {
        let number = events::number();
        events::tell(number);
        active::leave_all();
        events::wait(LONG) == [number]
            && active::wait_over(SOON)
            && plane::spawn(async {}, |_| {}).is_ok()
    }));
    drop(held);
    lease.leave();
}

#[test]
fn a_lease_whose_control_plane_has_gone_says_so_and_the_next_is_asked_for() {
    make_ready();
    // In a process of its own: other tests use theirs.
    assert!(in_child(|| {
        // It would be long about it.
        std::panic::set_hook(Box::new(|_panic| {}));
        let one = lease(&server());
        plane::break_down();
        let mut phase = one.phase();
        while phase == LeaseState::Waiting {
            std::thread::sleep(SOON);
            phase = one.phase();
        }
        let other = lease(&server());
        matches!(phase, LeaseState::Lost(why) if why.contains("has gone: broken down by a test"))
            && other.phase() == LeaseState::Waiting
    }));
}
