//! The `hook` commands: those that answer an editor's events, and those that set hooks up.

mod answer;
mod bound;
mod input;
mod install;
mod test;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use self::answer::answer;
use super::args::{Group, Hook};
use super::output::Output;
use super::reinvoke::options;
use super::style::Paint;
use crate::audit::{Audit, AuditEntry, Level};
use crate::config::{CliOverrides, Config, ProcessEnvironment, explicit_root};
use crate::error::{Error, ExitCode, Kind, Result, one_line, quote_for_sh, quote_path};
use crate::fs::Disk;
use crate::hook::announce::EventKind;
use crate::hook::load::{editors_path, load, path};
use crate::hook::rules::{Form, ParsedRules, RuleFinding, Rules, Scope, Weight};
use crate::hook::settings::settings;
use crate::hook::starter::write_rules;
use crate::plural::count;
use crate::printable::json_text;

type Run = anyhow::Result<u8>;

/// The event that a command answers, if it is one for editors.
pub fn event(group: &Group) -> Option<EventKind> {
    match group {
        Group::Hook(Hook::Prompt) => Some(EventKind::Prompt),
        Group::Hook(Hook::Tool) => Some(EventKind::Tool),
        Group::Hook(Hook::Session) => Some(EventKind::Session),
        _ => None,
    }
}

/// Runs one of the commands that set hooks up.
pub fn run(command: &Hook, overrides: &CliOverrides, config: &Config, output: &Output<'_>) -> Run {
    match command {
        Hook::Prompt | Hook::Tool | Hook::Session => {
            Err(Error::new(Kind::Internal, "an event is answered before there is a configuration")
                .into())
        }
        Hook::Settings => print_settings(overrides, output),
        Hook::Install(arguments) => install::install(arguments, overrides, config, output),
        Hook::Test(arguments) => test::test(arguments, config, output),
        Hook::Uninstall(arguments) => install::uninstall(arguments, config, output),
        Hook::InitRules => {
            let path = write_rules(&Disk::real(), &config.settings.root)?.display().to_string();
            let audit = Audit::new(Disk::real(), config.audit_log.clone(), &config.settings.root);
            let entry = AuditEntry::new(Level::Info, "hook/init-rules", "written")
                .with("pid", std::process::id());
            audit.record(&entry.with("path", &path));
            if let Some(warning) = audit.warning() {
                output.warning(warning);
            }
            output.confirm(&format!("Rules written: {path}"), &json!({ "path": path }));
            Ok(ExitCode::Success as u8)
        }
        Hook::Check => check(config, output),
    }
}

/// The settings are JSON in every format. They name this binary by its path, since an editor may
/// have another search path and working directory.
fn print_settings(overrides: &CliOverrides, output: &Output<'_>) -> Run {
    let binary = own_path()?;
    // Names the root if one was chosen. Hooks fix their own exit codes for lock timeouts.
    let (root, state_file) = explicit_root(overrides, &ProcessEnvironment);
    let options = options(&CliOverrides { root, state_file, lock_exit: None, ..overrides.clone() });
    let words = std::iter::once(binary.into_os_string()).chain(options);
    let program = words.map(|word| as_text(&word)).collect::<Result<Vec<_>>>()?.join(" ");
    // JSON leaves some terminal control characters unescaped.
    output.bytes(json_text(format!("{:#}\n", settings(&program))).as_bytes())?;
    Ok(ExitCode::Success as u8)
}

/// The path of this program.
fn own_path() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| {
        Error::new(Kind::of_io(&error), format!("cannot find the path of this program: {error}"))
    })
}

/// A word quoted for every `sh`. It goes into JSON, which is text.
fn as_text(word: &OsStr) -> Result<String> {
    word.to_str().map(quote_for_sh).ok_or_else(|| {
        let path = Path::new(word);
        let message = format!("the name {} is not UTF-8, and settings are text", path.display());
        let what = format!("ls -ld {}", quote_path(path));
        Error::new(Kind::InvalidName, message).hint_shell(what, "rename it, or use another")
    })
}

