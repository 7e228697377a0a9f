//! An editor's settings file: found, read, and replaced whole.
//!
//! A project's files came with the project. So its `.claude` and its settings may be links only
//! within it, and from the project's directory on no link is followed: the path without links is
//! opened one directory after the other.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::acl::AclKind;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Completeness, Content, Dir, Disk, FileKind, FsError, Stat};
use crate::hook::EDITORS;
use crate::placement::is_kept_by_a_root;
use crate::side::{foreign_owner, unsafe_path};
use crate::user;

/// The largest settings file, in bytes.
const LIMIT: u64 = 4 << 20;

/// The settings file among those of an editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditorScope {
    /// The project's, which a team shares.
    Project,
    /// The project's own of this user.
    Local,
    /// The user's, for all projects.
    User,
}

impl EditorScope {
    /// The name of its file.
    fn file(self) -> &'static str {
        match self {
            Self::Project | Self::User => "settings.json",
            Self::Local => "settings.local.json",
        }
    }

    /// The mode of a new file.
    fn mode(self) -> u32 {
        match self {
            Self::Project => 0o644,
            Self::Local | Self::User => 0o600,
        }
    }
}

/// A settings file.
#[derive(Debug)]
pub struct SettingsFile<'d> {
    disk: &'d Disk,
    scope: EditorScope,
    /// The path as the editor knows it.
    path: PathBuf,
    /// The file that it leads to.
    dir: Option<Dir>,
    name: OsString,
    found: Option<Content>,
}

impl<'d> SettingsFile<'d> {
    /// Finds and reads the file of a scope: below `base`, the project, or the directory with the
    /// user's own. `state` is the path of the state file.
    pub fn open(disk: &'d Disk, scope: EditorScope, base: &Path, state: &Path) -> Result<Self> {
        let editors = match scope {
            EditorScope::User => base.to_owned(),
            EditorScope::Project | EditorScope::Local => base.join(EDITORS),
        };
        let path = editors.join(scope.file());
        let none = Self { disk, scope, path, dir: None, name: scope.file().into(), found: None };
        // Where `.claude` is missing, it is made later.
        let real_editors = match editors.symlink_metadata() {
            Err(_) => return Ok(none),
            Ok(_) => none.real(&editors)?,
        };
        let target = match none.path.symlink_metadata() {
            Ok(found) if found.is_symlink() => none.linked(state)?,
            _ => real_editors.join(scope.file()),
        };
        let dir = none.open_dir(base, target.parent().unwrap_or(&real_editors))?;
        let name = target.file_name().unwrap_or_default().to_owned();
        let found = disk.read(&dir, &name, LIMIT).map_err(|error| none.refusal(error))?;
        if let Some(content) = &found {
            none.check(content)?;
        }
        Ok(Self { dir: Some(dir), name, found, ..none })
    }

    /// The path as the editor knows it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file exists.
    pub fn exists(&self) -> bool {
        self.found.is_some()
    }

    /// The text; empty if there is no file.
    pub fn text(&self) -> Result<&str> {
        let Some(found) = &self.found else { return Ok("") };
        std::str::from_utf8(&found.bytes).map_err(|_| self.about("is not UTF-8"))
    }

    /// The error about a text that cannot be edited.
    pub fn about(&self, why: &str) -> Error {
        let shown = self.path.display().to_string();
        Error::new(Kind::InvalidJson, format!("{shown} {why}; it was not changed"))
            .hint_shell(format!("${{EDITOR:-vi}} {}", quote_path(&self.path)), "make it plain JSON")
            .hint_command("hook settings", "or print what belongs in it")
            .detail("path", shown)
    }

    /// Puts a new text in the file's place: whole or not at all. The mode, the group and the access
    /// control list stay.
    pub fn replace(&self, base: &Path, text: &str) -> Result<()> {
        let made;
        let dir = match &self.dir {
            Some(dir) => dir,
            None => {
                made = self.make_dir(base)?;
                &made
            }
        };
        let staged = self.disk.stage_beside(dir, &self.name, text.as_bytes())?;
        let path = dir.path_of(&self.name);
        if let Some(file) = staged.open(self.disk, dir)? {
            let was = self.found.as_ref().map(|found| found.stat);
            let stat = self.disk.fstat(&file, &path)?;
            if let Some(was) = was.filter(|was| was.gid != stat.gid) {
                self.disk.set_group_of(file.as_fd(), &path, was.gid)?;
            }
            let old = self.disk.open(dir, &self.name, crate::fs::Access::Read)?;
            if let Some(old) = old.filter(|_| was.is_some()) {
                let acl = self.disk.acl(old.as_fd(), &path, AclKind::Access)?;
                self.disk.set_acl(file.as_fd(), &path, AclKind::Access, acl.as_ref())?;
            }
            let mode = was.map_or(self.scope.mode(), |was| was.mode & 0o777);
            self.disk.set_mode_of(file.as_fd(), &path, mode)?;
        }
        if !self.is_unchanged(self.disk.stat(dir, &self.name)?) {
            let message =
                format!("{} was changed meanwhile; nothing was done", self.path.display());
            return Err(
                Error::new(Kind::Conflict, message).hint_command("hook install", "do it again")
            );
        }
        Ok(staged.put_in_place(self.disk, dir, &self.name)?)
    }

