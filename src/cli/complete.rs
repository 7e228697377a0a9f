//! Completions. The script that `completions` prints makes the shell ask this program, so it offers
//! current names: locks, checkpoints and backups of the root that the line names. Bash inserts a
//! candidate verbatim, and Enter runs it, so bash gets only names that need no quotes. All shells
//! complete file names themselves.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory as _, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::args::Cli;
use super::args::shell::{CompletionShell, Completions};
use super::open;
use super::output::write_out;
use super::parse::SHORT_FORMS;
use crate::config::{CliOverrides, Config, ProcessEnvironment};
use crate::error::ExitCode;
use crate::fs::Disk;

/// Set to the shell's name by the scripts for it, which then have `--` and the words of the line as
/// arguments.
const ASKED_BY: &str = "PIPELINE_STATE_COMPLETE";

const NAME: &str = "pipeline-state";

/// Stands for the names of files, where the shell is to complete them.
const FILES: &str = "\0";

fn engine(shell: CompletionShell) -> &'static dyn EnvCompleter {
    match shell {
        CompletionShell::Bash => &Bash,
        CompletionShell::Zsh => &Zsh,
        CompletionShell::Fish => &Fish,
    }
}

/// Prints the script for a shell.
pub fn print(arguments: &Completions) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    engine(arguments.shell).write_registration(ASKED_BY, NAME, NAME, &program(), &mut script)?;
    // Without candidates the shells offer files, quoted where necessary. zsh removes the quotes of
    // a line, and bash leaves that to this program.
    let script = String::from_utf8_lossy(&script);
    let script = match arguments.shell {
        CompletionShell::Bash => script.replace("-o bashdefault", "-o bashdefault -o default"),
        CompletionShell::Zsh => script
            .replace("\"${words[@]}\"", "\"${(@Q)words}\"")
            .replace("' other\n    fi\n}", "' other\n    else\n        _files\n    fi\n}"),
        CompletionShell::Fish => script.replace(
            "(commandline --current-token))",
            "(commandline --current-token)\
             ; or complete -C '__fish_command_without_completions '(commandline --current-token))",
        ),
    };
    write_out(script.as_bytes())?;
    Ok(ExitCode::Success as u8)
}

/// The program as the scripts call it: by its name where it was called by that, so that packages
/// can install them; else by its path, unless the scripts could not quote that.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    if called == NAME {
        return NAME.to_owned();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.,+=:@".contains(c);
    let path =
        std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok());
    path.filter(|path| path.chars().all(plain) && Path::new(path).exists())
        .unwrap_or_else(|| NAME.to_owned())
}

/// Answers a shell that asks how a line may go on; the exit code, or `None` if none asks.
pub fn answer(arguments: &[OsString]) -> Option<u8> {
    let [_, dashes, words @ ..] = arguments else { return None };
    if dashes != "--" || words.is_empty() {
        return None;
    }
    let shell = match std::env::var(ASKED_BY).ok()?.as_str() {
        "bash" => CompletionShell::Bash,
        "zsh" => CompletionShell::Zsh,
        "fish" => CompletionShell::Fish,
        _ => return None,
    };
    let asked = asked_place(words);
    let words = joined(words, asked);
    let mut command = with_short_forms(with_names(Cli::command(), &explicit_root(&words)));
    command.build(); // its own options, too
    if !words.get(asked).is_some_and(|word| word.as_encoded_bytes().starts_with(b"-")) {
        command = without_options(command);
    }
    command = without_files(command);
    let here = std::env::current_dir().ok();
    let mut found = Vec::new();
    // An error message would disturb a person in the middle of a line.
    let answered = engine(shell).write_complete(&mut command, words, here.as_deref(), &mut found);
    if found.trim_ascii_end().ends_with(FILES.as_bytes()) {
        found.clear();
    }
    let is_left_to_fish = shell == CompletionShell::Fish && found.is_empty();
    let written =
        answered.is_ok() && !is_left_to_fish && std::io::stdout().write_all(&found).is_ok();
    Some(if written { ExitCode::Success as u8 } else { ExitCode::General as u8 })
}

/// Index of the word being completed: bash and zsh pass it, fish's is the last.
fn asked_place(words: &[OsString]) -> usize {
    let place = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|place| place.parse().ok());
    place.unwrap_or(words.len().saturating_sub(1))
}

/// The words before the completed one, with `--root = DIR`, as bash splits it, in the form `--root
/// DIR`. Bash has counted the extra word, so a neutral one replaces it.
fn joined(words: &[OsString], asked: usize) -> Vec<OsString> {
    let mut words = words.to_vec();
    for place in 2..asked {
        if let Some([option, equals, value]) = words.get_mut(place - 2..=place)
            && option.as_encoded_bytes().starts_with(b"--")
            && equals == "="
        {
            *equals = std::mem::replace(value, "-v".into());
        }
    }
    words
}

/// Hides options where positional arguments exist: every command has a dozen of them.
fn without_options(command: Command) -> Command {
    let hide = |arg: Arg| if arg.is_positional() { arg } else { arg.hide(true) };
    command.mut_args(hide).mut_subcommands(without_options)
}

