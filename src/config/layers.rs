//! The layers of a setting: option over environment over the root's file over the user's file over
//! the default. Each value knows its source.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::CliOverrides;
use super::environment::Environment;
use super::file::ConfigFile;
use super::setting::{
    AUDIT_LOG, AUTO_RECOVER, AnySetting, BACKUP_DAYS, CHECKPOINT_DAYS, COLOR, FOREIGN_EDITS,
    FORMAT, LOCK_EXIT, LOCK_TIMEOUT, MAX_BACKUPS, MAX_CHECKPOINTS, STORE, Scope, Setting, Shown,
};
use super::store_url::StoreUrl;
use super::style::{self, Color, Format};
use crate::error::{Error, Kind, Result};
use crate::store::{AutoRecover, ForeignEdits};
use std::time::Duration;

/// The layer that a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An option, without dashes.
    Option(&'static str),
    /// A variable.
    Variable(&'static str),
    /// A line of the root's file.
    RootFile(PathBuf, usize),
    /// A line of the user's file.
    UserFile(PathBuf, usize),
    /// No root was named, and this one was found.
    Found,
    /// Nothing sets it.
    Default,
}

impl Source {
    /// The layer's name in JSON.
    pub fn layer(&self) -> &'static str {
        match self {
            Self::Option(_) => "option",
            Self::Variable(_) => "environment",
            Self::RootFile(..) => "root",
            Self::UserFile(..) => "user",
            Self::Found => "found",
            Self::Default => "default",
        }
    }

    /// The option, variable, or line of a file; `None` for a default.
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Option(name) => Some(format!("--{name}")),
            Self::Variable(name) => Some((*name).to_owned()),
            Self::RootFile(path, line) | Self::UserFile(path, line) => {
                Some(format!("{}:{line}", path.display()))
            }
            Self::Found | Self::Default => None,
        }
    }
}

/// A value and its source.
#[derive(Clone, Debug)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Its source.
    pub source: Source,
}

/// The layers below the options.
pub(super) struct Layers<'a> {
    pub env: &'a dyn Environment,
    pub root: Option<&'a ConfigFile>,
    pub user: Option<&'a ConfigFile>,
}

impl Layers<'_> {
    fn value<T>(&self, setting: &Setting<T>, option: Option<T>) -> Result<Sourced<T>> {
        if let (Some(value), Some(name)) = (option, setting.option) {
            return Ok(Sourced { value, source: Source::Option(name) });
        }
        if let Some(name) = setting.variable
            && let Some(value) = typed(self.env, name, setting.parse)?
        {
            return Ok(Sourced { value, source: Source::Variable(name) });
        }
        Ok(self
            .in_files(setting)
            .unwrap_or_else(|| Sourced { value: (setting.default)(), source: Source::Default }))
    }

    fn in_files<T>(&self, setting: &Setting<T>) -> Option<Sourced<T>> {
        let read = |file: &ConfigFile, scope| {
            let (text, line) = file.get(setting.name)?;
            let value = setting.parse_in(scope, text).ok()?;
            let source = match scope {
                Scope::Root => Source::RootFile(file.path.clone(), line),
                Scope::User => Source::UserFile(file.path.clone(), line),
            };
            Some(Sourced { value, source })
        };
        let of_root = || self.root.and_then(|file| read(file, Scope::Root));
        of_root().or_else(|| self.user.and_then(|file| read(file, Scope::User)))
    }

    /// The path is as it was given; only a file must name an absolute one.
    fn audit_log(&self, option: Option<PathBuf>) -> Sourced<PathBuf> {
        if let Some(value) = option {
            return Sourced { value, source: Source::Option("audit-log") };
        }
        if let Some(value) = self.env.get("AUDIT_LOG") {
            return Sourced { value: value.into(), source: Source::Variable("AUDIT_LOG") };
        }
        let default = || Sourced { value: (AUDIT_LOG.default)(), source: Source::Default };
        self.in_files(&AUDIT_LOG).unwrap_or_else(default)
    }

    /// The variables of other programs come after the option, and before the files.
    fn color(&self, option: Option<Color>) -> Sourced<Color> {
        let wanted = match option {
            Some(_) => None,
            None if self.env.get("NO_COLOR").is_some() => {
                return Sourced { value: Color::Never, source: Source::Variable("NO_COLOR") };
            }
            None => self.in_files(&COLOR),
        };
        let source = match (&wanted, option) {
            (_, Some(_)) => Source::Option("color"),
            (Some(wanted), None) => wanted.source.clone(),
            (None, None) => Source::Default,
        };
        let value = option.or(wanted.map(|wanted| wanted.value));
        Sourced { value: style::color(value, self.env), source }
    }
}

