//! `state edit`: the document in an editor, on a private copy.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use super::input::parse_document;
use super::output::Output;
use super::write_command::{change, check_claim};
use crate::error::{Error, ExitCode, Kind, Result, quote_path};
use crate::store::Store;
use crate::store::change::Claim;
use crate::store::options::WriteOptions;

/// Opens the document in an editor and commits it if it is valid and no other commit came first.
/// Keeps a copy that cannot be committed.
pub fn run(store: &Store, output: &Output<'_>, order: &WriteOptions) -> anyhow::Result<ExitCode> {
    let served = store.read()?;
    // Private from the first moment: tempfile makes it 0600 and under an unguessable name.
    let mut copy =
        tempfile::Builder::new().prefix("pipeline-state-edit-").suffix(".json").tempfile()?;
    copy.write_all(&served.bytes)?;
    copy.flush()?;
    let (file, path) = copy.into_parts();
    drop(file);
    let edited = edit(&path);
    let bytes = std::fs::read(&path).map_err(|error| {
        let message = format!(
            "the editor left no file to read at {}: {error}; nothing was committed",
            path.display()
        );
        Error::new(Kind::CommandFailed, message).hint_command("state edit", "begin again")
    })?;
    let committed = edited.map_err(anyhow::Error::from).and_then(|()| {
        let value = parse_document(&bytes)?;
        let claim = Claim::of(&value);
        change(store, output, order, "State updated", &mut |base| {
            check_claim(&claim, base)?;
            Ok(value.clone().into())
        })
    });
    match committed {
        Err(error) if bytes != served.bytes => {
            let kept = path.keep()?;
            let error = error.downcast::<Error>()?;
            let shown = quote_path(&kept);
            Err(error
                .hint_shell(
                    format!("${{VISUAL:-${{EDITOR:-vi}}}} {shown}"),
                    "your edit is kept there; repair it, then",
                )
                .hint_command(
                    format!("state write {shown}"),
                    "commit it; --force if that undoes no other change",
                )
                .into())
        }
        result => result,
    }
}

fn edit(path: &Path) -> Result<()> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor =
        variable("VISUAL").or_else(|| variable("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // Through a shell, since editors are set with arguments: EDITOR="code --wait".
    let status =
        Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path).status();
    let status = status
        .map_err(|error| Error::new(Kind::DependencyMissing, format!("cannot run sh: {error}")))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(126 | 127) => {
            Err(Error::new(Kind::DependencyMissing, format!("cannot find the editor {editor:?}"))
                .hint_shell("export EDITOR=nano", "name an editor that is installed"))
        }
        _ => Err(Error::new(
            Kind::CommandFailed,
            format!("the editor ended with {status}; nothing was committed"),
        )),
    }
}
