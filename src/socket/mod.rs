//! What can be done with a socket without its driver: looking, bounding, tuning. Knows neither pools nor Python.

pub mod address;
#[cfg(not(loom))]
pub mod certificate;
pub mod deadline;
pub mod options;
pub mod owned;
pub mod probe;
pub mod readiness;
#[cfg(not(loom))] // whoever speaks to people is left out there
pub(crate) mod words;
