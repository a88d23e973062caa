//! Crowds at the ledger, in simulated time: whom it serves when more come than it can serve, or just as many.
//!
//! Time is an argument of the ledger, so a minute of a crowd takes milliseconds here and ends the same each time.
//! Crowds of threads and greenlets on the pool itself are measured by `bench/overload.py`.
#![cfg(not(loom))]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test reads the clock where it likes, and may fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use _native::pool::Caller;
use _native::pool::grant::Slot;
use _native::pool::ledger::{Ledger, RanOut, Release};
use _native::pool::limits::Limits;

const SLOTS: usize = 5;
const HOLD: Duration = ms(50);
/// What the slots can serve in a second.
const CAPACITY: u64 = 100;
const FIVE: Limits = Limits {
    kept: Some(SLOTS),
    total: Some(SLOTS),
    lifo: false,
    waiting: None,
    by_thread: false,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// This caller asks.
    Asks(u64),
    /// This one, who has waited since then, has no time left.
    RunsOut(u64, Instant),
    /// This one gives its slot back.
    GivesBack(u64),
    /// The holders keep what they have for so much longer.
    Hiccup(Duration),
}

/// What a caller does, each time.
#[derive(Clone, Copy)]
struct Kind {
    /// As long as it waits, and has a use for its answer.
    patience: Duration,
    /// When it comes again, once it has been served or refused; else when the next of its kind comes.
    again: Again,
}

#[derive(Clone, Copy)]
enum Again {
    /// So long after its end, in a crowd of fixed size.
    After(Duration),
    /// At random, so many a second, whatever becomes of it.
    Random(f64),
}

/// What became of the callers of one patience, in each second.
#[derive(Clone, Default)]
struct Count {
    in_time: u64,
    late: u64,
    refused: u64,
}

struct Crowd {
    ledger: Ledger,
    start: Instant,
    now: Instant,
    number: u64,
    random: u64,
    events: BTreeSet<(Instant, u64, Event)>,
    kinds: BTreeMap<u64, Kind>,
    asked: BTreeMap<u64, Instant>,
    waits: BTreeMap<u64, u64>,
    holds: BTreeMap<u64, Slot>,
    seconds: BTreeMap<(Duration, u64), Count>,
    /// Times at which the newest began to be served first.
    turns: u64,
}

