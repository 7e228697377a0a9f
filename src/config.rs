//! Configuration: options over environment over defaults, resolved once. All settings are read
//! here. The only other uses of the environment are values passed through: `$ENV` of jq programs,
//! the user's editor, shell completion, the editor's hook, and the tokens of `lock run`.

mod nearest;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::nearest::nearest_root;
pub use self::nearest::{FoundRoot, foreign_root};
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::Disk;
use crate::lock::{LOCK_TOKEN, LockEnv, OWNER_PID};
use crate::placement::{side_directory_of, unfit_for_output};
use crate::store::guard::GUARD_TOKEN;
use crate::store::layout::{CONFIG, STATE_FILE};
use crate::store::{AutoRecover, ForeignEdits, Settings};
use crate::time::parse_duration;

/// The format of results and errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The use of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Even in a pipe.
    Always,
    /// Nowhere.
    Never,
}

/// The style of results and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputStyle {
    /// Their format.
    pub format: Format,
    /// Their use of colours.
    pub color: Color,
}

impl OutputStyle {
    /// The look of errors in a word, to be handed to another process.
    pub fn as_arg(self) -> &'static str {
        match (self.format, self.color) {
            (Format::Json, _) => "json",
            (Format::Text, Color::Auto) => "auto",
            (Format::Text, Color::Always) => "always",
            (Format::Text, Color::Never) => "never",
        }
    }

    /// The look with this name.
    pub fn from_arg(word: &OsStr) -> Self {
        let format = if word == "json" { Format::Json } else { Format::Text };
        Self { format, color: color_named(word.to_str()).unwrap_or(Color::Auto) }
    }
}

/// The amount of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Results only.
    Quiet,
    /// Results and confirmations.
    Normal,
    /// The steps (`-v`).
    Info,
    /// Details of the steps (`-vv`, `DEBUG=1`).
    Debug,
}

