//! What the table must say, and what it must never say.

use proptest::prelude::*;

use super::rows::{PRICES, ROWS, Row, Test};
use super::statement::speaks_of_another;
use super::{Cost, ErrorInfo, Fault, Outcome, Phase, ReadOnly, Retry, appraise, classify};

fn server(code: &'static str, message: &'static str) -> ErrorInfo<'static> {
    ErrorInfo {
        sqlstate: Some(code),
        message,
        classes: vec!["psycopg2.errors.Some"],
        driver: "psycopg2",
        dbapi: true,
        ..ErrorInfo::default()
    }
}

fn client(driver: &'static str, message: &'static str) -> ErrorInfo<'static> {
    ErrorInfo {
        message,
        classes: vec!["driver.OperationalError"],
        driver,
        dbapi: true,
        ..ErrorInfo::default()
    }
}

fn fault(info: &ErrorInfo<'_>) -> Fault {
    classify(info, &[]).fault
}

#[test]
fn every_fault_has_one_price_and_a_row_or_a_rule() {
    for fault in Fault::ALL {
        let prices = PRICES.iter().filter(|price| price.fault == fault).count();
        assert_eq!(prices, 1, "{fault}");
        let rowless = matches!(fault, Fault::None);
        assert!(
            rowless || ROWS.iter().any(|row| row.fault == fault),
            "{fault}"
        );
    }
    assert_eq!(PRICES.len(), Fault::ALL.len());
}

#[test]
fn the_blind_never_pay_less() {
    for price in PRICES {
        let rank = |cost| match cost {
            Cost::Nothing => 0,
            Cost::Connection => 1,
            Cost::Generation => 2,
        };
        assert!(rank(price.cost) <= rank(price.blind), "{}", price.fault);
    }
}

#[test]
fn every_row_can_be_reached() {
    for (n, row) in ROWS.iter().enumerate() {
        let shadow = ROWS[..n]
            .iter()
            .find(|above| above.tests.iter().all(|test| row.tests.contains(test)));
        assert!(shadow.is_none(), "{row:?} is hidden by {shadow:?}");
    }
}

#[test]
fn a_tuples_ok_costs_its_one_connection() {
    let text = "error with status PGRES_TUPLES_OK and no message from the libpq";
    for sees in [true, false] {
        let found = classify(&client("psycopg2", text), &[]);
        assert_eq!(found.fault, Fault::Corruption);
        assert_eq!(found.verdict(sees).cost, Cost::Connection);
        assert_eq!(found.verdict(sees).outcome, Outcome::Unknown);
        assert_eq!(found.verdict(sees).retry, Retry::Never);
    }
}

#[test]
fn words_of_the_application_are_no_fault() {
    let detail = "duplicate key value violates unique constraint \"a\"\n\
        DETAIL:  Key (x)=(lost synchronization with server) already exists.";
    assert_eq!(fault(&server("23505", detail)), Fault::None);
    let raised = "lost synchronization with server: got message type";
    assert_eq!(fault(&server("P0001", raised)), Fault::None);
    let quoted = "syntax error at or near \"server closed the connection unexpectedly\"";
    assert_eq!(fault(&client("psycopg2", quoted)), Fault::None);
    let own = ErrorInfo {
        message: raised,
        classes: vec!["builtins.ValueError"],
        ..ErrorInfo::default()
    };
    assert_eq!(fault(&own), Fault::None);
}

#[test]
fn another_database_is_not_judged_by_these_words() {
    for driver in ["", "pysqlite", "mysqlconnector"] {
        let text = "server closed the connection unexpectedly";
        assert_eq!(fault(&client(driver, text)), Fault::None);
        let mut info = server("25006", "read only");
        info.driver = driver;
        assert_eq!(fault(&info), Fault::None);
    }
}

#[test]
fn a_later_line_is_not_the_message() {
    let text = "some error\nlost synchronization with server";
    assert_eq!(fault(&client("psycopg2", text)), Fault::None);
}

#[test]
fn a_refused_connection_is_no_lost_one() {
    let text = "connection to server at \"h\" (::1), port 1 failed: Connection refused\n\
        \tIs the server running on that host?\n\
        connection to server at \"h\" (127.0.0.1), port 1 failed: \
        FATAL:  sorry, too many clients already\n";
    assert_eq!(fault(&client("psycopg2", text)), Fault::TooManyConnections);
    let text = "connection failed: connection to server at \"h\", port 1 failed: \
        server closed the connection unexpectedly";
    assert_eq!(fault(&client("psycopg", text)), Fault::Unreachable);
}

