//! The variables of the environment.

use std::ffi::OsString;

/// Looks a variable up; empty counts as unset.
pub trait Environment {
    /// The variable's value.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The process's own environment.
#[derive(Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name).filter(|value| !value.is_empty())
    }
}
