//! Who may hold which slot. Knows neither Python nor `PostgreSQL`: slots and waiters are numbers.
//!
//! [`ledger`] is the pure state machine, [`gate`] the only code here that locks and blocks.

pub mod gate;
pub mod ledger;
pub mod limits;
pub mod overload;
pub mod parker;
mod sync;
pub mod waiters;

pub use gate::{Admission, Gate, Outcome, Released, Stale, Waiter};
pub use ledger::{Grant, Holder, Ledger, Nested, Snapshot};
pub use limits::Limits;
pub use waiters::Caller;
