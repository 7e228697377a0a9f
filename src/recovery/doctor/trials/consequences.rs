//! What a failing trial means for commands, and what to do about it.

use super::{ROOT, Trial};
use crate::error::{Error, ExitCode, quote_path};
use crate::fs::{Dir, FsError};
use crate::os::hints;
use crate::recovery::doctor::{Finding, Subject};

/// The consequence of a failing trial.
struct Consequence {
    /// What does not work, in a few words; before the reason.
    what: &'static str,
    /// What that means; after the reason.
    effect: &'static str,
    /// The code of commands because of it, where the call itself reports none.
    code: ExitCode,
    /// Whether commands do without it.
    is_worked_around: bool,
}

impl Trial {
    fn consequence(self) -> Consequence {
        use ExitCode::{DependencyMissing, General, PermissionDenied, StateCorruption};
        let (what, effect, code) = match self {
            Self::Create => ("no file can be made", "no command can write", General),
            Self::Modes => (
                "modes are not kept",
                "others could read and change what is kept",
                PermissionDenied,
            ),
            Self::Write => {
                ("files do not keep what is written", "no copy is safe", StateCorruption)
            }
            Self::Sync | Self::SyncDirectory => {
                ("nothing can be synced", "a power cut may take what was acknowledged", General)
            }
            Self::Link => {
                ("hard links cannot be made", "each commit copies what it replaces", General)
            }
            Self::Rename => ("no file can be replaced", "no command can commit", General),
            Self::Exchange => (
                "names cannot be exchanged",
                "during a restore config/ and .signals/ are missing for an instant",
                General,
            ),
            Self::Flock => (
                "flock does not work",
                "nothing keeps two writers apart, and locks exclude nothing",
                StateCorruption,
            ),
            Self::Events => (
                "changes of files are not reported",
                "`state wait` and `state watch` look at intervals",
                General,
            ),
            Self::RestorePlan => ("a restore, and so a guard, would be refused", "", General),
            Self::StartTime => {
                ("processes cannot be identified", "locks cannot be taken", DependencyMissing)
            }
            Self::ChildEnd => (
                "the end of a process is not reported",
                "waiters for a lock look at intervals",
                General,
            ),
        };
        let is_worked_around =
            matches!(self, Self::Link | Self::Exchange | Self::Events | Self::ChildEnd);
        Consequence { what, effect, code, is_worked_around }
    }
}

/// The reason of a failure. The path of a scratch file, which is gone, is left out.
pub(super) fn reason(error: &Error, place: Option<&str>) -> String {
    match error.cause::<FsError>() {
        Some(failed) if place.is_some() => failed.reason(),
        _ => error.message.clone(),
    }
}

/// The finding for a call that failed.
pub(super) fn of_failure(
    root: &Dir,
    test: Trial,
    place: Option<&'static str>,
    error: Error,
) -> Finding {
    let message = sentence(root, test, place, &reason(&error, place));
    let Consequence { code, is_worked_around, .. } = test.consequence();
    let code = if is_worked_around { code } else { error.code() };
    // A hint about a scratch file leads nowhere.
    let is_about_limits = [ExitCode::DiskFull, ExitCode::ResourceExhausted].contains(&error.code());
    let mut finding = Finding { code, ..Finding::of(subject(test), error).saying(message) };
    if place.is_some() && (!is_about_limits || test == Trial::Events) {
        finding.remedies.clear();
    }
    match finding.remedies.is_empty() {
        true => with_hint(finding, root, test, place),
        false => finding,
    }
}

/// The finding for a call that succeeded and did something else.
pub(super) fn of_lie(root: &Dir, test: Trial, place: Option<&'static str>, why: &str) -> Finding {
    let message = sentence(root, test, place, why);
    let finding = Finding::new(subject(test), test.consequence().code, message);
    with_hint(finding, root, test, place)
}

fn subject(test: Trial) -> Subject {
    match test {
        Trial::RestorePlan => Subject::Restore,
        _ => Subject::Machine,
    }
}

fn sentence(root: &Dir, test: Trial, place: Option<&str>, why: &str) -> String {
    let Consequence { what, effect, .. } = test.consequence();
    let place = match place {
        Some(ROOT) => format!(" in {}", root.path().display()),
        Some(place) => format!(" in {}", root.path_of(place).display()),
        None => String::new(),
    };
    let effect = if effect.is_empty() { String::new() } else { format!("; {effect}") };
    format!("{what}{place}: {why}{effect}")
}

fn with_hint(finding: Finding, root: &Dir, test: Trial, place: Option<&str>) -> Finding {
    match (test, place) {
        (Trial::StartTime, _) => {
            finding.hint_shell(hints::LOOK_AT_PROCESSES, "see whether it is mounted")
        }
        (Trial::Events, _) => {
            let [command, why] = hints::LOOK_AT_WATCHES;
            finding.hint_shell(command, why)
        }
        (Trial::ChildEnd, _) => {
            let [command, why] = hints::LOOK_AT_ENDS;
            finding.hint_shell(command, why)
        }
        (_, place) => {
            let path = place.map_or(root.path().to_owned(), |place| root.path_of(place));
            let why = "see which file system it is; --root names a directory elsewhere";
            finding.hint_shell(hints::mount_of(&quote_path(&path)), why)
        }
    }
}