impl Crowd {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            ledger: Ledger::new(FIVE),
            start,
            now: start,
            number: 0,
            random: 3,
            events: BTreeSet::new(),
            kinds: BTreeMap::new(),
            asked: BTreeMap::new(),
            waits: BTreeMap::new(),
            holds: BTreeMap::new(),
            seconds: BTreeMap::new(),
            turns: 0,
        }
    }

    /// So many callers, of whom each comes again after a pause.
    fn closed(mut self, callers: u64, patience: Duration, pause: Duration) -> Self {
        let again = Again::After(pause);
        for n in 0..callers {
            self.comes_at(self.start + ms(n), Kind { patience, again });
        }
        self
    }

    /// Callers who come at random, so many a second.
    fn open(mut self, each_second: f64, patience: Duration) -> Self {
        let again = Again::Random(each_second);
        self.comes_at(self.start, Kind { patience, again });
        self
    }

    /// Once, the holders keep their slots for so long.
    fn hiccup(mut self, at: Duration, lasts: Duration) -> Self {
        self.at(self.start + at, Event::Hiccup(lasts));
        self
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.number += 1;
        self.events.insert((when, self.number, event));
    }

    fn comes_at(&mut self, when: Instant, kind: Kind) {
        let caller = self.number;
        self.kinds.insert(caller, kind);
        self.at(when, Event::Asks(caller));
    }

    fn comes_again(&mut self, caller: u64) {
        if let Again::After(pause) = self.kinds[&caller].again {
            // Not two at the same instant: no thread is as punctual.
            let jitter = Duration::from_nanos(self.next_random() % 1_000_000);
            self.at(self.now + pause + jitter, Event::Asks(caller));
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }

    #[allow(clippy::cast_precision_loss, reason = "it is 53 bits")]
    fn gap(&mut self, each_second: f64) -> Duration {
        let uniform = (self.next_random() + 1) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() / each_second)
    }

    fn play(mut self, seconds: u64) -> Self {
        let end = self.start + Duration::from_secs(seconds);
        let mut newest_first = false;
        while let Some((when, _, event)) = self.events.pop_first() {
            if when >= end {
                break;
            }
            self.now = when;
            match event {
                Event::Asks(caller) => self.asks(caller),
                Event::RunsOut(caller, since) if self.asked.get(&caller) == Some(&since) => {
                    self.runs_out(caller);
                }
                Event::RunsOut(..) => {}
                Event::GivesBack(caller) => self.gives_back(caller),
                Event::Hiccup(lasts) => self.keep_for(lasts),
            }
            let now_newest_first = self.ledger.snapshot(self.now).newest_first;
            self.turns += u64::from(now_newest_first && !newest_first);
            newest_first = now_newest_first;
        }
        self
    }

    fn asks(&mut self, caller: u64) {
        let kind = self.kinds[&caller];
        if let Again::Random(each_second) = kind.again {
            let gap = self.gap(each_second);
            self.comes_at(self.now + gap, kind);
        }
        self.asked.insert(caller, self.now);
        if let Some(grant) = self.ledger.acquire(caller, self.now) {
            self.holds_now(caller, grant.slot);
            return;
        }
        let limit = Some(kind.patience);
        let id = self.ledger.wait(Caller::thread(caller), limit, self.now);
        self.waits.insert(id, caller);
        self.at(self.now + kind.patience, Event::RunsOut(caller, self.now));
    }

    fn holds_now(&mut self, caller: u64, slot: Slot) {
        self.holds.insert(caller, slot);
        self.at(self.now + HOLD, Event::GivesBack(caller));
    }

    fn runs_out(&mut self, caller: u64) {
        let Some((&id, _)) = self.waits.iter().find(|&(_, &one)| one == caller) else {
            return;
        };
        self.waits.remove(&id);
        let ended = self.ledger.run_out(id, Caller::thread(caller), self.now);
        assert_eq!(ended, RanOut::Nothing);
        self.count(caller).refused += 1;
        self.comes_again(caller);
    }

    fn gives_back(&mut self, caller: u64) {
        let slot = self.holds.remove(&caller).unwrap();
        let took = self.now - self.asked[&caller];
        let in_time = took <= self.kinds[&caller].patience;
        let count = self.count(caller);
        count.in_time += u64::from(in_time);
        count.late += u64::from(!in_time);
        self.asked.remove(&caller);
        self.comes_again(caller);
        match self.ledger.release(slot, self.now) {
            Release::Offered(id) => {
                let next = self.waits.remove(&id).unwrap();
                let grant = self.ledger.accept(id, self.now).unwrap();
                self.holds_now(next, grant.slot);
            }
            Release::Kept => {}
            other => panic!("{other:?}"),
        }
    }

    fn keep_for(&mut self, lasts: Duration) {
        let (kept, others): (BTreeSet<_>, _) = std::mem::take(&mut self.events)
            .into_iter()
            .partition(|&(_, _, event)| matches!(event, Event::GivesBack(_)));
        self.events = others;
        for (when, _, event) in kept {
            self.at(when + lasts, event);
        }
    }

    fn count(&mut self, caller: u64) -> &mut Count {
        let second = (self.now - self.start).as_secs();
        let patience = self.kinds[&caller].patience;
        self.seconds.entry((patience, second)).or_default()
    }

    /// What became of the callers of this patience from one second to another.
    fn between(&self, patience: Duration, from: u64, to: u64) -> Count {
        let mut sum = Count::default();
        for (_, count) in self.seconds.range((patience, from)..(patience, to)) {
            sum.in_time += count.in_time;
            sum.late += count.late;
            sum.refused += count.refused;
        }
        sum
    }
}

