//! A value of a running program, and its errors.

use std::fmt;

use jaq_core::data::JustLut;
use jaq_json::Val;

/// An error of a running program.
pub(super) type Error = jaq_core::Error<Jq>;

/// The deepest nesting that jq follows in one operation: its own limit.
pub(super) const MAX_NESTED: usize = 10_000;
/// The data of a running program: its values.
pub(super) type Data = JustLut<Jq>;

/// A value with the operations of jq.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Jq(pub(super) Val);

/// An error that `catch` sees as this string.
pub(super) fn error(message: impl fmt::Display) -> Error {
    Error::str(message)
}
