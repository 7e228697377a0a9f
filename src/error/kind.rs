//! Kinds of failure, and the exit code of each.

use std::io;

use rustix::io::Errno;

use super::ExitCode;

/// The kind of a failure; refines the exit code and is stable in JSON output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or environment is invalid.
    Usage,
    /// There is no state here and never was.
    NotInitialized,
    /// Another writer committed in the meantime.
    Conflict,
    /// The named thing does not exist.
    NotFound,
    /// The file or name to be created exists already.
    Exists,
    /// The user declined.
    Cancelled,
    /// A record refers to it.
    InUse,
    /// The change is in place, but the disk did not confirm it.
    DurabilityUnknown,
    /// The operating system reported an error without a code of its own.
    Io,
    /// A defect of this program.
    Internal,
    /// A program that was run failed.
    CommandFailed,
    /// A check found a problem.
    Findings,
    /// Another owner holds a lock.
    NotOwner,
    /// The same owner or an ancestor holds the lock already.
    AlreadyHeld,
    /// A lock was requested that comes before one that is held.
    LockOrder,
    /// A grant that a write requires is no longer on record.
    Fenced,
    /// A lock was not acquired in time.
    LockTimeout,
    /// Waiting for a lock would never end.
    Deadlock,
    /// An operator ended the wait for a lock.
    Broken,
    /// The state cannot be read as a document.
    Corrupt,
    /// A checkpoint of the old libraries, which has no digests to verify.
    Unverifiable,
    /// The state was changed by something other than this program.
    ForeignEdit,
    /// The record of an interrupted restore was written for another root.
    ForeignIntent,
    /// The state file is missing although its history is here.
    Missing,
    /// The state was moved to a store on other machines.
    Moved,
    /// The state is on its way to a store on other machines, or from there.
    Moving,
    /// A guard did not put back everything that its command changed.
    Unrestored,
    /// No valid copy is left to restore.
    NothingToRestore,
    /// The document breaks the schema's rules.
    Schema,
    /// The state file belongs to another tool.
    NotAState,
    /// The document was written by a newer program.
    NewerSchema,
    /// A JSON text cannot be parsed.
    InvalidJson,
    /// A filter does not compile, fails, or its output is not a document.
    Filter,
    /// A path expression cannot be parsed or applied.
    Path,
    /// A name breaks the rules for names.
    InvalidName,
    /// An argument or a document is over its size limit.
    TooLarge,
    /// The directory keeps another state file already.
    OtherStateFile,
    /// A required program or file is missing.
    DependencyMissing,
    /// The operating system forbids it.
    PermissionDenied,
    /// A link or a special file has the name of a file of this program.
    UnsafePath,
    /// A file of this program belongs to another user.
    ForeignOwner,
    /// A root's file names a store that the user has not trusted.
    UntrustedStore,
    /// No space or quota is left.
    DiskFull,
    /// The limit on the size of one file is reached; removing other files does not help.
    FileSizeLimit,
    /// A store on other machines could not be reached, and nothing was changed.
    Unreachable,
    /// A store and this program could not prove to each other what they are; nothing was changed.
    Tls,
    /// A wait that is not for a lock ran out.
    WaitTimeout,
    /// Descriptors, memory or processes ran out.
    ResourceExhausted,
    /// A wrapped command cannot be executed.
    NotExecutable,
    /// A wrapped command does not exist.
    CommandNotFound,
}

impl Kind {
    /// The general kind of a code.
    pub fn of_code(code: ExitCode) -> Self {
        match code {
            ExitCode::StateCorruption => Self::Corrupt,
            ExitCode::PermissionDenied => Self::UnsafePath,
            ExitCode::DiskFull => Self::DiskFull,
            ExitCode::ValidationFailed => Self::Schema,
            ExitCode::DependencyMissing => Self::DependencyMissing,
            ExitCode::ResourceExhausted => Self::ResourceExhausted,
            ExitCode::LockTimeout => Self::LockTimeout,
            ExitCode::NetworkError => Self::Unreachable,
            ExitCode::Timeout => Self::WaitTimeout,
            _ => Self::Findings,
        }
    }

