//! The command line: arguments in, one call into the library, text or JSON out, one exit code.

mod args;
mod ask;
mod complete;
mod config;
mod edit;
mod follow;
mod help;
mod hook;
mod input;
mod lock;
mod log;
mod manual;
mod markdown;
mod moment;
mod open;
mod output;
mod parse;
mod progress;
mod recover;
mod reinvoke;
mod report;
mod reports;
mod shell;
mod state;
mod status;
mod status_view;
mod style;
mod table;
mod wakeups;
mod width;
mod write_command;

use std::ffi::{OsStr, OsString};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

use self::args::{Cli, Group, Recover};
use self::output::{Output, PipeClosed, show_error, to_stderr, write_out};
use self::recover::RemediesShown;
use self::style::Palette;
use crate::config::store_url::without_password;
use crate::config::{
    self as configuration, CliOverrides, Config, Format, Marks, OutputStyle, ProcessEnvironment,
    Stance,
};
use crate::document::query::bounds;
use crate::error::{Error, ExitCode, Invocation, Kind, quote};
use crate::fs::Disk;
use crate::lock::{LAUNCH, become_command};
use crate::name::nearest;
use crate::os::VERSION;

/// Runs the program with these arguments, the first of which is its own name; its exit code.
pub fn main(arguments: Vec<OsString>) -> u8 {
    // Without a handler RLIMIT_FSIZE kills; with one, write(2) fails with EFBIG, which has an exit
    // code.
    let _ =
        signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)));
    end_with_resources_exhausted();
    let style = configuration::early_style(&arguments, &ProcessEnvironment);
    std::panic::set_hook(Box::new(|_| {}));
    if let [_, launch, pipe, style, _, command @ ..] = arguments.as_slice()
        && launch == LAUNCH
    {
        return become_command_or_fail(pipe, OutputStyle::from_arg(style), command);
    }
    #[cfg(feature = "etcd")]
    if let [_, keep, order] = arguments.as_slice()
        && keep == crate::lock::remote::KEEP
    {
        // Nothing is open that could show an error.
        let kept = crate::lock::remote::keep(&order.to_string_lossy());
        return kept.map_or_else(|error| error.code() as u8, |()| ExitCode::Success as u8);
    }
    catch_unwind(AssertUnwindSafe(|| {
        complete::answer(&arguments).unwrap_or_else(|| run(&arguments, style))
    }))
    .unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let error =
            Error::new(Kind::Internal, format!("this is a defect of pipeline-state: {words}"))
                .hint_command(
                    "state status",
                    "nothing that was acknowledged is lost; see how the state is",
                );
        show_error(&error, &Invocation::default(), style);
        error.code() as u8
    })
}

/// Has an abort end the process with the code of exhausted resources. Where memory or a stack is
/// used up, the standard library says so in one line of its own and calls abort(3); a handler of
/// that signal is the last thing that runs.
fn end_with_resources_exhausted() {
    let code = i32::from(ExitCode::ResourceExhausted as u8);
    let always = Arc::new(AtomicBool::new(true));
    let _ = signal_hook::flag::register_conditional_shutdown(
        signal_hook::consts::SIGABRT,
        code,
        always,
    );
}

fn run(arguments: &[OsString], style: OutputStyle) -> u8 {
    if let [_, only] = arguments
        && (only == "--version" || only == "-V")
    {
        let _ = write_out(format!("pipeline-state {VERSION}\n").as_bytes());
        return ExitCode::Success as u8;
    }
    let arguments = &parse::with_group(arguments);
    if let Some(topic) = parse::topic_asked(arguments) {
        return help::show(topic, style);
    }
    let cli = match Cli::parse_line(arguments) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, arguments, style),
    };
    if let Some(code) = without_state(&cli, arguments, style) {
        return code;
    }
    let overrides = CliOverrides::from(&cli.global);
    if let Some(event) = hook::event(&cli.group) {
        return hook::answer(event, &overrides, style);
    }
    let disk = Disk::real();
    let marks =
        if matches!(cli.group, Group::Lock(_)) { Marks::StateOrLocks } else { Marks::State };
    let stance = stance(&cli.group);
    let config = match Config::resolve_for(stance, marks, &overrides, &ProcessEnvironment, &disk) {
        Ok(config) => config,
        Err(error) => {
            show_error(&error, &configuration::invocation(&overrides, &ProcessEnvironment), style);
            return error.code() as u8;
        }
    };
    log::start(&config);
    let output = Output::new(&config);
    for warning in &config.warnings {
        output.warning(warning);
    }
    let run = || match &cli.group {
        Group::State(command) => {
            state::run(command, &config, Disk::real(), &output).map(|code| code as u8)
        }
        Group::Lock(command) => lock::run(command, &config, Disk::real(), &output),
        Group::Recover(command) => recover::run(command, &config, Disk::real(), &output),
        Group::Hook(command) => hook::run(command, &overrides, &config, &output),
        Group::Config(command) => config::run(command, &overrides, &config, &output),
        Group::Report(command) => report::run(command, &config, Disk::real(), &output),
        Group::Pause(command) => shell::pause(command, &config, &output),
        // done without a state
        Group::Shell(_) | Group::Completions(_) | Group::Man(_) => Ok(ExitCode::Success as u8),
    };
    let result = match &cli.group {
        Group::State(command) if state::runs_a_heavy_program(command) => {
            bounds::watched(run, |excess| {
                // the kernel releases its locks
                let error = with_help(input::filter_error(excess.into()), arguments);
                output.error(&error);
                std::process::exit(i32::from(error.code() as u8))
            })
        }
        _ => run(),
    };
    finish(result, &config, &output, arguments)
}