#[test]
fn a_crowd_that_order_could_serve_has_its_order_back_after_a_hiccup() {
    for (callers, patience) in [(36, ms(500)), (36, ms(1000)), (36, ms(2000)), (48, ms(500))] {
        let lasts = patience * 6 / 5;
        let crowd = Crowd::new()
            .closed(callers, patience, ms(50))
            .hiccup(ms(2000), lasts)
            .play(30);
        let before = crowd.between(patience, 0, 2);
        assert_eq!(before.refused, 0, "nobody had to be refused");
        let during = crowd.between(patience, 2, 30);
        assert!(during.refused > 0, "the hiccup made nobody wait too long");
        // Four times as long as one who waits, and it is over.
        let settled = 2 + (lasts + patience * 4).as_secs() + 1;
        let after = crowd.between(patience, settled, 30);
        assert_eq!(after.refused, 0, "{callers} who have {patience:?}");
        assert_eq!(after.late, 0, "{callers} who have {patience:?}");
        assert!(after.in_time >= (30 - settled) * CAPACITY * 98 / 100);
    }
}

#[test]
fn a_hurried_caller_now_and_then_costs_a_crowd_little() {
    for each_second in [1.0, 5.0] {
        let (patience, hurry) = (ms(500), ms(50));
        let crowd = Crowd::new()
            .closed(36, patience, ms(50))
            .open(each_second, hurry)
            .play(60);
        let crowds = crowd.between(patience, 0, 60);
        let hurried = crowd.between(hurry, 0, 60);
        assert!(hurried.refused > 20, "{} were refused", hurried.refused);
        assert!(
            crowds.refused <= hurried.refused,
            "{} of the crowd were refused for {} in a hurry",
            crowds.refused,
            hurried.refused
        );
    }
}

#[test]
fn callers_in_a_hurry_are_served_where_they_are_the_overload() {
    let (patience, hurry) = (ms(400), ms(100));
    let crowd = Crowd::new()
        .open(500.0, hurry)
        .open(20.0, patience)
        .play(60);
    let hurried = crowd.between(hurry, 0, 60);
    let patient = crowd.between(patience, 0, 60);
    let in_time = hurried.in_time + patient.in_time;
    assert!(in_time >= 60 * CAPACITY * 85 / 100, "{in_time}");
    assert!(hurried.in_time >= patient.in_time);
}

#[test]
fn under_every_overload_most_of_capacity_answers_in_time() {
    let patience = ms(400);
    for load in [1.2, 1.5, 2.0, 10.0] {
        let each_second = load * 100.0;
        let open = Crowd::new().open(each_second, patience).play(60);
        let in_time = open.between(patience, 0, 60).in_time;
        assert!(in_time >= 60 * CAPACITY * 90 / 100, "{load} ×: {in_time}");
    }
    for callers in [48, 80, 400] {
        let closed = Crowd::new().closed(callers, patience, ms(0)).play(60);
        let in_time = closed.between(patience, 0, 60).in_time;
        assert!(in_time >= 60 * CAPACITY * 95 / 100, "{callers}: {in_time}");
    }
}

#[test]
fn an_overload_that_lasts_does_not_alternate_between_the_orders() {
    // Newest first keeps the queue short here, and looks as if order could serve it.
    let patience = ms(400);
    let crowd = Crowd::new().open(150.0, patience).play(60);
    assert!(crowd.turns < 15, "{} times newest first", crowd.turns);
}

#[test]
fn patient_callers_are_not_refused_for_hurried_ones() {
    let (patience, hurry) = (Duration::from_secs(30), ms(200));
    for each_second in [3.0, 150.0] {
        let crowd = Crowd::new()
            .closed(60, patience, ms(0))
            .open(each_second, hurry)
            .play(120);
        assert_eq!(crowd.between(patience, 0, 120).refused, 0);
        let hurried = crowd.between(hurry, 0, 120);
        // In order of arrival hardly any would be served.
        assert!(hurried.in_time * 3 > hurried.refused);
    }
}
