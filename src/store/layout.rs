//! The names of the files.

use std::path::Path;
use std::time::SystemTime;

use crate::document::seal::Revision;
use crate::fs::stage::is_temporary;
use crate::lock::layout::LOCKS;
use crate::name::Name;
use crate::time::{compact, parse_compact};

/// The state file, where no other is named.
pub const STATE_FILE: &str = ".workflow-state.json";
/// The configuration file of a root.
pub const SETTINGS: &str = ".pipeline-state.toml";
/// The mark of a state that was moved to a store on other machines.
pub const MOVED: &str = ".workflow-state.moved";
/// Backups, the mirror, kept evidence.
pub const BACKUPS: &str = crate::journal::DIRECTORY;
/// Checkpoints.
pub const CHECKPOINTS: &str = ".checkpoints";
/// The prefix of a checkpoint's name; followed by time and operation.
pub const CHECKPOINT_PREFIX: &str = "checkpoint-";
/// The directory in [`CHECKPOINTS`] where a checkpoint or a restore is prepared.
pub const WORKSHOP: &str = ".in-progress";
/// The record of a decided restore or new lineage, in [`WORKSHOP`].
pub const INTENT: &str = "intent.json";
/// The prefix of the mark of a checkpoint that is being removed, in [`WORKSHOP`]; followed by the
/// checkpoint's name.
pub const DOOMED_PREFIX: &str = "removed-";
/// The configuration of the pipeline, in its root.
pub const CONFIG: &str = "config";
/// A file for each signal.
pub const SIGNALS: &str = ".signals";
/// The side directories, all of which `init` makes.
pub const SIDE_DIRECTORIES: [&str; 4] = [BACKUPS, LOCKS, CHECKPOINTS, SIGNALS];

/// What this host keeps for a state on other machines: locks, and a restore that is at work on
/// `config/`.
pub const HOST: &str = ".remote";

/// Makes git ignore a side directory; `init` creates it in each.
pub const GITIGNORE: &str = ".gitignore";

/// The name of a tree that is staged beside its target, so that one rename puts it in place;
/// followed by the number of the restore and the tree's name.
pub const STAGED_PREFIX: &str = ".pipeline-state-restore-";

/// The staged name of a tree until it replaces `name`. A restore that replaces an interrupted one
/// has another number, so that the staged files of the two cannot be confused.
pub fn staged(name: &str, number: u64) -> String {
    format!("{STAGED_PREFIX}{number}-{}", name.trim_start_matches('.'))
}

/// Returns whether a path leads to a staged file or tree, which is gone when its command ends.
pub fn is_staging(path: &Path) -> bool {
    path.iter().any(|part| {
        part == WORKSHOP || part.as_encoded_bytes().starts_with(STAGED_PREFIX.as_bytes())
    })
}

/// The number in such a name.
pub fn staged_number(name: &str) -> Option<u64> {
    name.strip_prefix(STAGED_PREFIX)?.split('-').next()?.parse().ok()
}

/// The same bytes as the live file in a second inode, in [`BACKUPS`].
pub const MIRROR: &str = "mirror.json";
/// The name of the state file that the side directories belong to, in [`BACKUPS`].
pub const OWNER: &str = "owner";
/// The state file of a state that was moved to a store on other machines, in [`BACKUPS`].
pub const AWAY: &str = "moved.json";
/// The number of a revision that readers may have been served although it was never committed, in
/// [`BACKUPS`]; followed by the number. The next commit removes the file.
pub const SERVED_PREFIX: &str = "served-r";
/// The prefix of an evidence file: a damaged or foreign file that was replaced; followed by time
/// and digest.
pub const EVIDENCE_PREFIX: &str = "corrupt-";
/// A history that `init --fresh` archived; followed by lineage and time.
pub const ARCHIVE_PREFIX: &str = "archive-";

/// Reasons of pinned backups, which are kept apart from the automatic ones.
pub mod pinned {
    /// Made by `state backup`.
    pub const MANUAL: &str = "manual";
    /// The file as it was before it was migrated or first sealed.
    pub const PRE_MIGRATION: &str = "pre-migration";
    /// The valid state that `state recover` rolled back.
    pub const PRE_RECOVER: &str = "pre-recover";
    /// The last acknowledged revision before a foreign edit was adopted.
    pub const PRE_ADOPT: &str = "pre-adopt";
    /// The state before a checkpoint was restored; also the operation of the checkpoint that is
    /// made then.
    pub const PRE_RESTORE: &str = "pre-restore";
    /// The state that `state init --fresh` put away in a store that has no archives.
    pub const PRE_FRESH: &str = "pre-fresh";
}

/// The parts of `state-YYYYMMDD-HHMMSS-rREVISION-REASON.json`. Older names may lack revision and
/// reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupName {
    text: String,
    /// The time in the name: a hard link's mtime is that of the previous commit.
    pub time: SystemTime,
    /// The revision in the name; none for a copy that predates revisions.
    pub revision: Option<Revision>,
    /// The reason.
    pub reason: String,
}

impl BackupName {
    /// The name of a backup made now. Revision 0 stands for a document that was never sealed.
    pub fn new(time: SystemTime, revision: Option<Revision>, reason: &str) -> Self {
        let number = revision.map_or(0, Revision::get);
        let text = format!("state-{}-r{number}-{reason}.json", compact(time));
        Self { text, time, revision, reason: reason.to_owned() }
    }

