//! The fault table, as Python asks it: plain values in, plain values out.

use pyo3::prelude::*;

use pyo3::exceptions::PyValueError;

use crate::fault::{
    self, ErrorInfo, Fault, PRICES, Phase, ROWS, ReadOnly, Row, Rule, Test, Verdict, unquoted,
};

/// A row of the application's. Python has checked it.
#[pyclass(frozen, get_all, module = "poolproof._native")]
pub(crate) struct OwnRow {
    fault: String,
    /// A whole SQLSTATE, or the beginning of one.
    sqlstate: Option<String>,
    message: Option<String>,
    exception: Option<String>,
    driver: Option<String>,
    cause: String,
}

#[pymethods]
impl OwnRow {
    #[new]
    #[pyo3(signature = (*, fault, sqlstate, message, exception, driver, cause))]
    fn new(
        fault: String,
        sqlstate: Option<String>,
        message: Option<String>,
        exception: Option<String>,
        driver: Option<String>,
        cause: String,
    ) -> Self {
        Self {
            fault,
            sqlstate,
            message,
            exception,
            driver,
            cause,
        }
    }
}

/// Length of a whole SQLSTATE; a shorter one is a class.
const SQLSTATE: usize = 5;

/// The conditions of one of the application's rows.
fn tests_of(row: &OwnRow) -> Vec<Test<'_>> {
    let interrupts = row.fault == Fault::Interrupted.name();
    [
        row.driver.as_deref().map(Test::Driver),
        row.sqlstate.as_deref().map(|code| {
            if code.len() == SQLSTATE {
                Test::Code(code)
            } else {
                Test::Class(code)
            }
        }),
        row.message.as_deref().map(Test::Says),
        row.exception.as_deref().map(|class| {
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

/// What an error means and costs, all by name.
#[pyclass(frozen, get_all, module = "poolproof._native")]
pub(crate) struct Finding {
    fault: &'static str,
    cost: &'static str,
    retry: &'static str,
    outcome: &'static str,
    cause: String,
    /// The number of the row of the table, if one held.
    row: Option<usize>,
}

impl Finding {
    fn new(fault: Fault, verdict: Verdict, cause: &str, row: Option<usize>) -> Self {
        Self {
            fault: fault.name(),
            cost: verdict.cost.name(),
            retry: verdict.retry.name(),
            outcome: verdict.outcome.name(),
            cause: cause.to_owned(),
            row,
        }
    }
}

/// What a fault costs, by name.
#[pyclass(frozen, get_all, module = "poolproof._native")]
pub(crate) struct Price {
    fault: &'static str,
    meaning: &'static str,
    cost: &'static str,
    /// What it costs on a pool that does not look at its sockets.
    blind: &'static str,
    retry: &'static str,
    outcome: &'static str,
}

/// Says what an error means. `own` are rows of the application's, looked at first.
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
    own: Vec<PyRef<'_, OwnRow>>,
) -> PyResult<Finding> {
    let tests: Vec<Vec<Test<'_>>> = own.iter().map(|row| tests_of(row)).collect();
    let rows = own
        .iter()
        .zip(&tests)
        .map(|(row, tests)| {
            let fault = named(&row.fault)?;
            Ok(Row {
                fault,
                tests,
                cause: &row.cause,
            })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let info = ErrorInfo {
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
    let found = fault::classify(&info, &rows);
    let verdict = found.verdict(sees_sockets);
    Ok(Finding::new(found.fault, verdict, found.cause, found.row))
}

fn named(fault: &str) -> PyResult<Fault> {
    Fault::named(fault).ok_or_else(|| PyValueError::new_err(format!("no fault is named {fault:?}")))
}

/// What a fault costs where no exception was seen; its cause is what the fault means.
#[pyfunction]
#[pyo3(signature = (fault, *, phase, sees_sockets))]
pub(crate) fn fault_price(fault: &str, phase: &str, sees_sockets: bool) -> PyResult<Finding> {
    let fault = named(fault)?;
    let (verdict, meaning) = fault::appraise(fault, Phase::named(phase), sees_sockets);
    Ok(Finding::new(fault, verdict, meaning, None))
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

/// What each fault costs.
#[pyfunction]
pub(crate) fn fault_prices() -> Vec<Price> {
    PRICES
        .iter()
        .map(|price| {
            let (retry, outcome) = match price.rule {
                Rule::Always(retry, outcome) => (retry.name(), outcome.name()),
                Rule::ByPhase => ("by_phase", "by_phase"),
                Rule::IfAnswered => ("never", "if_answered"),
            };
            Price {
                fault: price.fault.name(),
                meaning: price.meaning,
                cost: price.cost.name(),
                blind: price.blind.name(),
                retry,
                outcome,
            }
        })
        .collect()
}
