//! What an error means, and what it costs.
//!
//! [`ErrorInfo`] holds what is known about an error as plain values. [`classify`] looks it up
//! in the rows of [`rows`] and gives a [`Fault`] with its [`Verdict`]: what is discarded,
//! whether the work may be repeated, and what is known about it. Nothing here knows Python,
//! pools or drivers; adding a row to [`rows`] is all that a new error needs.

mod error_info;
mod kind;
pub mod rows;
mod statement;
mod table;
#[cfg(test)]
mod tests;
mod verdict;

pub use error_info::{ErrorInfo, Phase, ReadOnly};
pub use kind::Fault;
pub use rows::{PRICES, Price, ROWS, Row, Rule, Test};
pub use table::{Finding, appraise, classify, unquoted};
pub use verdict::{Cost, Outcome, Retry, Verdict};
