//! What can be learnt from a socket without asking the server. Knows neither pools nor Python.

pub mod probe;