#[test]
fn a_pooler_is_told_from_a_broken_protocol() {
    assert_eq!(fault(&server("08P01", "query_wait_timeout")), Fault::Pooler);
    let text = "bind message supplies 1 parameters, but prepared statement \"\" requires 2";
    assert_eq!(fault(&server("08P01", text)), Fault::Corruption);
    assert_eq!(fault(&server("08006", "")), Fault::ConnectionLost);
}

#[test]
fn a_termination_costs_one_connection_where_sockets_are_seen() {
    let found = classify(&server("57P01", "terminating connection"), &[]);
    assert_eq!(found.fault, Fault::Terminated);
    assert_eq!(found.verdict(true).cost, Cost::Connection);
    assert_eq!(found.verdict(false).cost, Cost::Generation);
}

#[test]
fn a_write_to_a_standby_costs_the_generation_unless_it_was_meant() {
    let mut info = server("25006", "cannot execute INSERT in a read-only transaction");
    assert_eq!(classify(&info, &[]).verdict(true).cost, Cost::Generation);
    info.read_only = ReadOnly::Chosen;
    assert_eq!(classify(&info, &[]).verdict(true).cost, Cost::Nothing);
}

#[test]
fn a_commit_that_broke_is_unknown_and_never_repeated() {
    let mut info = client("psycopg2", "server closed the connection unexpectedly");
    for (phase, retry, outcome) in [
        (Phase::Commit, Retry::Never, Outcome::Unknown),
        (Phase::Unknown, Retry::Never, Outcome::Unknown),
        (Phase::Statement, Retry::WholeUnit, Outcome::NotDone),
        (Phase::Connect, Retry::Reconnect, Outcome::NotDone),
    ] {
        info.phase = phase;
        let verdict = classify(&info, &[]).verdict(true);
        assert_eq!(
            (verdict.retry, verdict.outcome),
            (retry, outcome),
            "{phase:?}"
        );
    }
}

#[test]
fn connecting_costs_nothing_because_there_is_nothing_yet() {
    let mut info = client("psycopg2", "server closed the connection unexpectedly");
    info.phase = Phase::Connect;
    assert_eq!(classify(&info, &[]).verdict(false).cost, Cost::Nothing);
}

#[test]
fn a_closed_connection_is_lost_whatever_was_said() {
    let mut info = server("XX000", "something");
    assert_eq!(fault(&info), Fault::None);
    info.closed = true;
    assert_eq!(fault(&info), Fault::ConnectionLost);
    let mut info = server("40001", "could not serialize access");
    info.disconnect = true;
    assert_eq!(classify(&info, &[]).verdict(true).cost, Cost::Connection);
    assert_eq!(classify(&info, &[]).verdict(false).cost, Cost::Generation);
}

#[test]
fn an_interruption_is_not_looked_up() {
    let mut info = server("23505", "");
    info.interruption = true;
    assert_eq!(fault(&info), Fault::Interrupted);
}

#[test]
fn an_exception_amid_an_answer_of_pg8000_is_corruption() {
    let mut info = ErrorInfo {
        message: "'NoneType' object has no attribute 'append'",
        classes: vec!["builtins.AttributeError"],
        driver: "pg8000",
        by_driver: true,
        ..ErrorInfo::default()
    };
    assert_eq!(fault(&info), Fault::Suspect);
    info.frames = vec!["pg8000.core:handle_messages", "pg8000.core:handle_DATA_ROW"];
    assert_eq!(fault(&info), Fault::Corruption);
}

#[test]
fn a_deadline_of_ours_never_costs_more_than_its_connection() {
    let mut info = client("psycopg2", "server closed the connection unexpectedly");
    info.disconnect = true;
    info.phase = Phase::Ping;
    assert_eq!(classify(&info, &[]).verdict(false).cost, Cost::Generation);
    info.deadline = true;
    for phase in Phase::ALL {
        info.phase = phase;
        for sees in [true, false] {
            let found = classify(&info, &[]);
            let wanted = if phase == Phase::Connect {
                Cost::Nothing
            } else {
                Cost::Connection
            };
            assert_eq!(found.fault, Fault::ConnectionLost);
            assert_eq!(found.verdict(sees).cost, wanted, "{phase:?}");
        }
    }
}