/// The options that were given; `None` for the others.
#[derive(Clone, Debug, Default)]
pub struct CliOverrides {
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--state-file`
    pub state_file: Option<PathBuf>,
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
    /// The command line that invoked this program, with the options that chose the state: the
    /// beginning of a hint.
    pub program: String,
}

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

/// The files that mark a directory as a root, where none is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// A state, or its backups.
    State,
    /// Or locks, which need no state.
    StateOrLocks,
}

/// Looks a variable up; empty counts as unset.
pub trait Environment {
    /// The variable's value.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The process's own environment.
#[derive(Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name).filter(|value| !value.is_empty())
    }
}

impl Config {
    /// Resolves options, environment and defaults. Reads the file system only to find the root.
    pub fn resolve(overrides: &CliOverrides, env: &dyn Environment, disk: &Disk) -> Result<Self> {
        Self::resolve_by(Marks::State, overrides, env, disk)
    }

    /// The same, with the root found by these marks.
    pub fn resolve_by(
        marks: Marks,
        overrides: &CliOverrides,
        env: &dyn Environment,
        disk: &Disk,
    ) -> Result<Self> {
        let program = program(overrides, env);
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
        let audit_log =
            overrides.audit_log.clone().or_else(|| env.get("AUDIT_LOG").map(PathBuf::from));
        if let Some(log) = &audit_log {
            check_log(log, &state_file)?;
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
                lock_timeout: match overrides.lock_timeout {
                    Some(timeout) => timeout,
                    None => typed(env, "LOCK_TIMEOUT", parse_duration)?
                        .unwrap_or(Duration::from_secs(30)),
                },
                max_backups: typed(env, "STATE_MAX_BACKUPS", parse_number)?.unwrap_or(5),
                backup_days: typed(env, "STATE_BACKUP_DAYS", parse_number)?.unwrap_or(7),
                auto_recover: match typed(env, "PIPELINE_AUTO_RECOVER", parse_switch)? {
                    Some(false) => AutoRecover::No,
                    _ => AutoRecover::Yes,
                },
                foreign_edits: typed(env, "STATE_FOREIGN_EDITS", |text| match text {
                    "accept" => Ok(ForeignEdits::Accept),
                    "refuse" => Ok(ForeignEdits::Refuse),
                    _ => Err(format!("{text:?} is neither accept nor refuse")),
                })?
                .unwrap_or(ForeignEdits::Refuse),
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
                },
            },
            audit_log: audit_log.unwrap_or_else(|| PathBuf::from(crate::audit::DEFAULT)),
            lock_exit: match overrides.lock_exit {
                Some(code) => code,
                None => typed(env, "PIPELINE_LOCK_EXIT", parse_number)?.unwrap_or(2),
            },
            style: OutputStyle {
                format: match overrides.format {
                    Some(format) => format,
                    None => typed(env, "PIPELINE_FORMAT", parse_format)?.unwrap_or_default(),
                },
                color: color(overrides.color, env),
            },
            verbosity,
            found_above,
            origin,
            program,
        })
    }
}

/// Refuses (6) a state in a directory that belongs to another state, or that a restore of its own
/// would replace.
fn check_places(state_file: &Path, root: &Path) -> Result<()> {
    let directory = directory_of(state_file);
    let in_config = || Some(root.join(CONFIG)).filter(|config| directory.starts_with(config));
    let Some(other) = side_directory_of(directory).or_else(in_config) else { return Ok(()) };
    let (shown, side) = (state_file.display().to_string(), other.display());
    let message =
        format!("{shown} lies in {side}, which belongs to a state and is replaced with it");
    Err(Error::new(Kind::UnsafePath, message)
        .hint_command("--help", "--state-file and --root name another place")
        .detail("path", shown))
}

/// Refuses (6) an audit log that is a file of the state itself, or lies among its files.
fn check_log(log: &Path, state_file: &Path) -> Result<()> {
    let name = state_file.file_name().unwrap_or_default();
    let Some(why) = unfit_for_output(log, directory_of(state_file), name) else { return Ok(()) };
    let shown = log.display().to_string();
    let message = format!("the audit log {shown} {why}; nothing was done");
    Err(Error::new(Kind::UnsafePath, message)
        .hint_shell("unset AUDIT_LOG", "take the default; or --audit-log names another")
        .detail("path", shown))
}

/// The root and the state file named by option or environment.
pub fn explicit_root(
    overrides: &CliOverrides,
    env: &dyn Environment,
) -> (Option<PathBuf>, Option<PathBuf>) {
    let root = overrides.root.clone().or_else(|| env.get("PIPELINE_ROOT").map(PathBuf::from));
    let state_file =
        overrides.state_file.clone().or_else(|| env.get("STATE_FILE").map(PathBuf::from));
    (root, state_file)
}

/// The beginning of a hint: the program, and the options that chose the state, so that it can be
/// typed in another shell, too.
pub fn program(overrides: &CliOverrides, env: &dyn Environment) -> String {
    let mut program = "pipeline-state".to_owned();
    let (root, state_file) = explicit_root(overrides, env);
    for (option, value) in [("--root", root), ("--state-file", state_file)] {
        if let Some(value) = value {
            let word = quote_path(&value);
            let join = if word.starts_with('-') { '=' } else { ' ' };
            program.push_str(&format!(" {option}{join}{word}"));
        }
    }
    program
}

/// Reads `text` or `json`.
pub fn parse_format(text: &str) -> std::result::Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}

fn color_named(word: Option<&str>) -> Option<Color> {
    match word? {
        "always" => Some(Color::Always),
        "never" => Some(Color::Never),
        _ => None,
    }
}

/// The use of colours: as requested; by default on a terminal, unless it is a dumb one or
/// `NO_COLOR` is set.
fn color(wanted: Option<Color>, env: &dyn Environment) -> Color {
    match wanted.unwrap_or(Color::Auto) {
        Color::Auto
            if env.get("NO_COLOR").is_some()
                || env.get("TERM").is_some_and(|term| term == "dumb") =>
        {
            Color::Never
        }
        color => color,
    }
}

fn parse_switch(text: &str) -> std::result::Result<bool, String> {
    match text {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither 1 nor 0")),
    }
}

fn parse_number<T: std::str::FromStr>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number in range"))
}

/// A variable parsed as a type; a wrong value is a usage error, like on the command line.
fn typed<T>(
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

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

fn working_directory() -> Result<PathBuf> {
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

/// The style of errors and help, determined before the options are parsed: for errors of parsing
/// them.
pub fn early_style(arguments: &[OsString], env: &dyn Environment) -> OutputStyle {
    let mut format = match env.get("PIPELINE_FORMAT") {
        Some(value) if value == "json" => Format::Json,
        _ => Format::Text,
    };
    let mut wanted = None;
    let mut words = arguments
        .iter()
        .take_while(|argument| *argument != OsStr::new("--"))
        .filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        let (option, joined) =
            word.split_once('=').map_or((word, None), |(option, value)| (option, Some(value)));
        match option {
            "--json" => format = Format::Json,
            "--format" => {
                format = joined
                    .or_else(|| words.next())
                    .and_then(|word| parse_format(word).ok())
                    .unwrap_or_default()
            }
            "--color" => wanted = color_named(joined.or_else(|| words.next())),
            _ => {}
        }
    }
    OutputStyle { format, color: color(wanted, env) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashMap;

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
        assert_eq!(program(&overrides, &env), "pipeline-state --root '/a b' --state-file x.json");
    }
}
