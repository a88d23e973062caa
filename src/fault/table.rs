//! Looking an error up in the rows.

use std::cell::OnceCell;

use super::error_info::{ErrorInfo, Phase, ReadOnly};
use super::kind::Fault;
use super::rows::{PRICES, Price, ROWS, Row, Rule, Test};
use super::statement::speaks_of_another;
use super::verdict::{Cost, Outcome, Retry, Verdict};

/// The drivers whose SQLSTATEs and words are those of `PostgreSQL`.
const DRIVERS: [&str; 5] = ["psycopg2", "psycopg", "pg8000", "asyncpg", "poolproof"];

/// What libpq and psycopg begin a failed connection attempt with.
const ATTEMPTS: [&str; 7] = [
    "connection to server ",
    "connection failed: ",
    "connection is bad: ",
    "could not connect to server",
    "could not translate host name ",
    "connection timeout expired",
    "- host: ",
];

/// A fault, with the cause that the row names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// What the error means.
    pub fault: Fault,
    /// The cause that the matching row gives; the fault's own sentence when no row matched.
    pub cause: &'a str,
    /// The place in [`ROWS`] of the row that matched, if it was one of them.
    pub row: Option<usize>,
    price: &'static Price,
    phase: Phase,
    answered: bool,
    gone: bool,
    deadline: bool,
}

impl PartialEq for Price {
    fn eq(&self, other: &Self) -> bool {
        self.fault == other.fault
    }
}

impl Eq for Price {}

impl Finding<'_> {
    /// What it costs and what may be done.
    ///
    /// `sees_sockets` says whether the pool looks at a socket before it hands it on; if it
    /// does not, faults that strike all connections at once cost them all.
    pub fn verdict(&self, sees_sockets: bool) -> Verdict {
        let (retry, outcome) = follow(self.price.rule, self.phase, self.answered);
        Verdict {
            cost: self.cost(sees_sockets),
            retry,
            outcome,
        }
    }

    fn cost(&self, sees_sockets: bool) -> Cost {
        let listed = if sees_sockets {
            self.price.cost
        } else {
            self.price.blind
        };
        match (listed, self.phase) {
            // There is no connection yet that could be discarded.
            (_, Phase::Connect) => Cost::Nothing,
            // It was shut by this process: that says nothing about the others.
            (Cost::Nothing, _) if self.deadline && !self.gone => Cost::Nothing,
            (_, _) if self.deadline => Cost::Connection,
            // SQLAlchemy replaces everything when a ping of its own finds a dead connection.
            (Cost::Connection, Phase::Ping) if !sees_sockets => Cost::Generation,
            // Whatever the fault, a connection that is gone is gone.
            (Cost::Nothing, _) if self.gone && sees_sockets => Cost::Connection,
            (Cost::Nothing, _) if self.gone => Cost::Generation,
            (cost, _) => cost,
        }
    }

    /// The sentence about the fault.
    fn meaning(&self) -> &'static str {
        self.price.meaning
    }
}

fn follow(rule: Rule, phase: Phase, answered: bool) -> (Retry, Outcome) {
    let early = matches!(phase, Phase::Connect | Phase::Ping);
    let (retry, outcome) = match rule {
        Rule::Always(retry, outcome) => (retry, outcome),
        Rule::ByPhase => match phase {
            Phase::Connect | Phase::Ping => (Retry::Reconnect, Outcome::NotDone),
            Phase::Begin | Phase::Statement | Phase::Rollback => {
                (Retry::WholeUnit, Outcome::NotDone)
            }
            Phase::Commit | Phase::Unknown => (Retry::Never, Outcome::Unknown),
        },
        Rule::IfAnswered if answered => (Retry::Never, Outcome::NotDone),
        Rule::IfAnswered => (Retry::Never, Outcome::Unknown),
    };
    // Nothing of the caller's is under way yet.
    (retry, if early { Outcome::NotDone } else { outcome })
}

/// Says what an error means.
///
/// `own` are rows of the application's, which are looked at before those of the table.
pub fn classify<'a>(info: &ErrorInfo<'_>, own: &'a [Row<'a>]) -> Finding<'a> {
    let looked = Looked::at(info);
    let mut place = None;
    let row = own.iter().find(|row| looked.fits(row)).or_else(|| {
        place = ROWS.iter().position(|row| looked.fits(row));
        place.and_then(|place| ROWS.get(place))
    });
    let fault = match row {
        Some(row) => row.fault,
        None if info.closed || info.disconnect => Fault::ConnectionLost,
        None => Fault::None,
    };
    let price = price_of(fault);
    Finding {
        fault,
        cause: row.map_or(price.meaning, |row| row.cause),
        row: place,
        price,
        phase: info.phase,
        answered: info.sqlstate.is_some(),
        gone: info.closed || info.disconnect,
        deadline: info.deadline,
    }
}

