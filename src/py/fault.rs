//! The fault table, as Python asks it: plain values in, plain values out.

use pyo3::prelude::*;

use crate::fault::{self, PRICES, Phase, ROWS, ReadOnly, Rule, Signal, Test};

/// Says what an error means: fault, cost, retry, outcome, cause, all by name.
#[pyfunction]
#[pyo3(signature = (
    *, sqlstate, message, classes, driver, dbapi, frames, by_driver, closed, disconnect,
    interruption, read_only, phase, sees_sockets
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
    driver: &str,
    dbapi: bool,
    frames: Vec<String>,
    by_driver: bool,
    closed: bool,
    disconnect: bool,
    interruption: bool,
    read_only: &str,
    phase: &str,
    sees_sockets: bool,
) -> (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
) {
    let found = fault::classify(&Signal {
        sqlstate,
        message,
        classes: classes.iter().map(String::as_str).collect(),
        driver,
        dbapi,
        frames: frames.iter().map(String::as_str).collect(),
        by_driver,
        closed,
        disconnect,
        interruption,
        read_only: ReadOnly::named(read_only),
        phase: Phase::named(phase),
    });
    let verdict = found.verdict(sees_sockets);
    (
        found.fault.name(),
        verdict.cost.name(),
        verdict.retry.name(),
        verdict.outcome.name(),
        found.cause,
    )
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
