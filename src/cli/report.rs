//! The `report` command: the journal as an HTML page.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::report::Report;
use super::open;
use super::output::Output;
use super::write_command::with_store;
use crate::audit::{DEFAULT, FALLBACK};
use crate::config::Config;
use crate::error::{Error, ExitCode, Kind, Result, quote_path};
use crate::fs::stage::Durability;
use crate::fs::{At, Dir, Disk, FileKind};
use crate::lock::{EntryStatus, LockEntry};
use crate::placement::{is_kept_by_a_root, unfit_for_output};
use crate::report::{HeldGrant, Subject, Timeline, page};
use crate::store::Store;

/// Runs the command; its exit code.
pub fn run(
    command: &Report,
    config: &Config,
    disk: Disk,
    output: &Output<'_>,
) -> anyhow::Result<u8> {
    with_store(config, disk.clone(), output, None, |store| {
        let target = match command.output.as_path() {
            path if path == Path::new("-") => None,
            path => Some(Target::of(path, store, &disk)?),
        };
        let timeline = timeline(command, store, open::lock_entries(config, store)?)?;
        let html = page::html(&timeline);
        let Some(target) = target else {
            output.bytes(html.as_bytes())?;
            return Ok(ExitCode::Success as u8);
        };
        target.write(&html, &disk)?;
        let shown = command.output.display().to_string();
        output.confirm(
            &format!("Report written: {shown} ({} events)", timeline.events),
            &json!({"file": shown, "events": timeline.events}),
        );
        Ok(ExitCode::Success as u8)
    })
}

fn timeline(command: &Report, store: &Store, locks: Vec<LockEntry>) -> Result<Timeline> {
    let events = store.report().events()?;
    let locks = locks.into_iter();
    let locks = locks.filter(|entry| entry.status != EntryStatus::Stale);
    let now = store.now();
    let subject = Subject {
        root: match store.as_files() {
            Some(files) => files.settings().directory.display().to_string(),
            None => store.place(),
        },
        now,
        since: command.since.map(|since| since.before(now)),
        held: locks
            .filter_map(|entry| Some(HeldGrant { token: entry.token?, lock: entry.lock }))
            .collect(),
    };
    Ok(Timeline::of(&events, &subject))
}

/// The file that a report is written into, in an open directory.
struct Target {
    dir: Dir,
    name: PathBuf,
}

impl Target {
    /// Opens the directory. A file of a root, a link, and what is not a regular file are refused.
    fn of(path: &Path, store: &Store, disk: &Disk) -> Result<Self> {
        let name = match path.file_name() {
            Some(name) if !path.as_os_str().as_encoded_bytes().ends_with(b"/") => name,
            _ => return Err(refusal(path, "names a directory")),
        };
        let settings = store.settings();
        if let Some(why) = unfit_for_output(path, &settings.directory, &settings.file_name) {
            return Err(refusal(path, &why));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let resolved = parent.canonicalize().map_err(|error| {
            let message = format!("cannot open {}: {error}", parent.display());
            if error.kind() != std::io::ErrorKind::NotFound {
                return Error::new(Kind::of_io(&error), message);
            }
            Error::new(Kind::DependencyMissing, message).hint_shell(
                format!("mkdir -p {}", quote_path(parent)),
                "make the directory, or name another",
            )
        })?;
        let target = resolved.join(name);
        if name == FALLBACK || target == Path::new(DEFAULT) {
            return Err(refusal(path, "is an audit log"));
        }
        if is_kept_by_a_root(&target) {
            return Err(refusal(path, "is a file of a state"));
        }
        let dir = disk.open_root(&resolved)?;
        if let Some(stat) = disk.stat(&dir, name)? {
            let log = disk.stat(&Dir::working(), store.logs().audit().used())?;
            match stat.kind {
                _ if log.is_some_and(|log| log.same_file(&stat)) => {
                    return Err(refusal(path, "is the audit log"));
                }
                FileKind::Regular => {}
                FileKind::Symlink => return Err(refusal(path, "is a symbolic link")),
                FileKind::Directory => return Err(refusal(path, "is a directory")),
                FileKind::Special => return Err(refusal(path, "is not a regular file")),
            }
        }
        Ok(Self { dir, name: name.into() })
    }

    /// Replaces the file by a rename, which follows no link. The temporary name is none of a
    /// root's, which writers remove.
    fn write(&self, html: &str, disk: &Disk) -> Result<()> {
        let name = format!(".report-{}.part", std::process::id());
        let staged = disk.stage(&self.dir, &name, html.as_bytes(), Durability::Fsync)?;
        let at = |name| At { dir: &self.dir, name };
        disk.rename(at(OsStr::new(&name)), at(self.name.as_os_str()))?;
        staged.keep();
        Ok(())
    }
}

fn refusal(path: &Path, why: &str) -> Error {
    let shown = path.display().to_string();
    Error::new(Kind::UnsafePath, format!("{shown} {why}; no report was written"))
        .detail("path", shown)
        .hint_command("report -o report.html", "name another file")
}