/// What a fault costs where it was seen without an error, and the sentence about it.
pub fn appraise(fault: Fault, phase: Phase, sees_sockets: bool) -> (Verdict, &'static str) {
    let price = price_of(fault);
    let found = Finding {
        fault,
        cause: price.meaning,
        row: None,
        price,
        phase,
        answered: false,
        gone: false,
        deadline: false,
    };
    (found.verdict(sees_sockets), found.meaning())
}

fn price_of(fault: Fault) -> &'static Price {
    // A test shows that every fault has its price; the first entry is the harmless one.
    PRICES
        .iter()
        .find(|price| price.fault == fault)
        .unwrap_or(&PRICES[0])
}

/// A message as the rows look at it: what stands in double quotes is taken out, because there
/// the application's own words stand, and runs of blanks are one.
struct Text {
    first: String,
    attempts: Vec<String>,
    connecting: bool,
}

impl Text {
    fn of(message: &str) -> Self {
        let lines: Vec<String> = message.lines().map(unquoted).collect();
        let attempts: Vec<String> = lines
            .iter()
            .filter(|line| ATTEMPTS.iter().any(|attempt| line.starts_with(attempt)))
            .cloned()
            .collect();
        let first = lines.into_iter().next().unwrap_or_default();
        let connecting = ATTEMPTS.iter().any(|attempt| first.starts_with(attempt));
        Self {
            first,
            attempts,
            connecting,
        }
    }

    /// A line that reports a failed connection attempt contains this.
    fn refuses(&self, what: &str) -> bool {
        self.attempts.iter().any(|line| line.contains(what))
    }
}

/// A line without what stands in double quotes and with single blanks: what rows look at.
pub fn unquoted(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut inside = false;
    for c in line.trim().chars() {
        if c == '"' {
            inside = !inside;
            out.push(c);
        } else if !(inside || c.is_whitespace() && out.ends_with(' ')) {
            out.push(if c.is_whitespace() { ' ' } else { c });
        }
    }
    out
}

/// An error as the rows look at it: its facts, and its words where a row asks for them.
struct Looked<'a> {
    info: &'a ErrorInfo<'a>,
    /// Whether the driver is one of those whose SQLSTATEs and words are those of `PostgreSQL`.
    known: bool,
    text: OnceCell<Text>,
}

impl<'a> Looked<'a> {
    fn at(info: &'a ErrorInfo<'a>) -> Self {
        Self {
            info,
            known: DRIVERS.contains(&info.driver),
            text: OnceCell::new(),
        }
    }

    fn text(&self) -> &Text {
        self.text.get_or_init(|| Text::of(self.info.message))
    }

    fn fits(&self, row: &Row<'_>) -> bool {
        row.tests.iter().all(|test| self.passes(test, row))
    }

    /// The server's SQLSTATE counts.
    fn is_of_a_server(&self, row: &Row<'_>) -> bool {
        self.known || row.has(|test| matches!(test, Test::Driver(_)))
    }

    /// The words count: the server's own, which may quote the application's, only beside a SQLSTATE that the row
    /// names; the driver's only where there is no SQLSTATE.
    fn has_words(&self, row: &Row<'_>) -> bool {
        let names_code = || row.has(|test| matches!(test, Test::Code(_) | Test::Class(_)));
        self.is_of_a_server(row)
            && ((self.info.dbapi && self.info.sqlstate.is_none()) || names_code())
    }

    fn passes(&self, test: &Test<'_>, row: &Row<'_>) -> bool {
        let info = self.info;
        let is_code = |fits: &dyn Fn(&str) -> bool| {
            info.sqlstate.is_some_and(fits) && self.is_of_a_server(row)
        };
        let first = |fits: &dyn Fn(&Text) -> bool| self.has_words(row) && fits(self.text());
        match *test {
            Test::Code(code) => is_code(&|own| own == code),
            Test::Class(class) => is_code(&|own| own.starts_with(class)),
            Test::Is(what) => first(&|text| text.first == what),
            Test::Starts(what) => first(&|text| !text.connecting && text.first.starts_with(what)),
            Test::Has(what) => first(&|text| !text.connecting && text.first.contains(what)),
            Test::Refusal(what) => first(&|text| text.refuses(what)),
            Test::Says(what) => first(&|text| text.first.contains(what) || text.refuses(what)),
            Test::Driver(driver) => info.driver == driver,
            Test::Exception(class) => info.classes.contains(&class),
            Test::Interrupts(class) => {
                info.classes.contains(&class) || info.masked.contains(&class)
            }
            Test::Interruption => info.interruption,
            Test::Deadline => info.deadline,
            Test::Survived => info.survived,
            Test::Busy => info.busy,
            Test::Connecting => info.phase == Phase::Connect,
            Test::Through(function) => info.frames.contains(&function),
            Test::Raw => !info.dbapi && info.by_driver,
            Test::Foreign => !info.dbapi,
            Test::AnotherStatement => speaks_of_another(info.message),
            Test::ReadOnlyChosen => info.read_only == ReadOnly::Chosen,
            Test::ReadOnlyAlways => info.read_only == ReadOnly::Always,
        }
    }
}