/// Offers [`FILES`] in place of the names of files.
fn without_files(command: Command) -> Command {
    let files = || ArgValueCompleter::new(|_: &OsStr| vec![CompletionCandidate::new(FILES)]);
    let leave =
        |arg: Arg| if arg.get_value_hint() == ValueHint::AnyPath { arg.add(files()) } else { arg };
    command.mut_args(leave).mut_subcommands(without_files)
}

/// The options of the line that choose the state.
fn explicit_root(words: &[OsString]) -> CliOverrides {
    let mut overrides = CliOverrides::default();
    let mut words =
        words.iter().take_while(|word| *word != "--").map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
            None => (word.into_owned(), None),
        };
        let place = match option.as_str() {
            "--root" => &mut overrides.root,
            "--state-file" => &mut overrides.state_file,
            _ => continue,
        };
        *place =
            value.or_else(|| words.next().map(String::from)).map(|path| at_home(&unquoted(&path)));
    }
    overrides
}

/// A word without its quotes: bash passes it as typed.
fn unquoted(word: &str) -> String {
    let (mut plain, mut quote) = (String::new(), None);
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote != Some('\'') => plain.extend(chars.next()),
            '\'' | '"' if quote.is_none() => quote = Some(c),
            c if quote == Some(c) => quote = None,
            c => plain.push(c),
        }
    }
    plain
}

/// A path with `~` expanded, which the shell has not done on an unfinished line.
fn at_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// Their place among the candidates.
const AFTER_GROUPS: usize = 100;

/// Adds the commands that can be typed without their group.
fn with_short_forms(command: Command) -> Command {
    let of = |(short, group): &(&str, &str)| {
        command.find_subcommand(group)?.find_subcommand(short).cloned()
    };
    let short: Vec<Command> = SHORT_FORMS.iter().filter_map(of).collect();
    let after_groups = |command: Command| command.display_order(AFTER_GROUPS);
    command.subcommands(short.into_iter().map(after_groups))
}

/// Kinds of names that can be completed.
#[derive(Clone, Copy)]
enum Names {
    Locks,
    Checkpoints,
    Operations,
    Backups,
}

/// The arguments that take such names.
const NAMED: [(&str, &str, &str, Names); 13] = [
    ("lock", "acquire", "names", Names::Locks),
    ("lock", "release", "names", Names::Locks),
    ("lock", "run", "names", Names::Locks),
    ("lock", "check", "name", Names::Locks),
    ("lock", "break", "name", Names::Locks),
    ("lock", "renew", "name", Names::Locks),
    ("recover", "restore", "id", Names::Checkpoints),
    ("recover", "restore", "latest", Names::Operations),
    ("recover", "show", "id", Names::Checkpoints),
    ("recover", "verify", "id", Names::Checkpoints),
    ("recover", "remove", "ids", Names::Checkpoints),
    ("state", "recover", "pattern", Names::Backups),
    ("state", "diff", "old", Names::Backups),
];

fn with_names(command: Command, overrides: &CliOverrides) -> Command {
    NAMED.iter().fold(command, |command, (group, subcommand, named, names)| {
        let completer = || {
            let (overrides, names) = (overrides.clone(), *names);
            ArgValueCompleter::new(move |current: &OsStr| candidates(names, &overrides, current))
        };
        // mutate all: one changed alone would move to the end
        let complete = |arg: Arg| if arg.get_id() == named { arg.add(completer()) } else { arg };
        command.mut_subcommand(group, |command| {
            command.mut_subcommand(subcommand, |command| command.mut_args(complete))
        })
    })
}

/// The names that start with the current word, or with its part after the last comma where several
/// can be given.
fn candidates(names: Names, overrides: &CliOverrides, current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let (before, begun) = match (names, current.rfind(',')) {
        (Names::Locks, Some(comma)) => current.split_at(comma + 1),
        _ => ("", current),
    };
    let mut found = look_up(names, overrides).unwrap_or_default();
    found.retain(|name| needs_no_quotes(name));
    found.sort();
    found.dedup();
    let fitting = found
        .iter()
        .filter(|name| name.starts_with(begun) && !before.split(',').any(|had| had == *name));
    fitting.map(|name| CompletionCandidate::new(format!("{before}{name}"))).collect()
}

/// True if no shell can misread the name. All generated names qualify; other files can lie beside
/// them.
fn needs_no_quotes(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn look_up(names: Names, overrides: &CliOverrides) -> crate::error::Result<Vec<String>> {
    let disk = Disk::real();
    let config = Config::resolve(overrides, &ProcessEnvironment, &disk)?;
    let store = open::store(&config, disk)?;
    Ok(match names {
        Names::Locks => {
            store.files()?.locks().list()?.into_iter().map(|entry| entry.lock).collect()
        }
        Names::Checkpoints => store.files()?.checkpoints().ids()?,
        Names::Operations => store
            .files()?
            .checkpoints()
            .list()?
            .into_iter()
            .filter_map(|row| row.operation)
            .collect(),
        Names::Backups => store.report().backups()?.into_iter().map(|backup| backup.name).collect(),
    })
}
