//! The fault table: the one place where its rows stand.
//!
//! [`PRICES`] says what each fault costs, [`ROWS`] how each is recognised. The first row all
//! of whose tests hold decides, so a narrow row stands above a wide one. This file is long
//! because it is one idea: the table.
//!
//! Three rules keep an application's own words from being taken for a fault, and hold for every
//! row without being written in it (see `table.rs`): a test of text holds only for a driver's
//! error that carries no SQLSTATE, unless the row names the SQLSTATE too; what stands in double
//! quotes is not looked at; and text and SQLSTATE count from drivers of `PostgreSQL` only.
//!
//! Messages are matched in English. In another language a fault is still found where the
//! driver gives a SQLSTATE or says that the connection is closed.

use std::fmt;

use super::kind::Fault;
use super::verdict::{Cost, Outcome, Retry};

/// How outcome and retry follow from what was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Always the same.
    Always(Retry, Outcome),
    /// Not done, except during a commit or a statement that may commit: then unknown. Nothing
    /// was sent while connecting, so connecting again is enough there.
    ByPhase,
    /// Not done if the server answered with a SQLSTATE; unknown if it did not.
    IfAnswered,
}

/// What a fault costs.
#[derive(Clone, Copy, Debug)]
pub struct Price {
    /// The fault.
    pub fault: Fault,
    /// The sentence that logs and documents show.
    pub meaning: &'static str,
    /// The cost on a pool that looks at its sockets before it hands them on.
    pub cost: Cost,
    /// The cost on a pool that does not.
    pub blind: Cost,
    /// What may be repeated, and what is known.
    pub rule: Rule,
}

