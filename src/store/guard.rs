//! Guards.

pub mod record;

pub use super::files::guard::{Begun, GUARD_TOKEN, OnRecord, Settlement, Standing};
