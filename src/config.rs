//! Configuration: options over environment over configuration files over defaults, resolved once.
//! All settings are read here; [`setting`] is their table. The only other uses of the environment
//! are values passed through: `$ENV` of jq programs, the user's editor, shell completion, the
//! editor's hook, and the tokens of `lock run`.

pub mod environment;
pub mod file;
pub mod layers;
mod nearest;
mod place;
pub mod setting;
pub mod store_url;
pub mod style;
pub mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::file::{ConfigFile, Found};
use self::layers::{Layers, Row, Source, Sourced, Values, typed};
use self::place::{Place, STATE_FILE_VARIABLE, directory_of};
use self::setting::{Scope, parse_number};
use self::store_url::StoreUrl;
use self::trust::UserDir;
use crate::error::{Error, Invocation, Kind, Result};
use crate::fs::Disk;
use crate::lock::{LEASE_TTL, LOCK_TOKEN, LockEnv, OWNER_PID};
use crate::placement::unfit_for_output;
use crate::store::Settings;
use crate::store::guard::GUARD_TOKEN;
use crate::store::layout::SETTINGS;
use crate::time::parse_duration;

pub use self::environment::{Environment, ProcessEnvironment};
pub use self::nearest::{FoundRoot, Marks, foreign_root};
pub use self::place::{Origin, explicit_root, for_hook, invocation};
pub use self::style::{Color, Format, OutputStyle, Verbosity, early_style, parse_format};

