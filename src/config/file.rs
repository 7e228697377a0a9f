//! A configuration file: opened with suspicion, read as TOML, and checked against the table of
//! settings.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::setting::{ALL, AnySetting, Scope, Shape};
use crate::document::seal::Digest;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::{Completeness, Content, Dir, Disk, FileKind, Stat};
use crate::name::nearest;
use crate::side::{foreign_owner, unsafe_path};
use crate::user;

/// The largest configuration file, in bytes.
pub const LIMIT: u64 = 64 << 10;

/// A configuration file as it was found.
#[derive(Debug)]
pub enum Found {
    /// There is none, or it is not this user's to read.
    Missing,
    /// It is not used: another user may have written it, or it is no plain file.
    Refused(Error),
    /// It was read.
    Read(ConfigFile),
}

/// A configuration file that was read.
#[derive(Debug)]
pub struct ConfigFile {
    /// Its path.
    pub path: PathBuf,
    /// The digest of its bytes.
    pub digest: Digest,
    entries: Vec<Entry>,
    /// Whether it is TOML at all.
    pub is_toml: bool,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// A setting in a file.
#[derive(Debug)]
struct Entry {
    name: &'static str,
    value: String,
    line: usize,
}

/// A line of a configuration file that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its number.
    pub line: usize,
    /// The setting that it names, if it names one.
    pub key: Option<String>,
    /// What is wrong, in words.
    pub message: String,
    /// The setting that was probably meant.
    pub suggestion: Option<&'static str>,
}

impl ConfigFile {
    /// The value of a setting and its line, if the file sets it.
    pub fn get(&self, name: &str) -> Option<(&str, usize)> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        Some((&entry.value, entry.line))
    }

    /// The problems with the place of each: `FILE:LINE: WORDS`.
    pub fn located(&self) -> impl Iterator<Item = String> + '_ {
        let path = self.path.display();
        self.problems.iter().map(move |wrong| format!("{path}:{}: {}", wrong.line, wrong.message))
    }

    /// The error of a command that needs the file to be right, where it is not.
    pub fn check(&self) -> Result<()> {
        let Some(first) = self.problems.first() else { return Ok(()) };
        let more = match self.problems.len() {
            1 => String::new(),
            number => format!(" (and {} more)", number - 1),
        };
        let message = format!("{}{more}", self.located().next().unwrap_or_default());
        let word = quote_path(&self.path);
        let correct = format!("${{EDITOR:-vi}} +{} {word}", first.line);
        Err(Error::new(Kind::Usage, message)
            .hint_shell(correct, "correct it")
            .hint_command("config", "see all settings")
            .detail("path", self.path.display().to_string())
            .detail("problems", serde_json::json!(self.problems)))
    }
}

/// Reads the file of a scope at a path. A missing file costs one system call.
pub fn read(disk: &Disk, scope: Scope, path: PathBuf) -> Found {
    let content = match open(disk, scope, &path) {
        Ok(Some(content)) => content,
        Ok(None) => return Found::Missing,
        Err(error) => return Found::Refused(error),
    };
    if let Err(error) = check_kind(&content, &path) {
        return Found::Refused(error);
    }
    match owner(disk, scope, &path, &content.stat) {
        Owner::Trusted => {}
        Owner::Ignored => return Found::Missing,
        Owner::Other => return Found::Refused(foreign_owner(&path, content.stat.uid)),
    }
    if content.stat.mode & 0o002 != 0 {
        let why = format!("may be written by every user (mode {:04o})", content.stat.mode);
        let command = format!("chmod o-w {}", quote_path(&path));
        let error = unsafe_path(&path, &why);
        return Found::Refused(
            error.hint_shell(command, "once you know that it is as you wrote it"),
        );
    }
    Found::Read(parse(scope, path, &content.bytes))
}

