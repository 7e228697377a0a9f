//! Finds and reads the rules.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::EDITORS;
use super::rules::{FILE, LIMIT, ParsedRules, RuleFinding, Scope, parse};
use crate::error::{Error, Kind, Result, quote_path};
use crate::side::unsafe_path;
use crate::store::layout::CONFIG;

/// The directory for skills in [`EDITORS`].
const SKILLS: &str = "skills";

/// Path of a root's rules; it takes precedence.
pub fn path(root: &Path) -> PathBuf {
    root.join(CONFIG).join(FILE)
}

/// Path of the rules that are read if none are at [`path`]: in the editor's directory, `.claude`.
pub fn editors_path(root: &Path) -> PathBuf {
    let is_editors = root.file_name().is_some_and(|name| name == EDITORS);
    let editors = if is_editors { root.to_owned() } else { root.join(EDITORS) };
    editors.join(SKILLS).join(FILE)
}

/// A root's rules.
#[derive(Debug)]
pub struct Loaded {
    /// The file that was read.
    pub path: PathBuf,
    /// Its rules; the error is that of an unusable file.
    pub read: std::result::Result<ParsedRules, RuleFinding>,
    /// Another file of rules, which is ignored: rules are never merged. Looked for only where all
    /// is read.
    pub unread: Option<PathBuf>,
}

/// Reads the rules of a root, if there are any. They are the user's own, so the file or `config/`
/// may be a link within the project: only a restore, which would have to replace it, refuses that.
pub fn load(root: &Path, scope: Scope<'_>) -> Result<Option<Loaded>> {
    let (first, second) = (path(root), editors_path(root));
    let is_there = || second.symlink_metadata().is_ok();
    if let Some(refusal) = leads_out(root, &first) {
        return Err(refusal);
    }
    if let Some(bytes) = read(&first, || in_the_way(root))? {
        let unread = (scope == Scope::All && is_there()).then(|| second.clone());
        return Ok(Some(Loaded { read: parse(&bytes, scope), path: first, unread }));
    }
    if let Some(refusal) = leads_out(root, &second) {
        return Err(refusal);
    }
    let refusal = || is_wrong(&second, Metadata::is_file, "a file");
    let bytes = read(&second, || if is_there() { refusal() } else { None })?;
    Ok(bytes.map(|bytes| Loaded { read: parse(&bytes, scope), path: second, unread: None }))
}

/// The bytes of a file of rules, if it exists; `refusal` explains one that cannot be read.
fn read(path: &Path, refusal: impl FnOnce() -> Option<Error>) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|(file, size)| {
        bytes.reserve(usize::try_from(size.min(LIMIT)).unwrap_or_default() + 1);
        file.take(LIMIT + 1).read_to_end(&mut bytes)
    });
    match read {
        Err(error) => {
            if let Some(refusal) = refusal() {
                return Err(refusal);
            }
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                return Ok(None);
            }
            Err(Error::new(Kind::of_io(&error), format!("cannot read {}: {error}", path.display()))
                .hint_shell(format!("ls -lL {}", quote_path(path)), "see what it is, and whose"))
        }
        Ok(_) if bytes.len() as u64 > LIMIT => {
            let message =
                format!("{} has over {} MiB, the limit of rules", path.display(), LIMIT >> 20);
            Err(Error::new(Kind::TooLarge, message)
                .hint_shell(format!("ls -l {}", quote_path(path)), "see what makes it so large"))
        }
        Ok(_) => Ok(Some(bytes)),
    }
}

/// The refusal if a file of another kind is in the rules' place.
pub fn in_the_way(root: &Path) -> Option<Error> {
    let path = path(root);
    is_wrong(path.parent()?, Metadata::is_dir, "a directory")
        .or_else(|| is_wrong(&path, Metadata::is_file, "a file"))
}

/// The refusal if the file at a path is not `wanted`; `None` if there is none.
fn is_wrong(path: &Path, is_right: fn(&Metadata) -> bool, wanted: &str) -> Option<Error> {
    let is_link = path.symlink_metadata().ok()?.is_symlink();
    let is_lost = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            || Kind::of_io(error) == Kind::UnsafePath
    };
    let (what, is_special) = match path.metadata() {
        Ok(found) if is_right(&found) => return None,
        Ok(found) if found.is_dir() => ("a directory", false),
        Ok(found) if found.is_file() => ("a file", false),
        Ok(_) => ("a device, pipe or socket", !is_link),
        Err(error) if is_link && is_lost(&error) => ("a symbolic link that leads nowhere", false),
        Err(_) => return None, // opening it reports this
    };
    let word = quote_path(path);
    // No checkpoint can hold a special file, so it must not stay in `config/`.
    let away = if is_special { format!("rm -i {word}") } else { format!("mv {word} {word}.old") };
    Some(
        unsafe_path(path, &format!("is {what}, not {wanted}"))
            .hint_shell(away, "make room")
            .hint_command("hook init-rules", "then write rules to begin with"),
    )
}

/// The refusal of rules that a link leads to outside the project: the link came with the root, and
/// an error about a rule could quote any file of this user.
fn leads_out(root: &Path, path: &Path) -> Option<Error> {
    let inner = root.file_name().is_some_and(|name| name == EDITORS);
    let project = root.parent().filter(|_| inner).unwrap_or(root);
    let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    if !path.ancestors().take_while(|part| *part != project).any(is_link) {
        return None;
    }
    let project = project.canonicalize().ok()?;
    let real = path.canonicalize().ok().filter(|real| !real.starts_with(project))?;
    let why =
        format!("is read by way of a link to {}, which is outside the project", real.display());
    Some(unsafe_path(path, &why).detail("target", real.display().to_string()))
}

/// Opens a file of rules without blocking: a pipe in its place has no writer. Returns its size,
/// too.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok((file, metadata.len()))
}
