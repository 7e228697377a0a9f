//! Answers an event: commits its effects to the state and prints announcements.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::output::{Output, PipeClosed, show_error};
use super::bound::Bound;
use super::input;
use crate::audit::Level;
use crate::cli::open;
use crate::config::{
    self as configuration, CliOverrides, Config, Marks, OutputStyle, ProcessEnvironment, Stance,
    for_hook,
};
use crate::error::{Error, ExitCode, Kind, Result, one_line};
use crate::fs::Disk;
use crate::hook::announce::{EventKind, answer as answer_to, context};
use crate::hook::content::read_below;
use crate::hook::decide::{Effects, concerned, may_concern, on_prompt, on_tool};
use crate::hook::event::{HookEvent, ToolUse};
use crate::hook::files::Project;
use crate::hook::load::{Loaded, load};
use crate::hook::named::{self, Surroundings};
use crate::hook::record::record;
use crate::hook::rules::{Form, RuleFinding, Rules, Scope, ToolRule};
use crate::hook::session;
use crate::name::Name;
use crate::store::{ForeignEdits, Served, Store};

/// Answers the event on standard input and returns 0 or 1, or 64 for a wrong command line or
/// variable. Never 2, which editors read as "block", even after a lock timeout or with
/// `--lock-exit`.
pub fn answer(event: EventKind, overrides: &CliOverrides, style: OutputStyle) -> u8 {
    let invocation = configuration::invocation(overrides, &ProcessEnvironment);
    let bound = Bound::begin(style, invocation.clone());
    if event != EventKind::Tool {
        bound.watch();
    }
    let disk = Disk::real();
    let (received, config) = match listen(event, overrides, &disk, &bound) {
        Ok(Some(heard)) => heard,
        Ok(None) => return ExitCode::Success as u8,
        Err(error) => {
            let code = code_of(&error);
            show_error(&error.detail("exit", code), &invocation, style);
            return code;
        }
    };
    super::super::log::start(&config);
    let output = Output::new(&config);
    for warning in &config.warnings {
        output.warning(warning);
    }
    let store = match open::store(&config, disk.clone()) {
        Ok(store) => store.reporting_absence(),
        Err(error) => {
            let code = code_of(&error);
            output.error(&error.detail("exit", code));
            return code;
        }
    };
    let hook = Hook { event, store: &store, disk: &disk, output: &output, bound: &bound };
    let result = hook.respond(&received);
    for warning in store.take_warnings() {
        output.warning(&warning);
    }
    let error = match result {
        Ok(()) => return ExitCode::Success as u8,
        Err(error) if error.is::<PipeClosed>() => return ExitCode::Success as u8,
        Err(error) => error
            .downcast::<Error>()
            .unwrap_or_else(|other| Error::new(Kind::Io, format!("{other:#}"))),
    };
    let code = code_of(&error);
    output.error(&error.detail("exit", code));
    code
}

fn code_of(error: &Error) -> u8 {
    let code = if error.kind == Kind::Usage { ExitCode::Usage } else { ExitCode::General };
    code as u8
}

/// Reads the event, which may name the root. A prompt without text, such as a picture, means
/// nothing.
fn listen(
    event: EventKind,
    overrides: &CliOverrides,
    disk: &Disk,
    bound: &Bound,
) -> Result<Option<(HookEvent, Config)>> {
    let received = input::read(event, bound.input())?;
    match event {
        EventKind::Prompt if received.prompt.as_ref().is_none_or(String::is_empty) => {
            return Ok(None);
        }
        EventKind::Prompt | EventKind::Session => {}
        EventKind::Tool => check(event, &received)?,
    }
    let patience = match event {
        EventKind::Prompt | EventKind::Session => PROMPT_PATIENCE,
        // a timeout loses the signal, so wait as long as the hook may run
        EventKind::Tool => Duration::MAX,
    };
    let overrides =
        for_hook(overrides, &ProcessEnvironment, disk, received.cwd.as_deref(), patience)?;
    let env = &ProcessEnvironment;
    let mut config = match Config::resolve_for(Stance::Hook, Marks::State, &overrides, env, disk) {
        // A root that came from elsewhere: the next command says what to do.
        Err(error) if error.kind == Kind::UntrustedStore => return Ok(None),
        config => config?,
    };
    config.settings.lock_timeout = bound.patience(config.settings.lock_timeout);
    config.settings.foreign_edits = ForeignEdits::Refuse; // a person must decide
    Ok(Some((received, config)))
}

/// Lock timeout of the hooks for prompts and sessions, since a person waits for them.
const PROMPT_PATIENCE: Duration = Duration::from_secs(1);

