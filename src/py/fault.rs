//! The fault table, as Python asks it: plain values in, plain values out.

use pyo3::prelude::*;

use pyo3::exceptions::PyValueError;

use crate::fault::{self, Fault, PRICES, Phase, ROWS, ReadOnly, Row, Rule, Signal, Test, unquoted};

/// A row of the application's: fault, SQLSTATE or the beginning of one, text, exception, driver,
/// cause. Python has checked them.
type OwnRow = (
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    String,
);

/// Length of a whole SQLSTATE; a shorter one is a class.
const SQLSTATE: usize = 5;

/// The conditions of one of the application's rows.
fn tests_of(row: &OwnRow) -> Vec<Test<'_>> {
    let (fault, sqlstate, text, exception, driver, _) = row;
    let interrupts = fault == Fault::Interrupted.name();
    [
        driver.as_deref().map(Test::Driver),
        sqlstate.as_deref().map(|code| {
            if code.len() == SQLSTATE {
                Test::Code(code)
            } else {
                Test::Class(code)
            }
        }),
        text.as_deref().map(Test::Says),
        exception.as_deref().map(|class| {
            if interrupts {
                Test::Interrupts(class)
            } else {
                Test::Exception(class)
            }
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Makes a text as rows look at it: without what stands in double quotes, with single blanks.
#[pyfunction]
pub(crate) fn fault_text(text: &str) -> String {
    unquoted(text)
}

/// Fault, cost, retry, outcome, all by name; cause; the number of the row of the table, if one held.
type Answer = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    String,
    Option<usize>,
);

/// Says what an error means: fault, cost, retry, outcome, cause, all by name, and the number of
/// the row of the table that matched. `own` are rows of the application's, looked at first.
#[pyfunction]
#[pyo3(signature = (
    *, sqlstate, message, classes, masked, driver, dbapi, frames, by_driver, closed, busy, disconnect,
    interruption, deadline, survived, read_only, phase, sees_sockets, own
))]
#[allow(
    clippy::too_many_arguments,
    clippy::fn_params_excessive_bools,
    reason = "each is a fact of its own, and Python names them all"
)]
pub(crate) fn classify(
    sqlstate: Option<&str>,
    message: &str,
    classes: Vec<String>,
    masked: Vec<String>,
    driver: &str,
    dbapi: bool,
    frames: Vec<String>,
    by_driver: bool,
    closed: bool,
    busy: bool,
    disconnect: bool,
    interruption: bool,
    deadline: bool,
    survived: bool,
    read_only: &str,
    phase: &str,
    sees_sockets: bool,
    own: Vec<OwnRow>,
) -> PyResult<Answer> {
    let tests: Vec<Vec<Test<'_>>> = own.iter().map(tests_of).collect();
    let rows = own
        .iter()
        .zip(&tests)
        .map(|(row, tests)| {
            let fault = Fault::named(&row.0)
                .ok_or_else(|| PyValueError::new_err(format!("no fault is named {:?}", row.0)))?;
            Ok(Row {
                fault,
                tests,
                cause: &row.5,
            })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let signal = Signal {
        sqlstate,
        message,
        classes: classes.iter().map(String::as_str).collect(),
        masked: masked.iter().map(String::as_str).collect(),
        driver,
        dbapi,
        frames: frames.iter().map(String::as_str).collect(),
        by_driver,
        closed,
        busy,
        disconnect,
        interruption,
        deadline,
        survived,
        read_only: ReadOnly::named(read_only),
        phase: Phase::named(phase),
    };
    let found = fault::classify(&signal, &rows);
    let verdict = found.verdict(sees_sockets);
    Ok((
        found.fault.name(),
        verdict.cost.name(),
        verdict.retry.name(),
        verdict.outcome.name(),
        found.cause.to_owned(),
        found.row,
    ))
}

/// What a fault costs where no exception was seen: cost, retry, outcome, meaning, all by name.
#[pyfunction]
#[pyo3(signature = (fault, *, phase, sees_sockets))]
pub(crate) fn fault_price(
    fault: &str,
    phase: &str,
    sees_sockets: bool,
) -> PyResult<(&'static str, &'static str, &'static str, &'static str)> {
    let fault = Fault::named(fault)
        .ok_or_else(|| PyValueError::new_err(format!("no fault is named {fault:?}")))?;
    let (verdict, meaning) = fault::appraise(fault, Phase::named(phase), sees_sockets);
    Ok((
        verdict.cost.name(),
        verdict.retry.name(),
        verdict.outcome.name(),
        meaning,
    ))
}

/// The rows of the table: fault, what is looked at, cause.
#[pyfunction]
pub(crate) fn fault_rows() -> Vec<(&'static str, Vec<String>, &'static str)> {
    ROWS.iter()
        .map(|row| {
            let tests = row.tests.iter().map(Test::to_string).collect();
            (row.fault.name(), tests, row.cause)
        })
        .collect()
}

/// What each fault costs: fault, meaning, cost, cost on a blind pool, retry and outcome.
#[pyfunction]
pub(crate) fn fault_prices() -> Vec<(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
)> {
    PRICES
        .iter()
        .map(|price| {
            let (retry, outcome) = match price.rule {
                Rule::Always(retry, outcome) => (retry.name(), outcome.name()),
                Rule::ByPhase => ("by_phase", "by_phase"),
                Rule::IfAnswered => ("never", "if_answered"),
            };
            let (cost, blind) = (price.cost.name(), price.blind.name());
            (
                price.fault.name(),
                price.meaning,
                cost,
                blind,
                retry,
                outcome,
            )
        })
        .collect()
}