/// One condition of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test<'a> {
    /// The SQLSTATE is this.
    Code(&'a str),
    /// The SQLSTATE begins with this.
    Class(&'a str),
    /// The first line of the message is exactly this.
    Is(&'a str),
    /// The first line begins with this.
    Starts(&'a str),
    /// The first line contains this.
    Has(&'a str),
    /// A line that reports a failed connection attempt contains this.
    Refusal(&'a str),
    /// The first line, or a line that reports a failed connection attempt, contains this.
    Says(&'a str),
    /// The driver is this.
    Driver(&'a str),
    /// The exception is of this class, named with its module.
    Exception(&'a str),
    /// The exception is of this class, or hides one of it that it met in the same call.
    Interrupts(&'a str),
    /// It went through this function of the driver.
    Through(&'a str),
    /// It is no error but an interruption of the caller, or hides one.
    Interruption,
    /// A deadline passed.
    Deadline,
    /// The server calls it an error, not a fatal one: the session goes on.
    Survived,
    /// The driver says that it is in the middle of a command.
    Busy,
    /// A connection was being opened.
    Connecting,
    /// It is no error class of the driver, but the driver's own code raised it.
    Raw,
    /// It is no error class of the driver.
    Foreign,
    /// A syntax error that is about another statement than the one it quotes.
    AnotherStatement,
    /// The application asked for read-only transactions itself.
    ReadOnlyChosen,
    /// The session was read-only when it was opened, as all of its pool were.
    ReadOnlyAlways,
}

impl fmt::Display for Test<'_> {
    /// The condition in words, for the documents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |text: &str| text.replace("\"\"", "\"…\"");
        match self {
            Self::Code(code) => write!(f, "SQLSTATE `{code}`"),
            Self::Class(class) => write!(f, "SQLSTATE class `{class}`"),
            Self::Is("") => write!(f, "an empty message"),
            Self::Is(text) => write!(f, "message `{}`", show(text)),
            Self::Starts(text) => write!(f, "message begins `{}`", show(text)),
            Self::Has(text) => write!(f, "message has `{}`", show(text)),
            Self::Refusal(text) => write!(f, "connecting failed with `{}`", show(text)),
            Self::Says(text) => write!(f, "message, or a failed connecting, has `{}`", show(text)),
            Self::Driver(driver) => write!(f, "driver {driver}"),
            Self::Exception(class) => write!(f, "exception `{class}`"),
            Self::Interrupts(class) => {
                write!(f, "exception `{class}`, also where the driver hides it")
            }
            Self::Interruption => write!(f, "no `Exception`, also where the driver hides it"),
            Self::Deadline => write!(f, "caused by `poolproof.DeadlineExceeded`"),
            Self::Busy => write!(f, "the driver is in the middle of a command"),
            Self::Connecting => write!(f, "while connecting"),
            Self::Survived => write!(f, "the server says `ERROR`, not `FATAL`"),
            Self::Through(function) => write!(f, "raised in `{function}`"),
            Self::Raw => write!(f, "no DBAPI error, but raised by the driver's own code"),
            Self::Foreign => write!(f, "no DBAPI error"),
            Self::AnotherStatement => write!(f, "the named token is not in the quoted line"),
            Self::ReadOnlyChosen => write!(f, "the application asked for it"),
            Self::ReadOnlyAlways => write!(f, "all sessions of the pool were so from their start"),
        }
    }
}

/// How one cause is recognised.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// What it means.
    pub fault: Fault,
    /// All of these must hold.
    pub tests: &'a [Test<'a>],
    /// The cause, in words.
    pub cause: &'a str,
}

impl Row<'_> {
    /// True when one of its tests is of this kind.
    pub fn has(&self, is_meant: impl Fn(&Test<'_>) -> bool) -> bool {
        self.tests.iter().any(is_meant)
    }
}

const fn price(fault: Fault, cost: Cost, blind: Cost, rule: Rule, meaning: &'static str) -> Price {
    Price {
        fault,
        meaning,
        cost,
        blind,
        rule,
    }
}

const fn row<'a>(fault: Fault, tests: &'a [Test<'a>], cause: &'a str) -> Row<'a> {
    Row {
        fault,
        tests,
        cause,
    }
}

use Cost::{Connection, Generation, Nothing};
use Outcome::{NotDone, Unknown};
use Retry::{Never, Reconnect, WholeUnit};
use Rule::{Always, ByPhase, IfAnswered};

/// What each fault costs, one entry a fault.
#[rustfmt::skip]
pub const PRICES: &[Price] = &[
    price(Fault::None, Nothing, Nothing, IfAnswered,
        "an ordinary error"),
    price(Fault::Corruption, Connection, Connection, Always(Never, Unknown),
        "the connection gave an answer to something that was not asked"),
    price(Fault::Suspect, Nothing, Nothing, Always(Never, Unknown),
        "the answer does not fit the question, which may be the caller's own mistake"),
    price(Fault::Interrupted, Connection, Connection, Always(Never, Unknown),
        "the caller was interrupted in the middle of a call"),
    price(Fault::Forked, Connection, Connection, Always(WholeUnit, NotDone),
        "a connection of the parent process was used in a child"),
    price(Fault::Terminated, Connection, Generation, ByPhase,
        "the server ended this session"),
    price(Fault::Shutdown, Connection, Generation, ByPhase,
        "the server ended all sessions"),
    price(Fault::ConnectionLost, Connection, Generation, ByPhase,
        "the connection broke"),
    price(Fault::ReadOnly, Generation, Generation, Always(WholeUnit, NotDone),
        "the server is read-only now: a failover left us on a standby"),
    price(Fault::Unreachable, Nothing, Nothing, Always(Reconnect, NotDone),
        "no server answered at the address"),
    price(Fault::TooManyConnections, Nothing, Nothing, Always(Reconnect, NotDone),
        "the server has no room for another connection"),
    price(Fault::StartingUp, Nothing, Nothing, Always(Reconnect, NotDone),
        "the server is starting, stopping or recovering"),
    price(Fault::Pooler, Connection, Connection, ByPhase,
        "the pooler in front of the server gave up"),
    price(Fault::Serialization, Nothing, Nothing, Always(WholeUnit, NotDone),
        "the transaction could not be serialized with others"),
    price(Fault::Deadlock, Nothing, Nothing, Always(WholeUnit, NotDone),
        "the transaction was the victim of a deadlock"),
    price(Fault::LockTimeout, Nothing, Nothing, Always(WholeUnit, NotDone),
        "a lock was not to be had in time"),
    price(Fault::Cancelled, Nothing, Nothing, Always(Never, NotDone),
        "the statement was cancelled"),
    price(Fault::PoolTimeout, Nothing, Nothing, Always(Reconnect, NotDone),
        "no connection of the pool became free in time"),
];

use Test::{
    AnotherStatement, Busy, Class, Code, Connecting, Deadline, Driver, Exception, Foreign, Has,
    Interruption, Interrupts, Is, Raw, ReadOnlyAlways, ReadOnlyChosen, Refusal, Starts, Survived,
    Through,
};

const PSYCOPG: Test<'_> = Driver("psycopg");
const PSYCOPG2: Test<'_> = Driver("psycopg2");
const PG8000: Test<'_> = Driver("pg8000");
const ASYNCPG: Test<'_> = Driver("asyncpg");

/// How each fault is recognised; the first row that holds decides.
#[rustfmt::skip]
pub const ROWS: &[Row<'_>] = &[
    // ---- Not a driver's errors, but the pool's own.
    row(Fault::Forked, &[Exception("poolproof.ConnectionForked")],
        "a connection inherited over a fork was used"),
    row(Fault::PoolTimeout, &[Exception("sqlalchemy.exc.TimeoutError")],
        "the pool was empty for too long"),
    row(Fault::PoolTimeout, &[Exception("poolproof.BreakerOpen")],
        "the server is away, and no attempt to connect was made"),

    // ---- The caller was interrupted. Some of these are plain exceptions.
    row(Fault::Interrupted, &[Interrupts("billiard.exceptions.SoftTimeLimitExceeded")],
        "a soft time limit of Celery passed"),
    row(Fault::Interrupted, &[Interrupts("gevent.timeout.Timeout")],
        "a timeout of gevent passed"),
    row(Fault::Interrupted, &[Interrupts("eventlet.timeout.Timeout")],
        "a timeout of eventlet passed"),
    row(Fault::Interrupted, &[Interrupts("greenlet.GreenletExit")],
        "the greenlet was killed"),
    row(Fault::Interrupted, &[Interrupts("asyncio.exceptions.CancelledError")],
        "the task was cancelled"),
    row(Fault::Interrupted, &[Interrupts("builtins.KeyboardInterrupt")],
        "the process was interrupted from the keyboard"),
    row(Fault::Interrupted, &[Interrupts("builtins.SystemExit")],
        "the process was told to exit"),
    row(Fault::Interrupted, &[Interruption],
        "the caller was interrupted"),

    // ---- Our own deadline shut the connection, whatever the driver makes of that.
    row(Fault::ConnectionLost, &[Deadline],
        "a deadline passed, and the connection was shut"),

    // ---- What SQLAlchemy finds wrong with an answer.
    row(Fault::Suspect, &[Exception("sqlalchemy.exc.ResourceClosedError")],
        "rows were asked of an answer that has none"),
    row(Fault::Suspect, &[Exception("sqlalchemy.exc.NoSuchColumnError")],
        "a column was asked that the answer does not have"),
    row(Fault::Suspect, &[Exception("sqlalchemy.exc.NoResultFound")],
        "a row was asked of an empty answer"),
    row(Fault::Suspect, &[Exception("sqlalchemy.exc.MultipleResultsFound")],
        "one row was asked of an answer with several"),

    // ---- What a driver lets through as it came from the system.
    row(Fault::Unreachable, &[Raw, Exception("builtins.ConnectionRefusedError")],
        "nothing listens at the address"),
    row(Fault::Unreachable, &[Raw, Exception("socket.gaierror")],
        "the host name has no address"),

    // ---- Corruption: the answers do not belong to the questions.
    row(Fault::Corruption, &[PSYCOPG2, Starts("error with status PGRES_")],
        "an answer of a kind that the statement cannot have (PGRES_TUPLES_OK and others)"),
    row(Fault::Corruption, &[PSYCOPG2, Is("")],
        "an error without any message"),
    row(Fault::Corruption, &[PSYCOPG2, Is("unknown error")],
        "no answer at all where one was due"),
    row(Fault::Corruption, &[Has("lost synchronization with server")],
        "bytes that are no message of the protocol"),
    row(Fault::Corruption, &[Has("insufficient data in \"\" message")],
        "a message shorter than it says"),
    row(Fault::Corruption, &[Has("message contents do not agree with length in message type \"\"")],
        "a message longer than it says"),
    row(Fault::Corruption, &[Has("server sent data (\"\" message) without prior row description (\"\" message)")],
        "rows without a description"),
    row(Fault::Corruption, &[Has("unexpected field count in \"\" message")],
        "rows of another shape than described"),
    row(Fault::Corruption, &[Has("unexpected response from server; first received character was \"\"")],
        "bytes that are no message of the protocol"),
    row(Fault::Corruption, &[PSYCOPG, Starts("received "), Has(" results from command '")],
        "more or fewer answers than questions"),
    row(Fault::Corruption, &[PSYCOPG, Is("got no result from the query")],
        "no answer at all where one was due"),
    row(Fault::Corruption, &[PSYCOPG, Starts("unexpected result "), Has(" from command '")],
        "an answer of a kind that the command cannot have"),
    row(Fault::Corruption, &[PSYCOPG, Has("another command is already in progress")],
        "the answer to an earlier command was never read to its end"),
    row(Fault::Corruption, &[PSYCOPG, Has("cannot exit pipeline mode while ")],
        "the answers to a batch were never read to their end"),
    row(Fault::Corruption, &[Has("SSL error: decryption failed or bad record mac")],
        "bytes that are not ours in a TLS stream"),
    row(Fault::ConnectionLost, &[Has("SSL error: unexpected eof")],
        "the server's end of the TLS connection is gone"),
    row(Fault::Corruption, &[Has("SSL error: ")],
        "bytes that are not ours in a TLS stream"),
    row(Fault::Corruption, &[Code("42601"), AnotherStatement],
        "a syntax error in a statement that was not sent"),
    row(Fault::ConnectionLost, &[PG8000, Raw, Exception("builtins.ConnectionError")],
        "the connection was reset or aborted"),
    row(Fault::ConnectionLost, &[PG8000, Raw, Exception("builtins.TimeoutError")],
        "the network timed out"),
    row(Fault::ConnectionLost, &[PG8000, Raw, Exception("ssl.SSLEOFError")],
        "the server's end of the TLS connection is gone"),
    row(Fault::ConnectionLost, &[PG8000, Raw, Exception("ssl.SSLZeroReturnError")],
        "the server ended the TLS connection"),
    row(Fault::Corruption, &[PG8000, Foreign, Through("pg8000.core:handle_messages")],
        "an exception in the middle of reading an answer, which stays unread"),
    row(Fault::Corruption, &[PG8000, Through("pg8000.core:handle_COPY_IN_RESPONSE")],
        "a COPY that nobody asked for"),
    row(Fault::Corruption, &[PG8000, Through("pg8000.core:handle_COPY_OUT_RESPONSE")],
        "a COPY that nobody asked for"),
    row(Fault::Corruption, &[PG8000, Code("26000"), Is("unnamed prepared statement does not exist")],
        "the statement that was just prepared is not there"),
    row(Fault::Corruption, &[PG8000, Code("34000"), Is("portal \"\" does not exist")],
        "the portal that was just bound is not there"),
    row(Fault::Corruption, &[ASYNCPG, Exception("asyncpg.exceptions._base.InternalClientError")],
        "an answer that does not fit the state of the protocol"),

    // ---- Poolers. PgBouncer gives 08P01 to all it says, so this stands above class 08.
    row(Fault::Pooler, &[Class("08"), Has("query_wait_timeout")],
        "PgBouncer had no server connection in time"),
    row(Fault::Pooler, &[Refusal("query_wait_timeout")],
        "PgBouncer had no server connection in time"),
    row(Fault::Pooler, &[Class("08"), Has("no more connections allowed")],
        "PgBouncer has no room for another client"),
    row(Fault::Pooler, &[Refusal("no more connections allowed")],
        "PgBouncer has no room for another client"),
    row(Fault::Pooler, &[Class("08"), Has("server login has been failing")],
        "PgBouncer cannot log in to the server"),
    row(Fault::Pooler, &[Refusal("server login has been failing")],
        "PgBouncer cannot log in to the server"),
    row(Fault::Pooler, &[Class("08"), Has("client_idle_timeout")],
        "PgBouncer closed an idle client"),
    row(Fault::Pooler, &[Class("08"), Has("idle transaction timeout")],
        "PgBouncer ended an idle transaction"),
    row(Fault::Pooler, &[Class("08"), Has("query timeout")],
        "PgBouncer ended a long query"),
    row(Fault::Pooler, &[Class("08"), Has("server conn crashed?")],
        "PgBouncer lost its server connection"),

    row(Fault::Pooler, &[Class("08"), Has("database removed")],
        "PgBouncer was told to end all of a database's connections"),
    row(Fault::Pooler, &[Class("08"), Has("client_login_timeout")],
        "PgBouncer could not reach the server in time"),
    row(Fault::Pooler, &[Refusal("client_login_timeout")],
        "PgBouncer could not reach the server in time"),
    row(Fault::None, &[Code("08P01"), Connecting],
        "PgBouncer refused the login, or passed on that the server did"),

    // ---- A message out of turn, where it is not a pooler that speaks.
    row(Fault::Corruption, &[Code("08P01")],
        "a message that the server or we did not expect"),

    // ---- The session or the server ended.
    row(Fault::Terminated, &[Code("57P01")],
        "the session was ended by an administrator, or the server shuts down"),
    row(Fault::Shutdown, &[Code("57P02")],
        "the server crashed and ends every session"),
    row(Fault::Terminated, &[Code("57P04")],
        "the database was dropped"),
    row(Fault::Terminated, &[Code("57P05")],
        "the session was idle for too long (idle_session_timeout)"),
    row(Fault::Terminated, &[Code("25P03")],
        "the transaction was idle for too long (idle_in_transaction_session_timeout)"),
    row(Fault::Terminated, &[Code("25P04")],
        "the transaction took too long (transaction_timeout)"),
    row(Fault::Terminated, &[Code("40001"), Starts("terminating connection")],
        "recovery on a standby needed what the session held"),
    row(Fault::Terminated, &[Starts("terminating connection due to")],
        "the session was ended by the server"),
    row(Fault::Shutdown, &[Starts("terminating connection because of crash of another server process")],
        "the server crashed and ends every session"),

    // ---- A failover, or the application's own read-only transaction.
    row(Fault::None, &[Code("25006"), ReadOnlyChosen],
        "a write in a transaction that the application made read-only"),
    row(Fault::None, &[Code("25006"), ReadOnlyAlways],
        "a write in a session that was opened read-only: by the server, its role or its database"),
    row(Fault::ReadOnly, &[Code("25006")],
        "a write on a server that refuses all writes"),

    // ---- Connecting was refused.
    row(Fault::TooManyConnections, &[Code("53300")],
        "max_connections, or the limit of a role or database, is reached"),
    row(Fault::TooManyConnections, &[Refusal("FATAL: sorry, too many clients already")],
        "max_connections is reached"),
    row(Fault::TooManyConnections, &[Refusal("FATAL: remaining connection slots are reserved")],
        "max_connections is reached but for reserved places"),
    row(Fault::TooManyConnections, &[Refusal("FATAL: too many connections for ")],
        "the limit of a role or database is reached"),
    row(Fault::StartingUp, &[Code("57P03")],
        "the server does not accept connections now"),
    row(Fault::StartingUp, &[Refusal("FATAL: the database system is ")],
        "the server does not accept connections now"),
    row(Fault::Unreachable, &[Refusal("Connection refused")],
        "nothing listens at the address"),
    row(Fault::Unreachable, &[Refusal("No such file or directory")],
        "the unix socket is not there"),
    row(Fault::Unreachable, &[Refusal("timeout expired")],
        "no answer within connect_timeout"),
    row(Fault::Unreachable, &[Refusal("Connection timed out")],
        "no answer from the host"),
    row(Fault::Unreachable, &[Refusal("No route to host")],
        "the host is not reachable"),
    row(Fault::Unreachable, &[Refusal("Network is unreachable")],
        "the network is not reachable"),
    row(Fault::Unreachable, &[Refusal("Connection reset by peer")],
        "the connection was reset while it was opened"),
    row(Fault::Unreachable, &[Refusal("server closed the connection unexpectedly")],
        "the connection was closed while it was opened"),
    row(Fault::Unreachable, &[Refusal("SSL SYSCALL error")],
        "the connection was closed while TLS was agreed on"),
    row(Fault::Unreachable, &[Refusal("SSL error: unexpected eof")],
        "the connection was closed while TLS was agreed on"),
    row(Fault::Unreachable, &[Refusal("could not translate host name")],
        "the host name has no address"),
    row(Fault::Unreachable, &[PSYCOPG, Starts("failed to resolve host ")],
        "the host name has no address"),
    row(Fault::Unreachable, &[PG8000, Starts("Can't create a connection to host")],
        "nothing listens at the address"),
    row(Fault::Unreachable, &[PG8000, Is("communication error")],
        "nothing listens at the unix socket"),

    // ---- The connection broke.
    row(Fault::Suspect, &[Class("08"), Survived],
        "a connection of the server's own broke (dblink, postgres_fdw), or the application says so"),
    row(Fault::ConnectionLost, &[Class("08")],
        "the connection broke, as SQLSTATE class 08 says"),
    row(Fault::ConnectionLost, &[Has("server closed the connection unexpectedly")],
        "the server's end of the connection is gone"),
    row(Fault::ConnectionLost, &[Has("SSL connection has been closed unexpectedly")],
        "the server's end of the TLS connection is gone"),
    row(Fault::ConnectionLost, &[Has("SSL SYSCALL error")],
        "the network broke under TLS"),
    row(Fault::ConnectionLost, &[Has("could not receive data from server")],
        "reading failed"),
    row(Fault::ConnectionLost, &[Has("could not send data to server")],
        "writing failed"),
    row(Fault::ConnectionLost, &[Starts("connection already closed")],
        "the connection was closed before"),
    row(Fault::ConnectionLost, &[PSYCOPG, Is("the connection is closed")],
        "the connection was closed before"),
    row(Fault::ConnectionLost, &[PSYCOPG, Is("the connection is lost")],
        "the connection broke"),
    row(Fault::ConnectionLost, &[PG8000, Is("network error")],
        "reading or writing failed"),
    row(Fault::ConnectionLost, &[PG8000, Is("connection is closed")],
        "the connection was closed before"),
    row(Fault::ConnectionLost, &[ASYNCPG, Is("connection is closed")],
        "the connection was closed before"),
    row(Fault::ConnectionLost, &[Raw, Exception("builtins.ConnectionError")],
        "the connection was reset or aborted"),
    row(Fault::ConnectionLost, &[Raw, Exception("ssl.SSLError")],
        "TLS failed"),

    // ---- The transaction failed, the connection is fine.
    row(Fault::Serialization, &[Code("40001")],
        "concurrent transactions, at REPEATABLE READ or SERIALIZABLE"),
    row(Fault::Deadlock, &[Code("40P01")],
        "transactions that waited for each other"),
    row(Fault::LockTimeout, &[Code("55P03")],
        "NOWAIT, or lock_timeout"),
    row(Fault::Cancelled, &[Code("57014")],
        "statement_timeout, or pg_cancel_backend"),

    // ---- Whatever it was, the call did not come to its end.
    row(Fault::Interrupted, &[Busy],
        "the driver was left in the middle of a command"),

    // ---- A COPY that the application may have asked for itself.
    row(Fault::Suspect, &[PSYCOPG2, Starts("can't execute COPY ")],
        "a COPY where the statement should have rows"),
    row(Fault::Suspect, &[PSYCOPG, Starts("COPY cannot be used with this method")],
        "a COPY where the statement should have rows"),

    // ---- Last: exceptions of the driver's own code that no row above knows.
    row(Fault::Suspect, &[Raw],
        "a driver's code failed in a way that it does not announce"),
];