    /// Parses a file name.
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix("state-")?.strip_suffix(".json")?;
        let time = parse_compact(body.get(..15)?)?;
        let rest = body.get(15..)?;
        let rest = if rest.is_empty() { "" } else { rest.strip_prefix('-')? };
        let numbered = rest.strip_prefix('r').and_then(|rest| {
            let (number, reason) = rest.split_once('-').unwrap_or((rest, ""));
            Some((number.parse::<u64>().ok()?, reason))
        });
        let (revision, reason) = match numbered {
            Some((number, reason)) => (Revision::new(number), reason),
            None => (None, rest),
        };
        Some(Self { text: text.to_owned(), time, revision, reason: reason.to_owned() })
    }

    /// The file name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name that was given to `state backup`, or the reason.
    pub fn given(&self) -> &str {
        let given =
            self.reason.strip_prefix(pinned::MANUAL).and_then(|rest| rest.strip_prefix('-'));
        given.unwrap_or(&self.reason)
    }

    /// Returns whether it was made explicitly rather than by a commit.
    pub fn is_pinned(&self) -> bool {
        is_pinned_reason(&self.reason)
    }
}

fn is_pinned_reason(reason: &str) -> bool {
    use pinned::{MANUAL, PRE_ADOPT, PRE_FRESH, PRE_MIGRATION, PRE_RECOVER, PRE_RESTORE};
    [MANUAL, PRE_MIGRATION, PRE_RECOVER, PRE_ADOPT, PRE_RESTORE, PRE_FRESH].iter().any(|pinned| {
        reason.strip_prefix(pinned).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// The reason in the name of an automatic backup. A reason that reads like that of a pinned backup
/// is changed.
pub fn automatic_reason(reason: &str, action: &str) -> String {
    let name = Name::reduce(reason, action);
    if is_pinned_reason(name.as_str()) {
        format!("{action}-{name}")
    } else {
        name.as_str().to_owned()
    }
}

/// The reason in the name of a backup that `state backup NAME` makes.
pub fn manual_reason(name: Option<&Name>) -> String {
    match name.map(Name::as_str) {
        None => pinned::MANUAL.to_owned(),
        Some(name) if is_pinned_reason(name) && name.starts_with(pinned::MANUAL) => name.to_owned(),
        Some(name) => format!("{}-{name}", pinned::MANUAL),
    }
}

/// What the name of a staged signal file has in it.
pub const STAGED_SIGNAL: &str = "signal-";

/// Returns whether a name in the backup directory is a staged signal file of a running or dead
/// writer.
pub fn is_staged_signal(name: &str) -> bool {
    is_temporary(name) && name.contains(&format!("-{STAGED_SIGNAL}"))
}

/// Returns whether `name` matches a pattern of `state recover`: a substring, or a glob with `*` and
/// `?` for the whole name.
pub fn matches(pattern: &str, name: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return name.contains(pattern);
    }
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    // Greedy matching that backtracks to the last star only: linear in practice, never exponential.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || Some(c) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == b'*'))
}

/// The name of a state in the staging directory.
pub fn staged_state(number: u64) -> String {
    format!("state-{number}.json")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_backups_name_says_when_which_and_why() {
        let time = parse_compact("20231101-103000").unwrap();
        let name = BackupName::new(time, Revision::new(12), "phase-transition");
        assert_eq!(name.as_str(), "state-20231101-103000-r12-phase-transition.json");
        assert_eq!(BackupName::parse(name.as_str()), Some(name));
    }

    #[test]
    fn legacy_names_are_read_too() {
        let parse = |text| BackupName::parse(text).map(|name| (name.revision, name.reason));
        assert_eq!(parse("state-20231101-103000-auto.json"), Some((None, "auto".into())));
        assert_eq!(parse("state-20231101-103000.json"), Some((None, String::new())));
        assert_eq!(
            parse("state-20231101-103000-recover-me.json"),
            Some((None, "recover-me".into()))
        );
        for other in [
            "mirror.json",
            "corrupt-20231101-103000-ab.json",
            "state-x.json",
            "state-20231301-103000-a.json",
            "state-ü.json",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn no_writers_reason_can_pin_its_backup() {
        for reason in ["manual", "manual-x", "pre-recover", "pre-migration"] {
            let name =
                BackupName::new(SystemTime::UNIX_EPOCH, None, &automatic_reason(reason, "update"));
            assert!(!name.is_pinned(), "{reason}");
        }
        assert_eq!(automatic_reason("phase transition", "update"), "phase-transition");
        assert_eq!(automatic_reason("manually", "update"), "manually");
    }

    #[test]
    fn a_manual_backup_is_found_by_the_name_it_was_given() {
        for (name, reason) in [
            ("manual-backup", "manual-backup"),
            ("nightly", "manual-nightly"),
            ("pre-recover", "manual-pre-recover"),
        ] {
            let name = Name::parse("backup", name).unwrap();
            assert_eq!(manual_reason(Some(&name)), reason);
            assert!(BackupName::new(SystemTime::UNIX_EPOCH, None, reason).is_pinned());
        }
        assert_eq!(manual_reason(None), "manual");
    }

    #[test]
    fn patterns_are_substrings_or_globs() {
        let name = "state-20231101-103000-r12-nightly.json";
        for pattern in ["nightly", "r12", "2023", "state-*", "*nightly*", "*-r1?-*", "**.json"] {
            assert!(matches(pattern, name), "{pattern}");
        }
        for pattern in ["daily", "nightly*", "*-r1-*", "?"] {
            assert!(!matches(pattern, name), "{pattern}");
        }
        assert!(!matches(&"*a".repeat(50), &"b".repeat(100)));
    }
}