    fn is_unchanged(&self, now: Option<Stat>) -> bool {
        match (&self.found, now) {
            (Some(found), Some(now)) => found.stat.unchanged(&now),
            (found, now) => found.is_none() && now.is_none(),
        }
    }

    /// Makes the editor's directory.
    fn make_dir(&self, base: &Path) -> Result<Dir> {
        let (parent, name) = match self.scope {
            EditorScope::User => (base.parent().unwrap_or(base), base.file_name()),
            EditorScope::Project | EditorScope::Local => (base, Some(OsStr::new(EDITORS))),
        };
        let parent = self.own(self.disk.open_root(parent)?)?;
        let name = name.unwrap_or_default();
        self.disk.make_dir(&parent, name)?;
        if self.scope != EditorScope::User
            && let Some(stat) = self.disk.stat(&parent, name)?
        {
            // A project's directories are the usual ones.
            self.disk.set_mode(&parent, name, &stat, 0o755)?;
        }
        Ok(self.disk.open_dir(&parent, name)?)
    }

    /// The target of a link, which must not be a file of a state.
    fn linked(&self, state: &Path) -> Result<PathBuf> {
        let target = self.real(&self.path)?;
        let is_state = state.canonicalize().is_ok_and(|state| state == target);
        if is_state || is_kept_by_a_root(&target) {
            let why = format!("leads to {}, which is a file of a state", target.display());
            return Err(unsafe_path(&self.path, &why));
        }
        Ok(target)
    }

    /// A path without links; in a project it must stay there.
    fn real(&self, path: &Path) -> Result<PathBuf> {
        let real = path.canonicalize().map_err(|error| {
            let why = format!("cannot be followed: {error}");
            unsafe_path(path, &why)
        })?;
        let base = match self.scope {
            EditorScope::User => return Ok(real),
            EditorScope::Project | EditorScope::Local => self.base(),
        };
        match base.canonicalize() {
            Ok(base) if real.starts_with(&base) => Ok(real),
            _ => {
                let why = format!("leads to {}, which lies outside the project", real.display());
                Err(unsafe_path(path, &why).detail("target", real.display().to_string()))
            }
        }
    }

    /// The project.
    fn base(&self) -> &Path {
        self.path.parent().and_then(Path::parent).unwrap_or(Path::new("/"))
    }

    /// Opens a directory that [`Self::real`] found.
    fn open_dir(&self, base: &Path, real: &Path) -> Result<Dir> {
        let base = match (self.scope, base.canonicalize()) {
            (EditorScope::Project | EditorScope::Local, Ok(base)) => base,
            _ => return self.own(self.disk.open_root(real)?),
        };
        let inside = real.strip_prefix(&base).unwrap_or(Path::new(""));
        let mut dir = self.disk.open_root(&base)?;
        for name in inside {
            dir = self.disk.open_dir(&dir, name).map_err(|error| self.refusal(error))?;
        }
        self.own(dir)
    }

    /// Refuses another user's directory: root could write there, and what it made would be root's.
    fn own(&self, dir: Dir) -> Result<Dir> {
        match self.disk.stat(&dir, ".")? {
            Some(stat) if stat.kind != FileKind::Directory => {
                Err(unsafe_path(dir.path(), "is not a directory"))
            }
            Some(stat) if stat.uid != user::current() => Err(foreign_owner(dir.path(), stat.uid)),
            _ => Ok(dir),
        }
    }

    fn check(&self, content: &Content) -> Result<()> {
        if content.stat.kind != FileKind::Regular {
            return Err(unsafe_path(&self.path, "is not a regular file"));
        }
        if content.stat.uid != user::current() {
            return Err(foreign_owner(&self.path, content.stat.uid));
        }
        if content.size == Completeness::OverLimit {
            let message = format!(
                "{} has over {} MiB, the limit of settings",
                self.path.display(),
                LIMIT >> 20
            );
            return Err(Error::new(Kind::TooLarge, message)
                .hint_shell(format!("ls -l {}", quote_path(&self.path)), "see what it is"));
        }
        Ok(())
    }

    fn refusal(&self, error: FsError) -> Error {
        if error.is(Errno::LOOP) || error.is(Errno::NOTDIR) {
            return unsafe_path(&error.path, "is a link, or not a directory");
        }
        error.into()
    }
}
