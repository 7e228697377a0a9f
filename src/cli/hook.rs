//! The `hook` commands: two for editors, which answer an event, and three for whoever sets them up.

mod answer;
mod bound;
mod input;

use serde_json::{Value, json};

pub use self::answer::answer;
use super::args::{Group, Hook};
use super::output::{Output, Verdict};
use crate::config::Config;
use crate::error::{Error, ExitCode, Kind, one_line, quote_path};
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
pub fn run(command: &Hook, config: &Config, output: &Output<'_>) -> Run {
    match command {
        Hook::Prompt | Hook::Tool => {
            Err(Error::new(Kind::Internal, "an event is answered before there is a configuration").into())
        }
        Hook::Settings => print_settings(config, output),
        Hook::InitRules => {
            let path = write_rules(&config.settings.root)?.display().to_string();
            output.confirm(&format!("Rules written: {path}"), &json!({ "path": path }));
            Ok(ExitCode::Success as u8)
        }
        Hook::Check => check(config, output),
    }
}

/// The settings are JSON, whatever the format, and name this very binary: an editor may have another search path.
fn print_settings(config: &Config, output: &Output<'_>) -> Run {
    let binary = std::env::current_exe()
        .map_err(|error| Error::new(Kind::of_io(&error), format!("cannot tell where this program is: {error}")))?;
    // With the root, if one was chosen.
    let options = config.program.strip_prefix("pipeline-state").unwrap_or_default();
    let settings = settings(&format!("{}{options}", quote_path(&binary)));
    output.bytes(format!("{settings:#}\n").as_bytes())?;
    Ok(ExitCode::Success as u8)
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
