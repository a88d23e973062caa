//! core
pub mod fault;
#[cfg(feature = "python")]
mod py;
#[cfg(feature = "python")]
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::py::fault::{classify, fault_prices, fault_rows};
}