/// Refuses an event other than the use of a tool.
fn check(event: EventKind, received: &HookEvent) -> Result<()> {
    let is_there = received.tool.is_some();
    // A tool that is about to be used has done nothing yet.
    let too_early = matches!(received.name.as_deref(), Some("PreToolUse" | "PermissionRequest"));
    if is_there && !too_early {
        return Ok(());
    }
    let name = received.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
    let why =
        if too_early { "comes too early".to_owned() } else { "has no `tool_name`".to_owned() };
    let message = format!("this hook is for {}, and the event{name} {why}", event.event());
    Err(Error::new(Kind::InvalidJson, message)
        .hint_command("hook settings", "print the settings that have it called right"))
}

struct Hook<'a> {
    event: EventKind,
    store: &'a Store,
    disk: &'a Disk,
    output: &'a Output<'a>,
    bound: &'a Bound,
}

impl Hook<'_> {
    fn respond(&self, received: &HookEvent) -> anyhow::Result<()> {
        let settings = self.store.settings();
        if !settings.directory.is_dir() {
            return Ok(());
        }
        if self.event == EventKind::Tool {
            if self.is_about_nothing(received) {
                return Ok(());
            }
            self.bound.watch();
        }
        // This comes first: it finishes an interrupted restore, which may replace the rules.
        let state = match self.store.read() {
            Err(error) if matches!(error.kind, Kind::NotInitialized | Kind::NotAState) => {
                return Ok(());
            }
            state => state,
        };
        if self.event == EventKind::Session {
            let lines = session::lines(&state?.value);
            self.bound.answered();
            return self.output.json(&context(self.event, &lines));
        }
        let scope = match (self.event, &received.tool) {
            (EventKind::Tool, Some(used)) => Scope::Tool(used),
            _ => Scope::Prompts,
        };
        let Some(rules) = self.rules(&settings.root, scope)? else { return Ok(()) };
        let project = Project::of_root(&settings.root);
        match (self.event, &received.prompt, &received.tool) {
            (EventKind::Prompt, Some(prompt), _) => self.prompt(prompt, &rules, &project, state),
            (EventKind::Tool, _, Some(used)) => {
                self.tool(used, received.cwd.as_deref(), &rules, &project, state)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether no rule is about the used tool, and nothing has to be reported. Most events
    /// are of this kind: they need neither the state nor the time limit's second thread. An unsure
    /// answer is false.
    fn is_about_nothing(&self, received: &HookEvent) -> bool {
        let (Some(used), true) = (&received.tool, self.store.is_at_rest()) else { return false };
        let root = &self.store.settings().root;
        let reading = match load(root, Scope::Tool(used)) {
            Ok(None) => return true,
            Ok(Some(Loaded { read: Ok(reading), .. })) => reading,
            Ok(Some(_)) | Err(_) => return false,
        };
        if reading.bad().next().is_some() {
            return false;
        }
        let project = Project::of_root(root);
        let file = used.absolute_path(received.cwd.as_deref());
        let file = file.as_deref().map(|file| project.file(file));
        !may_concern(&reading.rules, used, &|pattern| {
            file.as_ref().is_some_and(|file| file.is_match(pattern))
        })
    }

    // ---- rules ----

    /// The usable rules; reports and logs the others.
    fn rules(&self, root: &Path, scope: Scope<'_>) -> Result<Option<Rules>> {
        let Some(Loaded { path, read, .. }) = load(root, scope)? else { return Ok(None) };
        match read {
            Ok(reading) => {
                self.log(
                    reading
                        .bad()
                        .map(|finding| format!("{}:{finding}; it is left out", path.display())),
                );
                Ok(Some(reading.rules))
            }
            Err(fault) => {
                let RuleFinding { line, .. } = fault;
                let message = format!("{}:{fault}", path.display());
                self.note(std::slice::from_ref(&message));
                Err(Error::new(Kind::InvalidJson, message)
                    .hint_command("hook check", "see all problems once it is repaired")
                    .detail("line", line))
            }
        }
    }

    /// Warns, and logs it.
    fn log(&self, messages: impl Iterator<Item = String>) {
        let messages: Vec<String> = messages.collect();
        for message in &messages {
            self.output.warning(message);
        }
        self.note(&messages);
    }

    /// Logs messages missing from the error log's last lines: a hook runs many times a minute.
    fn note(&self, messages: &[String]) {
        let Some(store) = self.store.as_files().filter(|_| !messages.is_empty()) else { return };
        let noted = store.logs().errors();
        for message in messages {
            if !noted.iter().any(|noted| noted.message == one_line(message)) {
                store.logs().note_error(
                    Level::Warn,
                    "hook",
                    message,
                    ExitCode::ValidationFailed as u8,
                );
            }
        }
    }

    // ---- events ----

    /// Announces the activation even if the commit fails: the person asked for it.
    fn prompt(
        &self,
        prompt: &str,
        rules: &Rules,
        project: &Project,
        state: Result<Served>,
    ) -> anyhow::Result<()> {
        let around = Around { disk: self.disk, project, file: None };
        let effects = match rules.form {
            Form::Array => on_prompt(rules, prompt, &|pattern| project.has(pattern)),
            Form::Object => named::on_prompt(&rules.named, prompt, &around),
        };
        self.log(project.take_complaints().into_iter());
        let received = self.announce(&effects);
        self.bound.answered();
        let recorded = state.and_then(|state| match effects.change(&state.value) {
            true => record(
                self.store,
                self.event.command(),
                reason(&effects),
                &Value::Null,
                &mut |_| effects.clone(),
            )
            .map(|_| ()),
            false => Ok(()),
        });
        if let (Err(error), true) = (recorded, effects != Effects::default()) {
            self.store.logs().record_refusal(self.event.command(), &error);
            self.output.warning(&lost(&effects, error).message);
        }
        received
    }

    /// Announces the next step once it is committed; an error names the lost effects.
    fn tool(
        &self,
        used: &ToolUse,
        cwd: Option<&Path>,
        rules: &Rules,
        project: &Project,
        state: Result<Served>,
    ) -> anyhow::Result<()> {
        let file = used.absolute_path(cwd);
        let meant = file.as_deref().map(|file| project.file(file));
        let concerned = concerned(rules, used, &|pattern| {
            meant.as_ref().is_some_and(|file| file.is_match(pattern))
        });
        let around = Around { disk: self.disk, project, file: file.as_deref() };
        let triggered = file.as_deref().map_or_else(Vec::new, |file| {
            named::on_change(&rules.named, used, file, project, &around)
        });
        if concerned.is_empty() {
            self.bound.answered();
            return self.announce(&Effects { announcements: triggered, ..Effects::default() });
        }
        let decide = |state: &Value| on_tool(&concerned, rules, state);
        let refuse = |effects: &Effects, error: Error| {
            self.store.logs().record_refusal(self.event.command(), &error);
            lost(effects, error)
        };
        let state = state.map_err(|error| refuse(&at_most(&concerned), error))?.value;
        let mut effects = decide(&state);
        if effects.change(&state) {
            self.bound.records(&effects.in_words());
            let about = json!({"tool": used.name});
            effects =
                record(self.store, self.event.command(), reason(&effects), &about, &mut |state| {
                    decide(state)
                })
                .map_err(|error| refuse(&effects, error))?;
        }
        self.bound.answered();
        effects.announcements.extend(triggered);
        self.announce(&effects)
    }

    fn announce(&self, effects: &Effects) -> anyhow::Result<()> {
        answer_to(self.event, &effects.announcements)
            .map_or(Ok(()), |answer| self.output.json(&answer))
    }
}

/// Inputs for skills by name.
pub(super) struct Around<'a> {
    pub(super) disk: &'a Disk,
    pub(super) project: &'a Project,
    /// The changed file.
    pub(super) file: Option<&'a Path>,
}

impl Surroundings for Around<'_> {
    fn is_set(&self, variable: &str) -> bool {
        std::env::var_os(variable).is_some_and(|value| !value.is_empty())
    }

    fn contents(&self) -> Option<String> {
        let (directory, relative) = self.project.locate(self.file?)?;
        read_below(self.disk, &directory, &relative)
    }
}

/// Reason for the history: the last signal, or the activation.
fn reason(effects: &Effects) -> Option<String> {
    effects.signals.last().map(Name::to_string).or_else(|| effects.activation.clone())
}

/// The effects of these rules if all their required signals exist.
fn at_most(rules: &[&ToolRule]) -> Effects {
    Effects {
        signals: rules.iter().filter_map(|rule| rule.emits.clone()).collect(),
        phase: rules.iter().rev().find_map(|rule| rule.phase.clone()),
        ..Effects::default()
    }
}

/// The error of a failed commit, which names the lost effects.
fn lost(effects: &Effects, error: Error) -> Error {
    let what = effects.in_words();
    let how =
        if error.kind == Kind::DurabilityUnknown { "may not last" } else { "is not recorded" };
    let signals: Vec<&str> = effects.signals.iter().map(Name::as_str).collect();
    let signals = json!(signals);
    Error { message: format!("{what} {how}: {}", error.message), ..error }
        .detail("signals", signals)
}
