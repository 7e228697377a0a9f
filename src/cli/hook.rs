//! The `hook` commands: two for editors, which answer an event, and three for whoever sets them up.

mod answer;
mod bound;
mod input;

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Value, json};

pub use self::answer::answer;
use super::again::options;
use super::args::{Group, Hook};
use super::output::{Output, Verdict};
use crate::config::{Config, Given, ProcessEnvironment, chosen};
use crate::error::{Error, ExitCode, Kind, Result, one_line, quote, quote_path};
use crate::fs::Disk;
use crate::hook::announce::Answers;
use crate::hook::load::{load, path};
use crate::hook::rules::{Finding, Rules, Scope, Weight};
use crate::hook::starter::{settings, write_rules};

type Run = anyhow::Result<u8>;

/// The event that a command answers, if it is one for editors.
pub fn event(group: &Group) -> Option<Answers> {
    match group {
        Group::Hook(Hook::Prompt) => Some(Answers::Prompt),
        Group::Hook(Hook::Tool) => Some(Answers::Tool),
        _ => None,
    }
}

/// Runs a command for whoever sets the hooks up.
pub fn run(command: &Hook, given: &Given, config: &Config, output: &Output<'_>) -> Run {
    match command {
        Hook::Prompt | Hook::Tool => {
            Err(Error::new(Kind::Internal, "an event is answered before there is a configuration").into())
        }
        Hook::Settings => print_settings(given, output),
        Hook::InitRules => {
            let path = write_rules(&Disk::real(), &config.settings.root)?.display().to_string();
            output.confirm(&format!("Rules written: {path}"), &json!({ "path": path }));
            Ok(ExitCode::Success as u8)
        }
        Hook::Check => check(config, output),
    }
}

/// The settings are JSON, whatever the format, and name this very binary: an editor may have another search path, and may call
/// from another directory.
fn print_settings(given: &Given, output: &Output<'_>) -> Run {
    let binary = std::env::current_exe()
        .map_err(|error| Error::new(Kind::of_io(&error), format!("cannot tell where this program is: {error}")))?;
    // With the root, if one was chosen. What a hook ends with is settled, wherever it meets a lock.
    let (root, state_file) = chosen(given, &ProcessEnvironment);
    let options = options(&Given { root, state_file, lock_exit: None, ..given.clone() });
    let words = std::iter::once(binary.into_os_string()).chain(options);
    let program = words.map(|word| as_text(&word)).collect::<Result<Vec<_>>>()?.join(" ");
    // JSON leaves some of the characters as they are that steer a terminal.
    let escape = |c: char| if c.is_control() && c != '\n' { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    output.bytes(format!("{:#}\n", settings(&program)).chars().map(escape).collect::<String>().as_bytes())?;
    Ok(ExitCode::Success as u8)
}

/// A word that each `sh` takes for what it is. It has to go into JSON, which is text.
fn as_text(word: &OsStr) -> Result<String> {
    word.to_str().map(quote).ok_or_else(|| {
        let path = Path::new(word);
        let message = format!("the name {} is not UTF-8, and settings are text", path.display());
        let what = format!("ls -ld {}", quote_path(path));
        Error::new(Kind::InvalidName, message).try_shell(what, "rename it, or use another")
    })
}

fn check(config: &Config, output: &Output<'_>) -> Run {
    let root = &config.settings.root;
    let path = path(root).display().to_string();
    let Some(read) = load(root, Scope::All)? else {
        return Err(Error::new(Kind::DependencyMissing, format!("{path} does not exist"))
            .try_command("hook init-rules", "write one to begin with")
            .detail("path", path)
            .into());
    };
    let (rules, findings) = match read {
        Ok(reading) => (reading.rules, reading.findings),
        Err(fault) => (Rules::default(), vec![fault]),
    };
    let bad = findings.iter().filter(|finding| finding.weight == Weight::Bad).count();
    show(output, (&path, &rules, &findings), bad)?;
    match bad {
        0 => Ok(ExitCode::Success as u8),
        bad => {
            let things = if bad == 1 { "1 thing is".to_owned() } else { format!("{bad} things are") };
            Err(Error::new(Kind::Schema, format!("{things} wrong with {path}; the rules concerned are skipped"))
                .detail("path", path)
                .detail("findings", json!(findings))
                .into())
        }
    }
}

fn show(output: &Output<'_>, (path, rules, findings): (&str, &Rules, &[Finding]), bad: usize) -> anyhow::Result<()> {
    let counts = [
        ("skills", rules.skills.len()),
        ("phase_transitions", rules.transitions.len()),
        ("tool_rules", rules.tool_rules.len()),
    ];
    if output.is_json() {
        let usable: serde_json::Map<String, Value> =
            counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
        return output.json(&json!({"valid": bad == 0, "path": path, "usable": usable, "findings": findings}));
    }
    let verdict =
        if bad == 0 { output.verdict("PASSED", Verdict::Good) } else { output.verdict("FAILED", Verdict::Bad) };
    let usable: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let mut text = format!("Hook rules: {verdict} ({} can be used)\n", usable.join(", "));
    for finding in findings {
        text.push_str(&format!("{}\n", one_line(&format!("{path}:{finding}"))));
    }
    output.bytes(text.as_bytes())
}
