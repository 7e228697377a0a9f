//! The place of a state: its root and its file, named or found.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CliOverrides;
use super::environment::Environment;
use super::nearest::{Marks, nearest_root};
use super::setting::STORE_VARIABLE;
use super::store_url::StoreUrl;
use crate::error::{Error, Invocation, Kind, Result, quote, quote_path};
use crate::fs::Disk;
use crate::placement::side_directory_of;
use crate::store::layout::{CONFIG, STATE_FILE};

#[cfg(feature = "etcd")]
use crate::etcd::address::Address;

/// The variable of the state file.
pub(super) const STATE_FILE_VARIABLE: &str = "STATE_FILE";

/// The way in which the root was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An option or a variable names it.
    Named,
    /// It is the nearest directory upwards with a mark.
    Found,
    /// No directory upwards has a mark, so it is the working directory.
    Nowhere,
}

/// The place of a state.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The directory that `config/` lies in. Absolute.
    pub root: PathBuf,
    /// The state file. Absolute.
    pub state_file: PathBuf,
    /// The state file's name.
    pub file_name: OsString,
    /// The root, if it was found above the working directory.
    pub found_above: Option<PathBuf>,
    /// The way in which the root was found.
    pub origin: Origin,
}

impl Place {
    /// The place that options and environment name, or that is found from the working directory up.
    pub(super) fn resolve(
        marks: Marks,
        overrides: &CliOverrides,
        env: &dyn Environment,
        disk: &Disk,
    ) -> Result<Self> {
        let (root, named) = explicit_root(overrides, env);
        let mut found_above = None;
        let mut origin = Origin::Named;
        let (root, state_file) = match (root, named) {
            (root, Some(file)) => (root.unwrap_or_else(|| directory_of(&file).to_owned()), file),
            (Some(root), None) => (root.clone(), root.join(STATE_FILE)),
            (None, None) => {
                let here = working_directory()?;
                let nearest = nearest_root(disk, &here, marks);
                origin = if nearest.is_some() { Origin::Found } else { Origin::Nowhere };
                let root = nearest.unwrap_or_else(|| here.clone());
                found_above = (!root.starts_with(&here)).then(|| root.clone());
                (root.clone(), root.join(STATE_FILE))
            }
        };
        let file_name = match state_file.file_name() {
            Some(name) if !state_file.as_os_str().as_encoded_bytes().ends_with(b"/") => {
                name.to_owned()
            }
            _ => {
                let shown = state_file.display().to_string();
                return Err(Error::new(
                    Kind::UnsafePath,
                    format!("{shown} names a directory, not a state file"),
                )
                .hint_shell(
                    format!("ls -ld {}", quote_path(&state_file)),
                    "see what it is; --root names a directory",
                ));
            }
        };
        // In logs that several roots share, and in hints, a path must mean the same everywhere.
        let state_file = std::path::absolute(&state_file).unwrap_or(state_file);
        let root = std::path::absolute(&root).unwrap_or(root);
        if origin == Origin::Named {
            check_places(&state_file, &root)?;
        }
        Ok(Self { root, state_file, file_name, found_above, origin })
    }
}

/// Refuses (6) a state in a directory that belongs to another state, or that a restore of its own
/// would replace.
fn check_places(state_file: &Path, root: &Path) -> Result<()> {
    let directory = directory_of(state_file);
    let in_config = || Some(root.join(CONFIG)).filter(|config| directory.starts_with(config));
    let Some(other) = side_directory_of(directory).or_else(in_config) else { return Ok(()) };
    let (shown, side) = (state_file.display().to_string(), other.display());
    let message = format!("{shown} is in {side}, which belongs to a state and is replaced with it");
    Err(Error::new(Kind::UnsafePath, message)
        .hint_command("--help", "--state-file and --root name another place")
        .detail("path", shown))
}

/// The root and the state file named by option or environment.
pub fn explicit_root(
    overrides: &CliOverrides,
    env: &dyn Environment,
) -> (Option<PathBuf>, Option<PathBuf>) {
    let root = overrides.root.clone().or_else(|| env.get("PIPELINE_ROOT").map(PathBuf::from));
    let state_file =
        overrides.state_file.clone().or_else(|| env.get(STATE_FILE_VARIABLE).map(PathBuf::from));
    (root, state_file)
}

/// The beginnings of hints, with the options that chose the state.
pub fn invocation(overrides: &CliOverrides, env: &dyn Environment) -> Invocation {
    let mut options = String::new();
    let (root, state_file) = explicit_root(overrides, env);
    for (option, value) in [("--root", root), ("--state-file", state_file)] {
        if let Some(value) = value {
            let word = quote_path(&value);
            let join = if word.starts_with('-') { '=' } else { ' ' };
            options.push_str(&format!(" {option}{join}{word}"));
        }
    }
    let in_env = env.get(STORE_VARIABLE);
    let unset = if in_env.is_some() { "env -u PIPELINE_STORE " } else { "" };
    let named = || StoreUrl::parse(in_env.as_ref()?.to_str()?).ok();
    // An address with a password is refused, and never repeated.
    let store = overrides.store.clone().or_else(named).filter(StoreUrl::is_shown_whole);
    let store = store.map(|url| format!(" --store {}", quote(url.as_str()))).unwrap_or_default();
    Invocation {
        program: format!("pipeline-state{options}{store}"),
        on_files: format!("{unset}pipeline-state{options}"),
        ..Invocation::default()
    }
}

/// The same where a command works with the store at `url`.
#[cfg(feature = "etcd")]
pub(super) fn for_cluster(invocation: Invocation, url: Option<&StoreUrl>) -> Invocation {
    match url.map(|url| Address::parse(url.as_str())) {
        Some(Ok(address)) => Invocation { etcdctl: address.etcdctl(), ..invocation },
        _ => invocation,
    }
}

pub(super) fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

pub(super) fn working_directory() -> Result<PathBuf> {
    std::env::current_dir().map_err(|error| {
        Error::new(Kind::Io, format!("the working directory cannot be determined: {error}"))
    })
}

/// The options of an editor's hook where neither option nor environment sets them: the nearest root
/// from the project's directory up, or else from the editor's working directory; and the lock
/// timeout.
pub fn for_hook(
    overrides: &CliOverrides,
    env: &dyn Environment,
    disk: &Disk,
    cwd: Option<&Path>,
    lock_timeout: Duration,
) -> Result<CliOverrides> {
    let mut overrides = overrides.clone();
    if explicit_root(&overrides, env) == (None, None) {
        let project = env.get("CLAUDE_PROJECT_DIR").map(PathBuf::from);
        let start = match project.as_deref().or(cwd) {
            Some(start) => {
                working_directory().map_or_else(|_| start.to_owned(), |here| here.join(start))
            }
            None => working_directory()?,
        };
        overrides.root = Some(nearest_root(disk, &start, Marks::State).unwrap_or(start));
    }
    if overrides.lock_timeout.is_none() && env.get("LOCK_TIMEOUT").is_none() {
        overrides.lock_timeout = Some(lock_timeout);
    }
    Ok(overrides)
}