/// The need of a command for a configuration without errors.
fn stance(group: &Group) -> Stance {
    let is_writer = match group {
        Group::Config(_) | Group::Hook(_) => return Stance::Explaining,
        Group::Recover(Recover::Doctor { .. }) => return Stance::Explaining,
        Group::State(command) => state::is_writer(command),
        Group::Lock(command) => lock::is_writer(command),
        Group::Recover(_)
        | Group::Report(_)
        | Group::Pause(_)
        | Group::Shell(_)
        | Group::Completions(_)
        | Group::Man(_) => false,
    };
    if is_writer { Stance::Strict } else { Stance::Lenient }
}

/// Runs what needs neither a state nor a configuration; `None` if it does.
fn without_state(cli: &Cli, arguments: &[OsString], style: OutputStyle) -> Option<u8> {
    let called = arguments.first().map_or(OsStr::new("pipeline-state"), OsString::as_os_str);
    let result = match &cli.group {
        Group::Shell(command) => shell::print(command, &cli.global, called),
        Group::Completions(command) => complete::print(command),
        Group::Man(command) => manual::write(command),
        _ => return None,
    };
    Some(result.unwrap_or_else(|error| {
        let Some(error) = as_error(error) else { return ExitCode::Success as u8 };
        let error = with_help(error, arguments);
        show_error(&error, &Invocation::default(), style);
        error.code() as u8
    }))
}

/// The child of `lock run`: it ends here only if it cannot become the command.
fn become_command_or_fail(pipe: &OsStr, style: OutputStyle, command: &[OsString]) -> u8 {
    match become_command(pipe, command) {
        Ok(never) => match never {},
        Err(None) => ExitCode::General as u8, // the parent is gone
        Err(Some(error)) => {
            show_error(&error, &Invocation::default(), style);
            error.code() as u8
        }
    }
}

/// The exit code of a run, after its error has been shown.
fn finish(
    result: anyhow::Result<u8>,
    config: &Config,
    output: &Output<'_>,
    arguments: &[OsString],
) -> u8 {
    let error = match result {
        Ok(code) => return code,
        Err(error) => match as_error(error) {
            Some(error) => with_help(error, arguments),
            None => return ExitCode::Success as u8,
        },
    };
    output.error(&error);
    match error.code() {
        ExitCode::LockTimeout => config.lock_exit,
        code => code as u8,
    }
}

/// An error about input, or about a time that was given, with a next step: where it has none, the
/// help of the command that was typed.
fn with_help(error: Error, arguments: &[OsString]) -> Error {
    let is_of_input =
        matches!(error.code(), ExitCode::ValidationFailed | ExitCode::Timeout | ExitCode::Usage);
    let has_remedies = !error.hints.is_empty() || error.cause::<RemediesShown>().is_some();
    if !is_of_input || has_remedies {
        return error;
    }
    let why = match error.kind {
        Kind::Filter => "see examples; a filter is one argument in quotes",
        _ => "see examples",
    };
    error.hint_command(help_of(arguments), why)
}

/// The command with the help for this line: the leading words that name one.
fn help_of(arguments: &[OsString]) -> String {
    let words = parse::command_words(arguments);
    words.iter().map(|word| format!("{word} ")).chain(["--help".to_owned()]).collect()
}

/// The error to report; `None` if the output has no reader left.
fn as_error(error: anyhow::Error) -> Option<Error> {
    if error.is::<PipeClosed>() {
        return None;
    }
    Some(
        error
            .downcast::<Error>()
            .unwrap_or_else(|other| Error::new(Kind::Io, format!("{other:#}"))),
    )
}