/// Opens and reads a file. A link is not followed in a root, which may have brought it along; the
/// user's own file may be one.
fn open(disk: &Disk, scope: Scope, path: &Path) -> Result<Option<Content>> {
    let is_link = |error: &crate::fs::FsError| error.is(Errno::LOOP);
    match disk.read(&Dir::working(), path, LIMIT) {
        Err(error) if error.is(Errno::NOTDIR) => Ok(None),
        // Where the directory itself is closed, the state in it says so.
        Err(error) if error.is(Errno::ACCESS) && disk.stat(&Dir::working(), path).is_err() => {
            Ok(None)
        }
        Err(error) if is_link(&error) && scope == Scope::User => {
            // A link that leads nowhere is a file that is missing.
            let Ok(target) = path.canonicalize() else { return Ok(None) };
            Ok(disk.read(&Dir::working(), target, LIMIT)?)
        }
        Err(error) if is_link(&error) => {
            Err(unsafe_path(path, "is a symbolic link, and settings are not read through one"))
        }
        result => Ok(result?),
    }
}

fn check_kind(content: &Content, path: &Path) -> Result<()> {
    if content.stat.kind != FileKind::Regular {
        return Err(unsafe_path(path, "is not a regular file"));
    }
    if content.size == Completeness::OverLimit {
        let why = format!("has over {} KiB, the limit of a configuration file", LIMIT >> 10);
        return Err(unsafe_path(path, &why));
    }
    Ok(())
}

/// The trust in a file's owner.
enum Owner {
    Trusted,
    /// The file is another user's, and so is everything around it: it was not meant for root.
    Ignored,
    Other,
}

/// Judges a file's owner. Root reads the file that a root's owner wrote, which can only set what
/// concerns that root; and it never takes its own settings from another user, who could have it
/// write anywhere. Root itself may have written any user's own file.
fn owner(disk: &Disk, scope: Scope, path: &Path, stat: &Stat) -> Owner {
    let current = user::current();
    match scope {
        _ if stat.uid == current => Owner::Trusted,
        Scope::User if stat.uid == 0 => Owner::Trusted,
        Scope::User if current == 0 => Owner::Ignored,
        Scope::Root if current == 0 && owner_of_directory(disk, path) == Some(stat.uid) => {
            Owner::Trusted
        }
        _ => Owner::Other,
    }
}

fn owner_of_directory(disk: &Disk, path: &Path) -> Option<u32> {
    Some(disk.stat(&Dir::working(), path.parent()?.join(".")).ok()??.uid)
}

/// Reads the text of a file. What is wrong is left out, and named.
fn parse(scope: Scope, path: PathBuf, bytes: &[u8]) -> ConfigFile {
    let digest = Digest::of(bytes);
    let mut file =
        ConfigFile { path, digest, entries: Vec::new(), is_toml: false, problems: Vec::new() };
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = line_at(bytes, error.valid_up_to());
            file.problems.push(Problem::of(line, "it is not UTF-8".to_owned()));
            return file;
        }
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let line = line_at(bytes, error.span().map_or(0, |span| span.start));
            let why = error.message().replace('\n', ", ");
            file.problems.push(Problem::of(line, format!("it is not TOML: {why}")));
            return file;
        }
    };
    file.is_toml = true;
    for (key, value) in table.get_ref() {
        let line = line_at(bytes, key.span().start);
        match setting(scope, key.get_ref(), value.get_ref()) {
            Ok((name, value)) => file.entries.push(Entry { name, value, line }),
            Err(wrong) => file.problems.push(Problem { line, ..wrong }),
        }
    }
    file.problems.sort_by_key(|problem| problem.line);
    file
}

impl Problem {
    fn of(line: usize, message: String) -> Self {
        Self { line, key: None, message, suggestion: None }
    }
}

/// The name of a setting, and its value as text.
fn setting(
    scope: Scope,
    key: &str,
    value: &DeValue<'_>,
) -> std::result::Result<(&'static str, String), Problem> {
    let of_key = |message: String, suggestion| Problem {
        line: 0,
        key: Some(key.to_owned()),
        message,
        suggestion,
    };
    let Some(setting) = ALL.iter().find(|setting| setting.name() == key) else {
        let spelt = key.replace('_', "-").to_lowercase();
        let names = || ALL.iter().map(|setting| setting.name());
        let meant = names().find(|name| *name == spelt).or_else(|| nearest(&spelt, names()));
        let end = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        return Err(of_key(format!("`{key}` is not a setting{end}"), meant));
    };
    if scope == Scope::Root && !setting.is_for_roots() {
        let ways = setting.option().map(|option| format!("--{option}")).into_iter();
        let ways: Vec<String> = ways.chain(setting.variable().map(str::to_owned)).collect();
        let message = format!(
            "`{key}` cannot be set in the file of a root, only in your own, or by {}",
            ways.join(" or ")
        );
        return Err(of_key(message, None));
    }
    let text = text_of(*setting, value)
        .map_err(|shape| of_key(format!("`{key}` is not {}", shape.name()), None))?;
    setting
        .check(scope, &text)
        .map_err(|why| of_key(format!("`{key}` cannot be understood: {why}"), None))?;
    Ok((setting.name(), text))
}

