//! `hook install` and `hook uninstall`: edits of an editor's settings file.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::args::hook as args;
use super::super::output::Output;
use super::super::reinvoke::options;
use super::{as_text, own_path};
use crate::config::{CliOverrides, Config, Environment as _, ProcessEnvironment};
use crate::error::{Error, ExitCode, Kind, Result, quote_for_sh};
use crate::fs::Disk;
use crate::hook::files::Project;
use crate::hook::settings::{
    Edited, EditorScope, SettingsFile, install as add, uninstall as remove,
};

type Run = anyhow::Result<u8>;

/// The scopes, by the words for them.
const SCOPES: [(EditorScope, &str); 3] = [
    (EditorScope::Project, "--project"),
    (EditorScope::Local, "--local"),
    (EditorScope::User, "--user"),
];

/// Adds the hooks to a settings file.
pub fn install(
    arguments: &args::Install,
    overrides: &CliOverrides,
    config: &Config,
    output: &Output<'_>,
) -> Run {
    let scope = arguments.place.scope();
    let program = program(scope, arguments.absolute, overrides, config)?;
    let file = edit(arguments.place, config, output, |text| add(text, &program))?;
    warn_of_others(scope, config, output);
    let has_none = config.store.is_none() && !config.settings.path().exists();
    if scope != EditorScope::User && has_none {
        output.warning("there is no state here, and so hooks do nothing: see `state init`");
    }
    if !arguments.absolute && !is_on_path() {
        output.warning(
            "pipeline-state is not on PATH here, so these hooks fail; --absolute names its path",
        );
    }
    Ok(file)
}

/// Removes the hooks from a settings file.
pub fn uninstall(arguments: &args::Uninstall, config: &Config, output: &Output<'_>) -> Run {
    edit(arguments.place, config, output, remove)
}

fn edit(
    place: args::Place,
    config: &Config,
    output: &Output<'_>,
    change: impl Fn(&str) -> Result<Edited>,
) -> Run {
    let disk = Disk::real();
    let base = base(place.scope(), config)?;
    let file = SettingsFile::open(&disk, place.scope(), &base, &config.settings.path())?;
    let edited = change(file.text()?).map_err(|error| file.about(&error.message))?;
    if edited.is_changed() && !place.dry_run {
        file.replace(&base, &edited.text)?;
    }
    let shown = file.path().display().to_string();
    let mut lines =
        vec![format!("{}: {shown}", if place.dry_run { "Would edit" } else { "Settings" })];
    for (event, change) in &edited.changes {
        lines.push(format!("  {} ({}): {}", event.event(), event.command(), change.name()));
    }
    let hooks: Vec<_> = edited
        .changes
        .iter()
        .map(|(event, change)| json!({"event": event.event(), "change": change.name()}))
        .collect();
    let result = json!({
        "path": shown, "changed": edited.is_changed(), "dry_run": place.dry_run, "hooks": hooks,
    });
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    output.confirm_in_lines(&lines, &result);
    Ok(ExitCode::Success as u8)
}

/// The directory that a scope's file is found from.
fn base(scope: EditorScope, config: &Config) -> Result<PathBuf> {
    if scope != EditorScope::User {
        return Ok(Project::of_root(&config.settings.root).directory().to_owned());
    }
    let variable =
        |name| ProcessEnvironment.get(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let named = variable("CLAUDE_CONFIG_DIR");
    named.or_else(|| variable("HOME").map(|home| home.join(".claude"))).ok_or_else(|| {
        Error::new(Kind::DependencyMissing, "HOME does not say where the user's settings are")
            .hint_shell("export HOME=~", "then do it again")
    })
}

/// The command line that calls this program from the settings of a scope.
fn program(
    scope: EditorScope,
    absolute: bool,
    overrides: &CliOverrides,
    config: &Config,
) -> Result<String> {
    let mut words = vec![match absolute {
        true => as_text(own_path()?.as_os_str())?,
        false => "pipeline-state".to_owned(),
    }];
    if scope == EditorScope::Project && overrides.audit_log.is_some() {
        let message =
            "--audit-log is a path of this machine, and the project's settings are shared";
        return Err(Error::new(Kind::Usage, message).hint_command(
            "hook install --local --audit-log PATH",
            "keep it in your own settings",
        ));
    }
    let mut carried = CliOverrides { lock_exit: None, ..overrides.clone() };
    if scope != EditorScope::User {
        // The hooks find the root from the project's directory, wherever that lies.
        carried.root = None;
        if carried.state_file.take().is_some() {
            words.push("--state-file".to_owned());
            words.push(in_project(
                &config.settings.directory.join(&config.settings.file_name),
                config,
            )?);
        }
    }
    for word in options(&carried) {
        words.push(as_text(&word)?);
    }
    Ok(words.join(" "))
}

/// A path in the project as every machine can name it.
fn in_project(path: &Path, config: &Config) -> Result<String> {
    let project = Project::of_root(&config.settings.root);
    match path.strip_prefix(project.directory()).ok().and_then(Path::to_str) {
        Some(path) => Ok(format!("\"$CLAUDE_PROJECT_DIR\"/{}", quote_for_sh(path))),
        None => {
            let message = format!(
                "{} lies outside of the project {}, whose settings are to name it",
                path.display(),
                project.directory().display()
            );
            Err(Error::new(Kind::Usage, message)
                .hint_command("hook install --user", "keep it in your own settings"))
        }
    }
}

/// Warns of hooks in other files: the editor calls all that differ.
fn warn_of_others(scope: EditorScope, config: &Config, output: &Output<'_>) {
    let disk = Disk::real();
    for (other, option) in SCOPES.into_iter().filter(|(other, _)| *other != scope) {
        let Ok(base) = base(other, config) else { continue };
        let Ok(file) = SettingsFile::open(&disk, other, &base, &config.settings.path()) else {
            continue;
        };
        let Ok(Ok(edited)) = file.text().map(remove) else { continue };
        if edited.is_changed() {
            output.warning(&format!(
                "{} has hooks of this program, too, and the editor calls both; \
                 `hook uninstall {option}` removes those",
                file.path().display()
            ));
        }
    }
}

fn is_on_path() -> bool {
    let path = ProcessEnvironment.get("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("pipeline-state").is_file())
}
