//! `state init`: begins a state, or continues with the one that is there.

use std::path::Path;

use serde_json::json;

use super::Run;
use crate::cli::ask;
use crate::cli::input::input;
use crate::cli::output::Output;
use crate::error::{Error, ExitCode, Hint, Kind, Result, quote, quote_path};
use crate::side::warning_for_root;
use crate::store::Store;
use crate::store::fresh::{Done, InitMode, Replaced};
use crate::store::options::WriteOptions;
use crate::store::report::validate_input;

pub(super) fn run(fresh: bool, yes: bool, store: &Store, output: &Output<'_>) -> Run {
    if fresh {
        check_fresh(store, yes)?;
    }
    if let Some(files) = store.as_files()
        && let Some(warning) = warning_for_root(files.disk(), &files.settings().directory)
    {
        output.warning(&warning); // before anything is created
    }
    init(store, output, if fresh { InitMode::Fresh } else { InitMode::Continue })
}

/// Asks before it archives a readable state; without a terminal it requires `--yes`.
fn check_fresh(store: &Store, yes: bool) -> Result<()> {
    let Some(served) = store.report().served().filter(|_| !yes) else { return Ok(()) };
    let what = format!("{} is {served}, and --fresh archives it with its history", store.place());
    if !ask::is_possible() {
        return Err(Error::new(Kind::Usage, format!("{what}; nothing was changed"))
            .hint_command("state init --fresh --yes", "archive it and start a new one")
            .hint_command("state init", "keep it; heals and migrates where that is needed"));
    }
    if ask::ask(&format!("{what}. Start a new one?")) {
        return Ok(());
    }
    Err(Error::new(Kind::Cancelled, "the answer was no; nothing was changed")
        .hint_command("state init", "keep it; heals and migrates where that is needed"))
}

fn init(store: &Store, output: &Output<'_>, beginning: InitMode) -> Run {
    let files = store.as_files().filter(|_| beginning == InitMode::Fresh);
    let archives = files.map_or_else(Vec::new, |files| files.lineages().archives());
    let initialized = store.init(beginning, &WriteOptions::of("init"))?;
    store.as_files().inspect(|files| files.logs().make_error_log());
    let archive = files.and_then(|files| files.lineages().newest_archive_except(&archives));
    let (archive, archived_state) =
        archive.map_or((None, None), |(archive, state)| (Some(archive), state));
    let (path, done) = (store.place(), initialized.done);
    let kept = match &initialized.replaced {
        Some(Replaced::Backup(name) | Replaced::Evidence(name)) => Some(name.clone()),
        None => archived_state.as_ref().map(|path| path.display().to_string()),
    };
    let facts = json!({
        "path": path, "revision": initialized.revision.get(), "created": done == Done::Created,
        "done": done.words(), "archive": archive.as_ref().map(|path| path.display().to_string()),
        "archived_state": kept,
    });
    let mut lines =
        vec![format!("State {}: {path} (revision {})", done.words(), initialized.revision)];
    lines.extend(
        archive.map(|archive| format!("The history before it is kept in {}", archive.display())),
    );
    if let (Some(_), Some(kept)) = (&initialized.replaced, &kept) {
        lines.push(format!("The state before it is kept as {kept}"));
    }
    let way_back = match (initialized.replaced, archived_state) {
        (Some(Replaced::Backup(name)), _) => {
            Some(Hint::Command(format!("state recover {name}"), String::new()))
        }
        (Some(Replaced::Evidence(key)), _) => {
            let key = quote(&key);
            Some(Hint::Etcdctl(format!("get --print-value-only {key}"), String::new()))
        }
        (None, Some(state)) => Some(way_back_to(&state, &path)),
        (None, None) => None,
    };
    lines.extend(way_back.map(|hint| format!("The way back: {}", output.command(&hint))));
    output.confirm_in_lines(&lines.iter().map(String::as_str).collect::<Vec<_>>(), &facts);
    Ok(ExitCode::Success)
}

/// The command that brings back a state in an archive.
fn way_back_to(state: &Path, path: &str) -> Hint {
    let (kept, place) = (quote_path(state), quote_path(Path::new(path)));
    match input(state).is_ok_and(|bytes| validate_input(&bytes).error.is_none()) {
        true => Hint::Command(format!("state write --force {kept}"), String::new()),
        // It was damaged, or of another program.
        false => Hint::Shell(format!("cp {kept} {place}"), String::new()),
    }
}