#[test]
fn a_checkout_that_a_deadline_ended_costs_nothing() {
    let info = ErrorInfo {
        classes: vec!["poolproof.PoolTimeout", "sqlalchemy.exc.TimeoutError"],
        deadline: true,
        ..ErrorInfo::default()
    };
    let found = classify(&info, &[]);
    assert_eq!(found.fault, Fault::PoolTimeout);
    assert_eq!(found.verdict(true).cost, Cost::Nothing);
}

#[test]
fn an_interruption_that_the_driver_hides_is_one() {
    let mut info = client("psycopg", "cannot exit pipeline mode while busy");
    assert_eq!(fault(&info), Fault::Corruption);
    info.masked = vec!["billiard.exceptions.SoftTimeLimitExceeded"];
    assert_eq!(fault(&info), Fault::Interrupted);
}

#[test]
fn a_connection_of_the_servers_own_that_broke_is_not_ours() {
    let mut info = server("08001", "could not connect to server \"elsewhere\"");
    assert_eq!(fault(&info), Fault::ConnectionLost);
    info.survived = true;
    assert_eq!(fault(&info), Fault::Suspect);
}

#[test]
fn a_row_of_the_applications_decides_and_has_no_place_in_the_table() {
    let info = server("40001", "could not serialize access");
    let own = [Row {
        fault: Fault::ReadOnly,
        tests: &[Test::Class("40")],
        cause: "own",
    }];
    let found = classify(&info, &own);
    assert_eq!(
        (found.fault, found.cause, found.row),
        (Fault::ReadOnly, "own", None)
    );
    let place = classify(&info, &[]).row;
    assert!(place.is_some_and(|place| ROWS[place].fault == Fault::Serialization));
}

#[test]
fn a_fault_that_was_seen_on_an_idle_connection_struck_nobody() {
    for fault in Fault::ALL {
        let (verdict, meaning) = appraise(fault, Phase::Ping, true);
        assert_eq!(verdict.outcome, Outcome::NotDone, "{fault}");
        assert!(!meaning.is_empty());
    }
}

fn phases() -> impl Strategy<Value = Phase> {
    prop::sample::select(Phase::ALL.to_vec())
}

/// Text that a row looks for, so that random messages come near to matching.
fn needles() -> impl Strategy<Value = String> {
    let words: Vec<String> = ROWS
        .iter()
        .flat_map(|row| row.tests)
        .filter_map(|test| match test {
            Test::Is(text) | Test::Starts(text) | Test::Has(text) | Test::Refusal(text) => {
                Some((*text).to_owned())
            }
            _ => None,
        })
        .chain([
            "at or near \"".into(),
            "\nLINE 1: ".into(),
            "connection to server ".into(),
        ])
        .collect();
    prop::collection::vec(
        prop_oneof![prop::sample::select(words), any::<String>()],
        0..4,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn nothing_panics(
        message in needles(),
        code in prop::option::of("\\PC{0,6}"),
        driver in "psycopg2?|pg8000|asyncpg|",
        exception in "\\PC{0,20}",
        dbapi: bool, by_driver: bool, closed: bool, disconnect: bool, sees: bool,
        phase in phases(),
    ) {
        let info = ErrorInfo {
            sqlstate: code.as_deref(),
            message: &message,
            classes: vec![&exception],
            driver: &driver,
            dbapi, by_driver, closed, disconnect, phase,
            ..ErrorInfo::default()
        };
        let found = classify(&info, &[]);
        let verdict = found.verdict(sees);
        prop_assert!(!found.cause.is_empty());
        // Only what is known not to be done may be repeated.
        prop_assert!(verdict.retry == Retry::Never || verdict.outcome == Outcome::NotDone);
    }

    #[test]
    fn a_data_error_is_no_fault_whatever_it_says(
        message in needles(),
        class in "22|23|42|P0",
        rest in "[0-9A-Z]{3}",
    ) {
        let code = format!("{class}{rest}");
        // The one row that reads the text of such an error.
        prop_assume!(!(code == "42601" && speaks_of_another(&message)));
        let info = ErrorInfo {
            sqlstate: Some(&code),
            message: &message,
            driver: "psycopg2",
            dbapi: true,
            ..ErrorInfo::default()
        };
        prop_assert_eq!(classify(&info, &[]).fault, Fault::None);
    }
}
