//! Every run of the lease protocol, up to a bound: two processes that may be paused at any point, a network that delays
//! and loses messages at will, and a server that follows the statements of `control::table`.
//!
//! What is looked for in every state: nobody believes in a lease that the server has given to another, and no guarded
//! write is accepted after one with a greater fence. The holder's arithmetic is the crate's own (`control::term`).
//! Each of the rules is turned off once, to see that the search would find what it prevents.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use _native::control::term::Term;

/// Time goes in steps; a lease lasts two.
const STEP: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(20);
const STEPS: u32 = 4;
const CLIENTS: usize = 2;
const ASKS: u8 = 1;
const IN_FLIGHT: usize = 2;

/// The protocol, and what becomes of it without one of its rules.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    All,
    /// The holder counts from when the answer came.
    CountsFromTheAnswer,
    /// A write is not checked on the server.
    Unguarded,
    /// A takeover does not wait for a transaction that has passed the guard.
    GuardTakesNoLock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Acquire {
        client: usize,
        ask: u8,
        sent: u32,
    },
    Granted {
        client: usize,
        ask: u8,
        sent: u32,
        fence: u8,
    },
    Renew {
        client: usize,
        fence: u8,
        sent: u32,
    },
    Renewed {
        client: usize,
        fence: u8,
        sent: u32,
    },
    Refused {
        client: usize,
        fence: u8,
    },
    Release {
        client: usize,
        fence: u8,
    },
    /// A transaction: the guard when it is first carried out, the commit when it is carried out again.
    Write {
        client: usize,
        fence: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    Idle,
    Asking(u8),
    Held {
        fence: u8,
        term: Term,
    },
    /// It was told; what it had begun to write may still be under way.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u32,
    fence: u8,
    /// Who holds it, by which fence, and until when.
    row: Option<(usize, u8, u32)>,
    clients: [Client; CLIENTS],
    asks: [u8; CLIENTS],
    wire: BTreeSet<Message>,
    /// The fence of each one's transaction that has passed the guard and not committed.
    guarded: [Option<u8>; CLIENTS],
    written: u8,
    fault: Option<&'static str>,
}

fn at(step: u32) -> Duration {
    STEP * step
}

impl World {
    fn new() -> Self {
        Self {
            now: 0,
            fence: 0,
            row: None,
            clients: [Client::Idle; CLIENTS],
            asks: [0; CLIENTS],
            wire: BTreeSet::new(),
            guarded: [None; CLIENTS],
            written: 0,
            fault: None,
        }
    }