/// Prints help and version as they are; reports anything else as a usage error.
fn not_parsed(error: &clap::Error, arguments: &[OsString], style: OutputStyle) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write_out(rendered(error, Palette::of(style.color, &io::stdout())).as_bytes());
            return ExitCode::Success as u8;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if style.format == Format::Text => {
            to_stderr(&rendered(error, Palette::of(style.color, &io::stderr())));
            return ExitCode::Usage as u8;
        }
        _ => {}
    }
    // `help lock nope` is about `lock`.
    let asked = parse::help_asked(arguments);
    let arguments = asked.as_deref().unwrap_or(arguments);
    let mut text = rendered(error, Palette::Plain);
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && value.contains('@')
    {
        text = text.replace(value.as_str(), &without_password(value));
    }
    let body = text.strip_prefix("error: ").unwrap_or(&text);
    let sentence: Vec<&str> =
        body.split("\n\n").next().unwrap_or_default().lines().map(str::trim).collect();
    let mut failure = Error::new(Kind::Usage, plainly(&sentence.join(" ")));
    let with_group = without_its_group(error, arguments);
    for command in &with_group {
        failure = failure.hint_command(command, "");
    }
    if let Some(line) = corrected(error, arguments).filter(|_| with_group.is_empty()) {
        failure = failure.did_you_mean(line);
    }
    if let Some(line) = with_dashes(error, arguments) {
        failure = failure.hint_command(line, "the command to run goes after --");
    }
    failure = failure.hint_command(help_of(arguments), "");
    if asked.is_some() {
        failure = failure.hint_command("help pages", "the pages of the manual");
    }
    show_error(&failure, &Invocation::default(), style);
    failure.code() as u8
}

/// The standard library's complaint about a malformed number, in words of this program.
fn plainly(sentence: &str) -> String {
    ["invalid digit found in string", "cannot parse integer from empty string"]
        .iter()
        .fold(sentence.to_owned(), |sentence, words| {
            sentence.replace(words, "it is not a whole number")
        })
}

/// The command line with a misspelt word corrected, if a known word is close.
fn corrected(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let pairs = [
        (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand),
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
    ];
    pairs.into_iter().find_map(|(wrong, suggested)| {
        let Some(ContextValue::String(wrong)) = error.get(wrong) else { return None };
        let known = match error.get(suggested)? {
            ContextValue::String(word) => std::slice::from_ref(word),
            ContextValue::Strings(words) => words,
            _ => return None,
        };
        let meant = nearest(wrong, known.iter().map(String::as_str))?;
        let place = arguments.iter().skip(1).position(|argument| argument == wrong.as_str())? + 1;
        let line = arguments.iter().enumerate().skip(1);
        let words =
            line.map(|(at, word)| if at == place { meant.into() } else { word.to_string_lossy() });
        Some(words.map(|word| quote(&word)).collect::<Vec<_>>().join(" "))
    })
}

/// The message of a clap error.
fn rendered(error: &clap::Error, palette: Palette) -> String {
    let text = error.render();
    match palette {
        Palette::Coloured => text.ansi().to_string(),
        Palette::Plain => text.to_string(),
    }
}

/// The command line with the missing `--` before a command to run: `lock run deploy -- make`.
fn with_dashes(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let places = (1..arguments.len())
        .filter(|place| arguments.get(*place).is_some_and(|argument| argument == &**word));
    let lines = places.filter(|_| !word.starts_with('-')).map(|place| {
        let mut line = arguments.to_vec();
        line.insert(place, "--".into());
        line
    });
    let line = lines.into_iter().find(|line| Cli::try_parse_from(line).is_ok())?;
    Some(
        line.iter()
            .skip(1)
            .map(|word| quote(&word.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// Words that other tools have for commands of this one.
const OTHER_WORDS: [(&str, &str); 8] = [
    ("log", "state history"),
    ("show", "state read"),
    ("cat", "state read"),
    ("del", "state unset"),
    ("delete", "state unset"),
    ("rollback", "state undo"),
    ("revert", "state undo"),
    ("fsck", "recover doctor"),
];

/// Suggestions for a command that was called without its group, or by another tool's word.
fn without_its_group(error: &clap::Error, arguments: &[OsString]) -> Vec<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return Vec::new();
    };
    let other = OTHER_WORDS.iter().filter(|(other, _)| other == word);
    let other = other.map(|(_, command)| (*command).to_owned());
    let program = Cli::command();
    let groups = program.get_subcommands().filter(|group| group.find_subcommand(word).is_some());
    let known = other.chain(groups.map(|group| format!("{} {word}", group.get_name())));
    // With what was typed after it.
    let after = arguments.iter().skip_while(|argument| *argument != word.as_str()).skip(1);
    let after: String =
        after.map(|argument| format!(" {}", quote(&argument.to_string_lossy()))).collect();
    known.map(|command| command + &after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn an_error_about_input_names_the_help_of_the_command_that_was_typed() {
        let line = words("pipeline-state --root /x state get .a|foo -e");
        for kind in [Kind::Usage, Kind::WaitTimeout, Kind::InvalidName, Kind::Filter] {
            let text = with_help(Error::new(kind, "no"), &line).to_text("error:", &"p".into());
            assert!(text.contains("\nhint: p state get --help "), "{text}");
        }
        let hinted = Error::new(Kind::Path, "no").hint_command("state read", "");
        assert_eq!(with_help(hinted, &line).hints.len(), 1);
        assert_eq!(with_help(Error::new(Kind::Io, "no"), &line).hints, []);
    }
}