fn check(config: &Config, output: &Output<'_>) -> Run {
    let root = &config.settings.root;
    let Some(loaded) = load(root, Scope::All)? else {
        let (path, other) = (path(root).display().to_string(), editors_path(root));
        return Err(Error::new(
            Kind::DependencyMissing,
            format!("{path} does not exist, nor {}", other.display()),
        )
        .hint_command("hook init-rules", "write one to begin with")
        .detail("path", path)
        .into());
    };
    let path = loaded.path.display().to_string();
    let (rules, findings) = match loaded.read {
        Ok(mut reading) => {
            reading.findings.extend(misplaced(root, &loaded.path, &reading));
            (Some(reading.rules), reading.findings)
        }
        Err(fault) => (None, vec![fault]),
    };
    let bad = findings.iter().filter(|finding| finding.weight == Weight::Bad).count();
    let unread = loaded.unread.map(|path| path.display().to_string());
    show(output, &Checked { path: &path, unread, rules, findings: &findings }, bad)?;
    match bad {
        0 => Ok(ExitCode::Success as u8),
        bad => {
            let problems = count(bad, "problem");
            Err(Error::new(Kind::Schema, format!("{problems} found in {path}"))
                .detail("path", path)
                .hint_shell(
                    format!("${{EDITOR:-vi}} {}", quote_path(&loaded.path)),
                    "repair what the lines above name; then check again",
                )
                .detail("findings", json!(findings))
                .into())
        }
    }
}

/// Warns about skills by name in `config/`: hooks read them there, other programs do not.
fn misplaced(root: &Path, path: &Path, reading: &ParsedRules) -> Option<RuleFinding> {
    let editors = editors_path(root);
    let is_misplaced = reading.rules.form == Form::Object && path != editors;
    is_misplaced.then(|| RuleFinding {
        line: reading.line,
        place: "skills".to_owned(),
        message: format!(
            "an object of skills belongs in {}; here, only these hooks find it",
            editors.display()
        ),
        weight: Weight::Bad,
    })
}

/// The result of a check.
struct Checked<'a> {
    path: &'a str,
    unread: Option<String>,
    /// The usable rules, if the file can be read at all.
    rules: Option<Rules>,
    findings: &'a [RuleFinding],
}

fn show(output: &Output<'_>, checked: &Checked<'_>, bad: usize) -> anyhow::Result<()> {
    let Checked { path, unread, rules, findings } = checked;
    let form = rules.as_ref().map(|rules| rules.form.name());
    let none = Rules::default();
    let rules = rules.as_ref().unwrap_or(&none);
    let counts = [
        ("skills", rules.skills.len() + rules.named.len()),
        ("phase_transitions", rules.transitions.len()),
        ("tool_rules", rules.tool_rules.len()),
    ];
    if output.is_json() {
        let usable: serde_json::Map<String, Value> =
            counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
        return output.json(&json!({
            "valid": bad == 0, "path": path, "form": form, "unread": unread, "usable": usable,
            "findings": findings,
        }));
    }
    let verdict = if bad == 0 {
        output.paint("PASSED", Paint::Green)
    } else {
        output.paint("FAILED", Paint::Red)
    };
    let usable: Vec<String> =
        counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let mut text = format!("Hook rules: {verdict} ({} can be used)\n", usable.join(", "));
    let form = form.map_or_else(String::new, |form| format!(" (skills as an {form})"));
    text.push_str(&format!("{}\n", one_line(&format!("read: {path}{form}"))));
    if let Some(unread) = unread {
        text.push_str(&format!(
            "{}\n",
            one_line(&format!("not read: {unread}; the other file comes first"))
        ));
    }
    for finding in *findings {
        text.push_str(&format!("{}\n", one_line(&format!("{path}:{finding}"))));
    }
    output.bytes(text.as_bytes())
}
