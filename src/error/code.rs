//! The exit codes. Their numbers are defined only here.

/// The exit codes of the program. 0–10 are the seed's table, 64 and 75 are `EX_USAGE` and
/// `EX_TEMPFAIL` of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Success = 0,
    /// An error without a code of its own, or a negative answer.
    General = 1,
    /// A lock was not acquired in time, or waiting for it would deadlock.
    LockTimeout = 2,
    /// The state is damaged and was not healed, was edited by hand, or is missing.
    StateCorruption = 3,
    /// A name, document, JSON text or filter breaks its rules.
    ValidationFailed = 4,
    /// A required program or file is missing.
    DependencyMissing = 5,
    /// The operating system forbids it, or it would be unsafe.
    PermissionDenied = 6,
    /// No space, quota or permitted file size is left.
    DiskFull = 7,
    /// A remote store is out of reach.
    NetworkError = 8,
    /// A wait that is not for a lock ran out.
    Timeout = 9,
    /// Descriptors, memory or processes ran out.
    ResourceExhausted = 10,
    /// The command line or the environment is invalid.
    Usage = 64,
    /// A race was lost: read again, and retry.
    Conflict = 75,
    /// A wrapped command cannot be executed: the shell's code for it.
    NotExecutable = 126,
    /// A wrapped command does not exist: the shell's code for it.
    CommandNotFound = 127,
}

impl ExitCode {
    /// The exit code with this number, if there is one.
    pub fn of(code: u8) -> Option<Self> {
        use ExitCode::{
            CommandNotFound, Conflict, DependencyMissing, DiskFull, General, LockTimeout,
            NetworkError, NotExecutable, PermissionDenied, ResourceExhausted, StateCorruption,
            Success, Timeout, Usage, ValidationFailed,
        };
        let all = [
            Success,
            General,
            LockTimeout,
            StateCorruption,
            ValidationFailed,
            DependencyMissing,
            PermissionDenied,
            DiskFull,
            NetworkError,
            Timeout,
            ResourceExhausted,
            Usage,
            Conflict,
            NotExecutable,
            CommandNotFound,
        ];
        all.into_iter().find(|known| *known as u8 == code)
    }

    /// The code's name, as in the seed's table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::General => "GENERAL_ERROR",
            Self::LockTimeout => "LOCK_TIMEOUT",
            Self::StateCorruption => "STATE_CORRUPTION",
            Self::ValidationFailed => "VALIDATION_FAILED",
            Self::DependencyMissing => "DEPENDENCY_MISSING",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::DiskFull => "DISK_FULL",
            Self::NetworkError => "NETWORK_ERROR",
            Self::Timeout => "TIMEOUT",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Usage => "USAGE",
            Self::Conflict => "CONFLICT",
            Self::NotExecutable => "NOT_EXECUTABLE",
            Self::CommandNotFound => "COMMAND_NOT_FOUND",
        }
    }
}
