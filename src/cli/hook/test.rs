//! `hook test`: what an event would do, rule by rule.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::args::hook as args;
use super::super::output::Output;
use super::super::style::Paint;
use super::answer::Around;
use super::input;
use crate::cli::open;
use crate::config::Config;
use crate::error::{Error, ExitCode, Kind, Result, one_line};
use crate::fs::Disk;
use crate::hook::announce::EventKind;
use crate::hook::decide::{Effects, Unmet, concerned, on_prompt, on_tool};
use crate::hook::event::{HookEvent, ToolUse};
use crate::hook::explain::{self, Explained};
use crate::hook::files::Project;
use crate::hook::load::load;
use crate::hook::named;
use crate::hook::rules::{Form, Rules, Scope};
use crate::name::Name;

/// The wait for an event on standard input.
const PATIENCE: Duration = Duration::from_secs(60);

/// Explains an event; its exit code.
pub fn test(arguments: &args::Test, config: &Config, output: &Output<'_>) -> anyhow::Result<u8> {
    let event = event(arguments)?;
    let root = &config.settings.root;
    let Some(loaded) = load(root, Scope::All)? else {
        let message = format!("{} has no rules for hooks", root.display());
        return Err(Error::new(Kind::DependencyMissing, message)
            .hint_command("hook init-rules", "write some to begin with")
            .into());
    };
    let path = loaded.path.display().to_string();
    let rules = loaded.read.map_err(|fault| {
        Error::new(Kind::InvalidJson, format!("{path}:{fault}"))
            .hint_command("hook check", "see all of it once it is mended")
    })?;
    for finding in rules.bad() {
        output.warning(&format!("{path}:{finding}; it is left out"));
    }
    let disk = Disk::real();
    let store = open::store(config, disk.clone())?;
    // Read as it is: nothing is healed for a test.
    let state = store.report().read_as_it_is()?;
    if state.is_none() {
        output.warning("there is no state here, and so hooks do nothing: see `state init`");
    }
    let state = state.unwrap_or_default();
    let project = Project::of_root(root);
    let (kind, explained, effects) = match (&event.prompt, &event.tool) {
        (_, Some(used)) => {
            let file = used.absolute_path(event.cwd.as_deref());
            let around = Around { disk: &disk, project: &project, file: file.as_deref() };
            let explained =
                explain::tool(&rules.rules, used, file.as_deref(), &project, &state, &around);
            let effects = of_tool(&rules.rules, used, file.as_deref(), &project, &state, &around);
            (EventKind::Tool, explained, effects)
        }
        (prompt, None) => {
            let prompt = prompt.as_deref().unwrap_or_default();
            if prompt.is_empty() {
                output.warning("an empty prompt activates nothing: the hook is silent");
            }
            let around = Around { disk: &disk, project: &project, file: None };
            let has = |pattern: &_| project.has(pattern);
            let explained = explain::prompt(&rules.rules, prompt, &has, &around);
            let effects = match rules.rules.form {
                _ if prompt.is_empty() => Effects::default(),
                Form::Array => on_prompt(&rules.rules, prompt, &has),
                Form::Object => named::on_prompt(&rules.rules.named, prompt, &around),
            };
            (EventKind::Prompt, explained, effects)
        }
    };
    for complaint in project.take_complaints() {
        output.warning(&complaint);
    }
    show(output, kind, &path, &explained, &effects)?;
    Ok(ExitCode::Success as u8)
}

fn event(arguments: &args::Test) -> Result<HookEvent> {
    if let Some(prompt) = &arguments.prompt {
        return Ok(HookEvent { prompt: Some(prompt.clone()), ..HookEvent::default() });
    }
    if let Some(name) = &arguments.tool {
        let tool = ToolUse {
            name: name.clone(),
            path: arguments.file.clone(),
            command: arguments.command.clone(),
            created: arguments.file.as_ref().is_some_and(|file| !file.exists()),
            ..ToolUse::default()
        };
        return Ok(HookEvent { tool: Some(tool), ..HookEvent::default() });
    }
    let event = input::read(EventKind::Prompt, Instant::now() + PATIENCE).map_err(|error| {
        match error.kind {
            Kind::Usage => Error::new(
                Kind::Usage,
                "an event is needed: --prompt, --tool, or one on standard input",
            )
            .hint_command("hook test --prompt 'write a specification'", "an example"),
            _ => error,
        }
    })?;
    Ok(event)
}

fn of_tool(
    rules: &Rules,
    used: &ToolUse,
    file: Option<&Path>,
    project: &Project,
    state: &Value,
    around: &Around<'_>,
) -> Effects {
    let meant = file.map(|file| project.file(file));
    let is_meant = |pattern: &_| meant.as_ref().is_some_and(|file| file.is_match(pattern));
    let mut effects = on_tool(&concerned(rules, used, &is_meant), rules, state);
    let file: Option<PathBuf> = file.map(Path::to_owned);
    effects.announcements.extend(
        file.as_deref().map_or_else(Vec::new, |file| {
            named::on_change(&rules.named, used, file, project, around)
        }),
    );
    effects
}

fn show(
    output: &Output<'_>,
    kind: EventKind,
    path: &str,
    explained: &[Explained],
    effects: &Effects,
) -> anyhow::Result<()> {
    let announcements: Vec<String> =
        effects.announcements.iter().map(ToString::to_string).collect();
    let signals: Vec<&str> = effects.signals.iter().map(Name::as_str).collect();
    if output.is_json() {
        let rules: Vec<Value> = explained
            .iter()
            .map(|Explained { rule, unmet }| {
                let words = unmet.map(Unmet::words);
                json!({"rule": rule, "matches": unmet.is_none(), "unmet": words})
            })
            .collect();
        return output.json(&json!({
            "event": kind.event(), "path": path, "rules": rules, "signals": signals,
            "phase": effects.phase, "activation": effects.activation,
            "announcements": announcements,
        }));
    }
    let mut lines = vec![one_line(&format!("{} by {path}", kind.event()))];
    for Explained { rule, unmet } in explained {
        let rule = one_line(rule);
        lines.push(match unmet {
            None => format!("{} {rule}", output.paint("yes", Paint::Green)),
            Some(unmet) => format!("no  {rule}: {}", unmet.words()),
        });
    }
    let mut would =
        |what: &str, value: &str| lines.push(one_line(&format!("would {what}: {value}")));
    if !signals.is_empty() {
        would("raise", &signals.join(", "));
    }
    for (what, value) in [("phase", &effects.phase), ("last activation", &effects.activation)] {
        if let Some(value) = value {
            would(&format!("set the {what}"), value);
        }
    }
    for announcement in &announcements {
        would("announce", announcement);
    }
    output.bytes(format!("{}\n", lines.join("\n")).as_bytes())?;
    Ok(())
}