/// A value as the text of a variable, if it has the setting's shape.
fn text_of(setting: &dyn AnySetting, value: &DeValue<'_>) -> std::result::Result<String, Shape> {
    let shape = setting.shape();
    match (shape, value) {
        (Shape::Text | Shape::Duration, DeValue::String(text)) => Ok(text.to_string()),
        (Shape::Switch, DeValue::Boolean(is_on)) => Ok(is_on.to_string()),
        (Shape::Count | Shape::Duration, DeValue::Integer(number)) if number.radix() == 10 => {
            Ok(number.as_str().to_owned())
        }
        (Shape::Duration, DeValue::Float(number)) => Ok(number.as_str().to_owned()),
        _ => Err(shape),
    }
}

/// The number of the line with this byte.
fn line_at(bytes: &[u8], offset: usize) -> usize {
    1 + bytes.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(scope: Scope, text: &str) -> ConfigFile {
        parse(scope, "/r/.pipeline-state.toml".into(), text.as_bytes())
    }

    #[test]
    fn values_have_the_types_of_toml() {
        let file = of(
            Scope::User,
            "\u{feff}lock-timeout = \"2m\"\nmax-backups = 1_0\r\nauto-recover = false\n\n\
             audit-log = '/x' # there\nlock-exit = 75\n",
        );
        assert_eq!(file.problems, []);
        for (name, value, line) in [
            ("lock-timeout", "2m", 1),
            ("max-backups", "10", 2),
            ("auto-recover", "false", 3),
            ("audit-log", "/x", 5),
            ("lock-exit", "75", 6),
        ] {
            assert_eq!(file.get(name), Some((value, line)));
        }
        assert_eq!(of(Scope::Root, "lock-timeout = 0.5").get("lock-timeout"), Some(("0.5", 1)));
    }

    #[test]
    fn each_wrong_line_is_named_and_the_others_count() {
        let text = "max_backups = 3\nlock-timout = 3\nbackup-days = 9\nnonsense = 1\n\
                    max-checkpoints = 'x'\nlock-timeout = '11m'\naudit-log = '/etc/passwd'\n\
                    [store]\n";
        let file = of(Scope::Root, text);
        let said: Vec<(usize, Option<&str>)> =
            file.problems.iter().map(|wrong| (wrong.line, wrong.suggestion)).collect();
        let expected = [
            (1, Some("max-backups")),
            (2, Some("lock-timeout")),
            (4, None),
            (5, None),
            (6, None),
            (7, None),
            (8, None),
        ];
        assert_eq!(said, expected);
        assert_eq!(file.get("backup-days"), Some(("9", 3)));
        assert!(file.get("lock-timeout").is_none() && file.get("audit-log").is_none());
        let error = file.check().unwrap_err();
        let begin = "/r/.pipeline-state.toml:1: `max_backups` is not a setting; \
                     did you mean `max-backups`?";
        assert!(error.message.starts_with(begin), "{}", error.message);
        assert!(error.message.ends_with("(and 6 more)"), "{}", error.message);
    }

    #[test]
    fn what_is_no_toml_is_wrong_in_its_line() {
        for text in ["a = 1\nb =\n", "a = 1\na = 2\n"] {
            assert_eq!(of(Scope::User, text).problems.last().unwrap().line, 2, "{text}");
        }
        let file = parse(Scope::User, "x".into(), b"lock-exit = 1\n# \xff\n");
        assert_eq!((file.problems.len(), file.problems.first().unwrap().line), (1, 2));
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("a = {}1{}", "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(of(Scope::Root, &deep).problems.len(), 1);
    }
}