/// The options that were given; `None` for the others.
#[derive(Clone, Debug, Default)]
pub struct CliOverrides {
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--state-file`
    pub state_file: Option<PathBuf>,
    /// `--store`
    pub store: Option<StoreUrl>,
    /// `--audit-log`
    pub audit_log: Option<PathBuf>,
    /// `--lock-timeout`
    pub lock_timeout: Option<Duration>,
    /// `--lock-exit`
    pub lock_exit: Option<u8>,
    /// `--format`, `--json`
    pub format: Option<Format>,
    /// `-q`, `-v`
    pub verbosity: Option<Verbosity>,
    /// `--color`
    pub color: Option<Color>,
}

/// The resolved configuration of a run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The location of the state and its options.
    pub settings: Settings,
    /// The store on other machines that keeps the state; none where files do.
    pub store: Option<StoreUrl>,
    /// The audit log.
    pub audit_log: PathBuf,
    /// The exit code where a lock times out.
    pub lock_exit: u8,
    /// The style of results and errors.
    pub style: OutputStyle,
    /// The amount of output.
    pub verbosity: Verbosity,
    /// The root, if none was named and it was found above the working directory.
    pub found_above: Option<PathBuf>,
    /// The way in which the root was found.
    pub origin: Origin,
    /// All settings with their sources.
    pub values: Values,
    /// The configuration files that were looked for.
    pub files: Files,
    /// What is wrong with the configuration, for a command that goes on without it.
    pub warnings: Vec<String>,
    /// The errors of commands that do not go on, for one that explains them.
    pub errors: Arc<Vec<Error>>,
    /// The beginnings of hints.
    pub invocation: Invocation,
}

/// The configuration files of a run.
#[derive(Clone, Debug)]
pub struct Files {
    /// The root's.
    pub root: FileSeen,
    /// The user's, if the environment says where it would be.
    pub user: Option<FileSeen>,
}

/// A configuration file as `config` shows it.
#[derive(Clone, Debug)]
pub struct FileSeen {
    /// Its path.
    pub path: PathBuf,
    /// What it was found to be.
    pub standing: Standing,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// What a configuration file was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Missing,
    /// It is not used.
    Refused,
    /// It is used, but for the store in it, which the user has yet to trust.
    Untrusted,
    /// It is used.
    Used,
}

impl Standing {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Untrusted => "untrusted",
            Self::Used => "used",
        }
    }
}

/// The need of a command for a configuration without errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// It changes something, and a setting that it overlooks may matter.
    Strict,
    /// It reads, repairs or gives back: it warns of a wrong line, and goes on with the defaults.
    Lenient,
    /// It explains the configuration: nothing in it stops the command.
    Explaining,
    /// It answers an editor, which must not be stopped by a configuration.
    Hook,
}

impl Config {
    /// Resolves the configuration of a command that reads.
    pub fn resolve(overrides: &CliOverrides, env: &dyn Environment, disk: &Disk) -> Result<Self> {
        Self::resolve_for(Stance::Lenient, Marks::State, overrides, env, disk)
    }

    /// Resolves the configuration of a command with this stance, with the root found by these
    /// marks.
    pub fn resolve_for(
        stance: Stance,
        marks: Marks,
        overrides: &CliOverrides,
        env: &dyn Environment,
        disk: &Disk,
    ) -> Result<Self> {
        let invocation = invocation(overrides, env);
        let Place { root, state_file, file_name, found_above, origin } =
            Place::resolve(marks, overrides, env, disk)?;
        let user_dir = UserDir::of(env);
        let mut of_root = Loaded::read(disk, Scope::Root, root.join(SETTINGS));
        let mut of_user = user_dir.as_ref().map(|dir| Loaded::read(disk, Scope::User, dir.file()));
        let (mut warnings, mut errors) = (Vec::new(), Vec::new());
        for loaded in of_user.iter_mut().chain([&mut of_root]) {
            loaded.judge(stance, &mut warnings, &mut errors)?;
        }
        let layers =
            Layers { env, root: of_root.file(), user: of_user.as_ref().and_then(Loaded::file) };
        let values = Values::resolve(overrides, &layers)?;
        let is_trusted = || match (&user_dir, of_root.file()) {
            (Some(dir), Some(file)) => trust::is_trusted(disk, dir, file),
            _ => false,
        };
        let is_untrusted = matches!(values.store.source, Source::RootFile(..)) && !is_trusted();
        let chooses_file = overrides.state_file.is_some() || env.get(STATE_FILE_VARIABLE).is_some();
        if let Some(error) = unusable_store(&values, is_untrusted, chooses_file) {
            match stance {
                Stance::Explaining => {
                    warnings.push(error.message.clone());
                    errors.push(error);
                }
                Stance::Strict | Stance::Lenient | Stance::Hook => return Err(error),
            }
        }
        #[cfg(feature = "etcd")]
        let invocation = place::for_cluster(invocation, values.store.value.as_ref());
        let files = Files {
            root: of_root.seen(is_untrusted),
            user: of_user.map(|loaded| loaded.seen(false)),
        };
        if values.audit_log.source != Source::Default {
            check_log(&values.audit_log, &state_file)?;
        }
        let verbosity = match overrides.verbosity {
            Some(verbosity) => verbosity,
            None if env.get("DEBUG").is_some_and(|value| value == "1" || value == "true") => {
                Verbosity::Debug
            }
            None => Verbosity::Normal,
        };
        Ok(Self {
            settings: Settings {
                directory: directory_of(&state_file).to_owned(),
                file_name,
                root,
                lock_timeout: values.lock_timeout.value,
                max_backups: values.max_backups.value,
                backup_days: values.backup_days.value,
                max_checkpoints: values.max_checkpoints.value,
                checkpoint_days: values.checkpoint_days.value,
                auto_recover: values.auto_recover.value,
                foreign_edits: values.foreign_edits.value,
                lock_env: LockEnv {
                    owner: typed(env, OWNER_PID, parse_number)?,
                    tokens: env
                        .get(LOCK_TOKEN)
                        .map(|text| LockEnv::parse_tokens(&text.to_string_lossy()))
                        .unwrap_or_default(),
                    guards: env
                        .get(GUARD_TOKEN)
                        .map(|text| LockEnv::parse_guards(&text.to_string_lossy()))
                        .unwrap_or_default(),
                    lease_ttl: typed(env, LEASE_TTL, parse_duration)?,
                    runtime: env
                        .get("XDG_RUNTIME_DIR")
                        .map(PathBuf::from)
                        .filter(|path| path.is_absolute()),
                },
            },
            store: values.store.value.clone(),
            audit_log: values.audit_log.value.clone(),
            lock_exit: values.lock_exit.value,
            style: OutputStyle { format: values.format.value, color: values.color.value },
            verbosity,
            found_above,
            origin,
            values,
            files,
            warnings,
            errors: Arc::new(errors),
            invocation,
        })
    }

    /// All settings with their sources: the place of the state first.
    pub fn rows(&self, overrides: &CliOverrides, env: &dyn Environment) -> Vec<Row> {
        let source = |option: &Option<PathBuf>, name, variable| match (option, env.get(variable)) {
            (Some(_), _) => Some(Source::Option(name)),
            (None, Some(_)) => Some(Source::Variable(variable)),
            (None, None) => None,
        };
        let state_file = source(&overrides.state_file, "state-file", STATE_FILE_VARIABLE);
        let root = source(&overrides.root, "root", "PIPELINE_ROOT").or_else(|| state_file.clone());
        let found = if self.origin == Origin::Found { Source::Found } else { Source::Default };
        let settings = &self.settings;
        let path = settings.directory.join(&settings.file_name);
        let mut rows = vec![
            Row::of_path("root", &settings.root, root.unwrap_or(found)),
            Row::of_path("state-file", &path, state_file.unwrap_or(Source::Default)),
        ];
        rows.extend(self.values.rows());
        rows
    }
}

/// A configuration file, and where it was looked for.
struct Loaded {
    path: PathBuf,
    found: Found,
}

impl Loaded {
    fn read(disk: &Disk, scope: Scope, path: PathBuf) -> Self {
        Self { found: file::read(disk, scope, path.clone()), path }
    }

    fn file(&self) -> Option<&ConfigFile> {
        match &self.found {
            Found::Read(file) => Some(file),
            Found::Missing | Found::Refused(_) => None,
        }
    }

    /// Stops a command that needs the file, and warns others.
    fn judge(
        &mut self,
        stance: Stance,
        warnings: &mut Vec<String>,
        errors: &mut Vec<Error>,
    ) -> Result<()> {
        if stance == Stance::Explaining {
            errors.extend(self.error());
        }
        match (&self.found, stance) {
            (Found::Missing, _) => {}
            (Found::Refused(error), Stance::Explaining | Stance::Hook) => {
                warnings.push(format!("{}; it is not used", error.message));
            }
            (Found::Refused(_), Stance::Strict | Stance::Lenient) => {
                if let Found::Refused(error) = std::mem::replace(&mut self.found, Found::Missing) {
                    return Err(error);
                }
            }
            (Found::Read(file), Stance::Strict) => file.check()?,
            (Found::Read(file), Stance::Lenient | Stance::Explaining | Stance::Hook) => {
                let ignored = if file.is_toml { "line" } else { "whole file" };
                let warn = |wrong: String| format!("{wrong} (the {ignored} is ignored)");
                warnings.extend(file.located().map(warn));
            }
        }
        Ok(())
    }

    /// The error of commands that need the file.
    fn error(&self) -> Option<Error> {
        match &self.found {
            Found::Missing => None,
            Found::Refused(error) => {
                let hints = error.hints.clone();
                Some(Error { hints, ..Error::new(error.kind, error.message.clone()) })
            }
            Found::Read(file) => file.check().err(),
        }
    }

    fn seen(&self, is_untrusted: bool) -> FileSeen {
        let (standing, problems) = match &self.found {
            Found::Missing => (Standing::Missing, Vec::new()),
            Found::Refused(error) => (Standing::Refused, vec![error.message.clone()]),
            Found::Read(file) if is_untrusted => (Standing::Untrusted, file.located().collect()),
            Found::Read(file) => (Standing::Used, file.located().collect()),
        };
        FileSeen { path: self.path.clone(), standing, problems }
    }
}

/// The error of a command that cannot use the store of its state.
fn unusable_store(values: &Values, is_untrusted: bool, chooses_file: bool) -> Option<Error> {
    let Sourced { value: Some(url), source } = &values.store else { return None };
    let place = source.place().unwrap_or_default();
    let error = if is_untrusted {
        let message = format!("{place} names the store {url}, which you have not trusted yet");
        Error::new(Kind::UntrustedStore, message)
            .hint_command("config trust", "once you know that this is where the state belongs")
    } else if !cfg!(feature = "etcd") {
        let message = format!(
            "the state is kept by {url}, as {place} says, and this build has no `etcd` feature"
        );
        Error::new(Kind::DependencyMissing, message)
            .hint_shell("cargo install pipeline-state --features etcd", "a build that has it")
    } else if chooses_file {
        let message = format!("a state file and the store {url} cannot be used at once");
        Error::new(Kind::Usage, message)
            .hint_shell(format!("unset {STATE_FILE_VARIABLE}"), "use the store")
    } else {
        return None;
    };
    let error = match source {
        Source::Variable(name) => error.hint_shell(format!("unset {name}"), "use the files here"),
        _ => error.hint_command("config", "see all settings, and where each is from"),
    };
    Some(error.detail("store", url.to_string()))
}

/// Refuses (6) an audit log that is a file of the state itself, or lies among its files.
fn check_log(log: &Sourced<PathBuf>, state_file: &Path) -> Result<()> {
    let Sourced { value: log, source } = log;
    let name = state_file.file_name().unwrap_or_default();
    let Some(why) = unfit_for_output(log, directory_of(state_file), name) else { return Ok(()) };
    let shown = log.display().to_string();
    let message = format!("the audit log {shown} {why}; nothing was done");
    let error = Error::new(Kind::UnsafePath, message).detail("path", shown);
    Err(match source {
        Source::UserFile(..) => error.hint_command("config", "see where it is set"),
        _ => error.hint_shell("unset AUDIT_LOG", "take the default; or --audit-log names another"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::ffi::OsString;

    impl Environment for HashMap<&str, &str> {
        fn get(&self, name: &str) -> Option<OsString> {
            HashMap::get(self, name).filter(|value| !value.is_empty()).map(OsString::from)
        }
    }

    fn resolve(overrides: &CliOverrides, env: &[(&'static str, &'static str)]) -> Result<Config> {
        Config::resolve(overrides, &env.iter().copied().collect::<HashMap<_, _>>(), &Disk::real())
    }

    #[test]
    fn options_over_environment_over_defaults() {
        let overrides =
            CliOverrides { lock_timeout: Some(Duration::from_secs(1)), ..CliOverrides::default() };
        let timeout = |overrides: &CliOverrides, env: &[(&'static str, &'static str)]| {
            resolve(overrides, env).unwrap().settings.lock_timeout
        };
        assert_eq!(timeout(&overrides, &[("LOCK_TIMEOUT", "2")]), Duration::from_secs(1));
        assert_eq!(
            timeout(&CliOverrides::default(), &[("LOCK_TIMEOUT", "0.5")]),
            Duration::from_millis(500)
        );
        assert_eq!(
            timeout(&CliOverrides::default(), &[("LOCK_TIMEOUT", "")]),
            Duration::from_secs(30)
        );
    }

    #[test]
    fn a_variable_of_the_wrong_type_is_an_error_of_usage() {
        for (name, value) in [
            ("LOCK_TIMEOUT", "soon"),
            ("STATE_MAX_BACKUPS", "many"),
            ("STATE_BACKUP_DAYS", "-1"),
            ("PIPELINE_AUTO_RECOVER", "maybe"),
            ("STATE_FOREIGN_EDITS", "yes"),
            ("PIPELINE_FORMAT", "xml"),
            ("PIPELINE_LOCK_EXIT", "256"),
        ] {
            let error = resolve(&CliOverrides::default(), &[(name, value)]).unwrap_err();
            assert_eq!(error.code() as u8, 64, "{name}");
            assert!(error.message.contains(name));
        }
    }

    #[test]
    fn a_state_file_brings_its_directory_along() {
        let config =
            resolve(&CliOverrides::default(), &[("STATE_FILE", "/some/where/my.json")]).unwrap();
        assert_eq!(
            (config.settings.root.as_path(), config.settings.directory.as_path()),
            (Path::new("/some/where"), Path::new("/some/where"))
        );
        let config = resolve(
            &CliOverrides::default(),
            &[("STATE_FILE", "my.json"), ("PIPELINE_ROOT", "/r")],
        )
        .unwrap();
        assert_eq!(
            (config.settings.root.as_path(), config.settings.directory.as_path()),
            (Path::new("/r"), std::env::current_dir().unwrap().as_path())
        );
        for bad in ["/", "/tmp/", "..", "a/.."] {
            let overrides =
                CliOverrides { state_file: Some(bad.into()), ..CliOverrides::default() };
            assert_eq!(resolve(&overrides, &[]).unwrap_err().code() as u8, 6, "{bad}");
        }
    }

    #[test]
    fn a_hint_names_the_state_that_was_chosen() {
        let overrides = CliOverrides { root: Some("/a b".into()), ..CliOverrides::default() };
        let env = HashMap::from([("STATE_FILE", "x.json")]);
        let named = invocation(&overrides, &env);
        assert_eq!(named.program, "pipeline-state --root '/a b' --state-file x.json");
        assert_eq!(named.on_files, named.program);
    }

    #[test]
    fn a_hint_names_the_store_that_was_chosen_and_one_on_files_none() {
        let url = |text| StoreUrl::parse(text).ok();
        let by_option = CliOverrides {
            store: url("etcd://h/a&b"),
            root: Some("r".into()),
            ..Default::default()
        };
        let named = invocation(&by_option, &HashMap::from([]));
        assert_eq!(named.program, "pipeline-state --root r --store 'etcd://h/a&b'");
        assert_eq!(named.on_files, "pipeline-state --root r");
        let by_env = HashMap::from([("PIPELINE_STORE", "etcd://h/p")]);
        let named = invocation(&CliOverrides::default(), &by_env);
        assert_eq!(named.program, "pipeline-state --store etcd://h/p");
        assert_eq!(named.on_files, "env -u PIPELINE_STORE pipeline-state");
        let secret = HashMap::from([("PIPELINE_STORE", "etcd://me:secret@h/p")]);
        assert_eq!(invocation(&CliOverrides::default(), &secret).program, "pipeline-state");
    }
}
