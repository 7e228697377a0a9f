//! Command lines for a later call, from any directory: they repeat the options that chose the state
//! and its locking.

use std::ffi::{OsStr, OsString};

use crate::config::CliOverrides;

/// These options, for a later call. Paths are absolute: the caller's directory may be another one
/// then.
pub fn options(overrides: &CliOverrides) -> Vec<OsString> {
    let mut options = Vec::new();
    let mut give =
        |option: &str, value: &OsStr| options.extend([OsString::from(option), value.to_owned()]);
    let paths = [
        ("--root", &overrides.root),
        ("--state-file", &overrides.state_file),
        ("--audit-log", &overrides.audit_log),
    ];
    for (option, path) in paths {
        if let Some(path) = path {
            give(option, std::path::absolute(path).unwrap_or_else(|_| path.clone()).as_os_str());
        }
    }
    if let Some(store) = &overrides.store {
        give("--store", OsStr::new(store.as_str()));
    }
    if let Some(timeout) = overrides.lock_timeout {
        give("--lock-timeout", OsStr::new(&timeout.as_secs_f64().to_string()));
    }
    if let Some(code) = overrides.lock_exit {
        give("--lock-exit", OsStr::new(&code.to_string()));
    }
    options
}
