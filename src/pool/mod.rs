//! Who may hold which slot. Knows neither Python nor `PostgreSQL`: slots and waiters are numbers.
//!
//! [`ledger`] is the pure state machine, [`gate`] the only code here that locks and blocks.

pub mod gate;
pub mod grant;
pub mod home;
pub mod ledger;
pub mod limits;
pub mod overload;
pub mod parker;
mod sync;
pub mod waiters;
pub mod waiting;

pub use gate::{Admission, Gate, Released, Stale, WaitResult, Waiter};
pub use grant::Grant;
pub use ledger::{Holder, Ledger, Nested, Snapshot};
pub use limits::Limits;
pub use waiting::Caller;