    /// The exit code of this kind.
    pub fn code(self) -> ExitCode {
        match self {
            Self::Usage => ExitCode::Usage,
            Self::Conflict => ExitCode::Conflict,
            Self::NotInitialized
            | Self::NotFound
            | Self::Exists
            | Self::Cancelled
            | Self::InUse
            | Self::DurabilityUnknown
            | Self::Io
            | Self::Internal
            | Self::CommandFailed
            | Self::Findings
            | Self::NotOwner
            | Self::AlreadyHeld
            | Self::LockOrder
            | Self::Fenced => ExitCode::General,
            Self::LockTimeout | Self::Deadlock | Self::Broken => ExitCode::LockTimeout,
            Self::Corrupt
            | Self::Unverifiable
            | Self::ForeignEdit
            | Self::ForeignIntent
            | Self::Missing
            | Self::Moved
            | Self::Moving
            | Self::NothingToRestore
            | Self::Unrestored => ExitCode::StateCorruption,
            Self::Schema
            | Self::NotAState
            | Self::NewerSchema
            | Self::InvalidJson
            | Self::Filter
            | Self::Path
            | Self::InvalidName
            | Self::TooLarge
            | Self::OtherStateFile => ExitCode::ValidationFailed,
            Self::DependencyMissing => ExitCode::DependencyMissing,
            Self::PermissionDenied
            | Self::UnsafePath
            | Self::ForeignOwner
            | Self::UntrustedStore => ExitCode::PermissionDenied,
            Self::DiskFull | Self::FileSizeLimit => ExitCode::DiskFull,
            Self::Unreachable | Self::Tls => ExitCode::NetworkError,
            Self::WaitTimeout => ExitCode::Timeout,
            Self::ResourceExhausted => ExitCode::ResourceExhausted,
            Self::NotExecutable => ExitCode::NotExecutable,
            Self::CommandNotFound => ExitCode::CommandNotFound,
        }
    }

    /// The kind's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::NotInitialized => "not_initialized",
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::Cancelled => "cancelled",
            Self::InUse => "in_use",
            Self::DurabilityUnknown => "durability_unknown",
            Self::Io => "io",
            Self::Internal => "internal",
            Self::CommandFailed => "command_failed",
            Self::Findings => "findings",
            Self::NotOwner => "not_owner",
            Self::AlreadyHeld => "already_held",
            Self::LockOrder => "lock_order",
            Self::Fenced => "fenced",
            Self::Deadlock => "deadlock",
            Self::Broken => "broken",
            Self::LockTimeout | Self::WaitTimeout => "timeout",
            Self::Corrupt | Self::Unverifiable => "corrupt",
            Self::ForeignEdit => "foreign_edit",
            Self::ForeignIntent => "foreign_intent",
            Self::Missing => "missing",
            Self::Moved => "moved",
            Self::Moving => "moving",
            Self::Unrestored => "unrestored",
            Self::NothingToRestore => "nothing_to_restore",
            Self::Schema => "schema",
            Self::NotAState => "not_a_state",
            Self::NewerSchema => "newer_schema",
            Self::InvalidJson => "invalid_json",
            Self::Filter => "filter",
            Self::Path => "path",
            Self::InvalidName => "invalid_name",
            Self::TooLarge => "too_large",
            Self::OtherStateFile => "other_state_file",
            Self::DependencyMissing => "dependency_missing",
            Self::PermissionDenied => "permission_denied",
            Self::UnsafePath | Self::ForeignOwner => "unsafe_path",
            Self::UntrustedStore => "untrusted_store",
            Self::DiskFull | Self::FileSizeLimit => "disk_full",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::ResourceExhausted => "resource_exhausted",
            Self::NotExecutable => "not_executable",
            Self::CommandNotFound => "command_not_found",
        }
    }

    /// The kind of an operating-system error, by its errno.
    pub fn of_io(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            // tempfile adds the path to the system's error; only the error's kind remains.
            return match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Self::PermissionDenied
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
                io::ErrorKind::OutOfMemory => Self::ResourceExhausted,
                _ => Self::Io,
            };
        };
        match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::PermissionDenied,
            // A mount point cannot be replaced, nothing is renamed from one file system to another,
            // and a hard link may lie anywhere.
            Errno::LOOP | Errno::ISDIR | Errno::BUSY | Errno::XDEV | Errno::MLINK => {
                Self::UnsafePath
            }
            Errno::NOSPC | Errno::DQUOT => Self::DiskFull,
            Errno::FBIG => Self::FileSizeLimit,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Self::ResourceExhausted,
            _ => Self::Io,
        }
    }
}