    fn then(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    fn believes(&self, client: usize) -> bool {
        matches!(self.clients[client], Client::Held { term, .. } if !term.is_over(at(self.now)))
    }

    fn look(&mut self) {
        if (0..CLIENTS).filter(|&client| self.believes(client)).count() > 1 {
            self.fault = Some("two believe");
        }
    }

    /// Every world that may come next. A pause is a client that does not step while time does.
    fn next(&self, rule: Rule) -> Vec<Self> {
        let mut worlds = Vec::new();
        if self.now < STEPS {
            worlds.push(self.then(|world| world.now += 1));
        }
        for message in &self.wire {
            // Lost, or arrived.
            worlds.push(self.then(|world| {
                world.wire.remove(message);
            }));
            worlds.push(self.then(|world| world.arrive(*message, rule)));
        }
        for client in 0..CLIENTS {
            if let Some(fence) = self.guarded[client] {
                // Committed, or rolled back because its connection has gone.
                worlds.push(self.then(|world| {
                    world.guarded[client] = None;
                    world.write(fence);
                }));
                worlds.push(self.then(|world| world.guarded[client] = None));
            }
            self.steps_of(client, &mut worlds);
        }
        for world in &mut worlds {
            world.look();
        }
        worlds
    }

    fn send(&mut self, message: Message) {
        self.wire.insert(message);
    }

    fn steps_of(&self, client: usize, worlds: &mut Vec<Self>) {
        let has_room = self.wire.len() < IN_FLIGHT;
        let now = self.now;
        match self.clients[client] {
            Client::Idle if self.asks[client] < ASKS && has_room => {
                let ask = self.asks[client];
                worlds.push(self.then(|world| {
                    world.asks[client] += 1;
                    world.clients[client] = Client::Asking(ask);
                    world.send(Message::Acquire {
                        client,
                        ask,
                        sent: now,
                    });
                }));
            }
            // The attempt had its deadline; it may still be granted.
            Client::Asking(_) => {
                worlds.push(self.then(|world| world.clients[client] = Client::Idle));
            }
            Client::Held { fence, term } => {
                if term.is_over(at(now)) {
                    worlds.push(self.then(|world| world.clients[client] = Client::Lost));
                } else if has_room {
                    worlds.push(self.then(|world| {
                        world.send(Message::Renew {
                            client,
                            fence,
                            sent: now,
                        });
                    }));
                    worlds.push(self.then(|world| {
                        world.clients[client] = Client::Lost;
                        world.send(Message::Release { client, fence });
                    }));
                }
                // It may have looked at its lease long ago: a write is begun at any time.
                if has_room {
                    worlds.push(self.then(|world| world.send(Message::Write { client, fence })));
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, fence: u8) {
        if fence < self.written {
            self.fault = Some("a stale write");
        }
        self.written = self.written.max(fence);
    }

    fn arrive(&mut self, message: Message, rule: Rule) {
        self.wire.remove(&message);
        let ttl = u32::try_from(TTL.as_secs() / STEP.as_secs()).unwrap();
        match message {
            Message::Acquire { client, ask, sent } => {
                let is_free = self.row.is_none_or(|(_, _, expires)| expires <= self.now);
                let is_locked =
                    self.guarded.iter().any(Option::is_some) && rule != Rule::GuardTakesNoLock;
                if is_free && !is_locked {
                    self.fence += 1;
                    let fence = self.fence;
                    self.row = Some((client, fence, self.now + ttl));
                    self.send(Message::Granted {
                        client,
                        ask,
                        sent,
                        fence,
                    });
                }
            }
            Message::Granted {
                client,
                ask,
                sent,
                fence,
            } => {
                if self.clients[client] == Client::Asking(ask) {
                    let from = if rule == Rule::CountsFromTheAnswer {
                        self.now
                    } else {
                        sent
                    };
                    let term = Term::new(TTL, at(from));
                    self.clients[client] = Client::Held { fence, term };
                }
            }
            Message::Renew {
                client,
                fence,
                sent,
            } => {
                let holder = self.row.filter(|&(_, held, _)| held == fence);
                if let Some((owner, held, _)) = holder {
                    self.row = Some((owner, held, self.now + ttl));
                    self.send(Message::Renewed {
                        client,
                        fence,
                        sent,
                    });
                } else {
                    self.send(Message::Refused { client, fence });
                }
            }
            Message::Renewed {
                client,
                fence,
                sent,
            } => {
                if let Client::Held {
                    fence: held,
                    mut term,
                } = self.clients[client]
                    && held == fence
                    && !term.is_over(at(self.now))
                {
                    term.renewed(at(sent));
                    self.clients[client] = Client::Held { fence, term };
                }
            }
            Message::Refused { client, fence } => {
                if matches!(self.clients[client], Client::Held { fence: held, .. } if held == fence)
                {
                    self.clients[client] = Client::Lost;
                }
            }
            Message::Release { client, fence } => {
                if self
                    .row
                    .is_some_and(|(owner, held, _)| owner == client && held == fence)
                {
                    self.row = None;
                }
            }
            Message::Write { client, fence } => {
                let is_right = self
                    .row
                    .is_some_and(|(owner, held, _)| owner == client && held == fence);
                if rule == Rule::Unguarded {
                    self.write(fence);
                } else if is_right && self.guarded[client].is_none() {
                    self.guarded[client] = Some(fence);
                }
            }
        }
    }
}

/// Looks at every world that can be reached: how many there are, and the first fault that is met.
fn explore(rule: Rule) -> (usize, Option<&'static str>) {
    let mut seen = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    while let Some(world) = open.pop() {
        for next in world.next(rule) {
            if next.fault.is_some() {
                return (seen.len(), next.fault);
            }
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    (seen.len(), None)
}

#[test]
fn nobody_believes_in_anothers_lease_and_no_stale_write_is_accepted() {
    let (worlds, fault) = explore(Rule::All);
    assert_eq!(fault, None);
    assert!(worlds > 10_000, "only {worlds} worlds were looked at");
}

#[test]
fn counting_from_the_answer_would_let_two_believe() {
    assert_eq!(explore(Rule::CountsFromTheAnswer).1, Some("two believe"));
}

#[test]
fn without_the_guard_a_paused_holder_would_write() {
    assert_eq!(explore(Rule::Unguarded).1, Some("a stale write"));
}

#[test]
fn without_its_lock_the_guard_would_come_too_early() {
    assert_eq!(explore(Rule::GuardTakesNoLock).1, Some("a stale write"));
}