/// The settings that files can hold, resolved.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is the setting of its name
pub struct Values {
    pub store: Sourced<Option<StoreUrl>>,
    pub lock_timeout: Sourced<Duration>,
    pub lock_exit: Sourced<u8>,
    pub max_backups: Sourced<usize>,
    pub backup_days: Sourced<u64>,
    pub max_checkpoints: Sourced<usize>,
    pub checkpoint_days: Sourced<u64>,
    pub auto_recover: Sourced<AutoRecover>,
    pub foreign_edits: Sourced<ForeignEdits>,
    pub audit_log: Sourced<PathBuf>,
    pub format: Sourced<Format>,
    pub color: Sourced<Color>,
}

/// A setting as `config` shows it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// Its source.
    pub source: Source,
}

impl Row {
    fn of<T: Shown>(setting: &dyn AnySetting, resolved: &Sourced<T>) -> Self {
        Self {
            name: setting.name(),
            value: resolved.value.shown(),
            source: resolved.source.clone(),
        }
    }

    /// A path that no file can set.
    pub(super) fn of_path(name: &'static str, path: &Path, source: Source) -> Self {
        Self { name, value: path.shown(), source }
    }
}

impl Values {
    /// Resolves all settings.
    pub(super) fn resolve(overrides: &CliOverrides, layers: &Layers<'_>) -> Result<Self> {
        Ok(Self {
            store: layers.value(&STORE, overrides.store.clone().map(Some))?,
            lock_timeout: layers.value(&LOCK_TIMEOUT, overrides.lock_timeout)?,
            lock_exit: layers.value(&LOCK_EXIT, overrides.lock_exit)?,
            max_backups: layers.value(&MAX_BACKUPS, None)?,
            backup_days: layers.value(&BACKUP_DAYS, None)?,
            max_checkpoints: layers.value(&MAX_CHECKPOINTS, None)?,
            checkpoint_days: layers.value(&CHECKPOINT_DAYS, None)?,
            auto_recover: layers.value(&AUTO_RECOVER, None)?,
            foreign_edits: layers.value(&FOREIGN_EDITS, None)?,
            audit_log: layers.audit_log(overrides.audit_log.clone()),
            format: layers.value(&FORMAT, overrides.format)?,
            color: layers.color(overrides.color),
        })
    }

    /// All settings, in the order of the table.
    pub(super) fn rows(&self) -> Vec<Row> {
        vec![
            Row::of(&STORE, &self.store),
            Row::of(&LOCK_TIMEOUT, &self.lock_timeout),
            Row::of(&LOCK_EXIT, &self.lock_exit),
            Row::of(&MAX_BACKUPS, &self.max_backups),
            Row::of(&BACKUP_DAYS, &self.backup_days),
            Row::of(&MAX_CHECKPOINTS, &self.max_checkpoints),
            Row::of(&CHECKPOINT_DAYS, &self.checkpoint_days),
            Row::of(&AUTO_RECOVER, &self.auto_recover),
            Row::of(&FOREIGN_EDITS, &self.foreign_edits),
            Row::of(&AUDIT_LOG, &self.audit_log),
            Row::of(&FORMAT, &self.format),
            Row::of(&COLOR, &self.color),
        ]
    }
}

/// A variable parsed as a type; a wrong value is a usage error, like on the command line.
pub(super) fn typed<T>(
    env: &dyn Environment,
    name: &str,
    parse: impl Fn(&str) -> std::result::Result<T, String>,
) -> Result<Option<T>> {
    let Some(value) = env.get(name) else {
        return Ok(None);
    };
    let text = value.to_string_lossy();
    match parse(&text) {
        Ok(value) => Ok(Some(value)),
        Err(why) => Err(Error::new(
            Kind::Usage,
            format!("the environment variable {name} cannot be understood: {why}"),
        )
        .hint_shell(format!("unset {name}"), "take the default, or correct it")),
    }
}
