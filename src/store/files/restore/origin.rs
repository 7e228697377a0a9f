//! Checks whether the record of an interrupted restore belongs to the directories that this command
//! resolved.

use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::identity::DirId;
use crate::fs::{Dir, Disk};
use crate::store::files::FileStore;
use crate::store::files::staging::Staging;
use crate::store::restore::intent::{Intent, Origin};

/// The directories that this command writes into an intent.
pub(super) fn origin(store: &FileStore, root: &Dir, config_root: &Dir) -> Result<Origin> {
    Ok(Origin {
        root: identity(&store.disk, root)?,
        config_root: identity(&store.disk, config_root)?,
        config_path: store.settings.root.to_string_lossy().into_owned(),
    })
}

/// The refusal of an intent that was not written for this root and this config root; `None` for
/// one that was.
pub(in crate::store::files) fn foreign(
    store: &FileStore,
    root: &Dir,
    intent: &Intent,
) -> Result<Option<Error>> {
    let refuse = |why: String| {
        let message = format!(
            "{} holds the record of an interrupted restore of {} that {why}; \
             nothing of it is carried out",
            root.path().display(),
            intent.checkpoint
        );
        let abort = "drop the record and what it staged; the state, config/ and .signals/ stay \
                     as they are";
        Error::new(Kind::ForeignIntent, message)
            .hint_command("recover restore --abort", abort)
            .detail("checkpoint", intent.checkpoint.as_str())
    };
    let Some(origin) = &intent.origin else {
        return Ok(Some(refuse(
            "does not say which root it was written for: an earlier release wrote it".into(),
        )));
    };
    if !identity(&store.disk, root)?.is_same(&origin.root) {
        return Ok(Some(refuse("was written for another root: this one is a copy of that".into())));
    }
    let config_root = match Staging::of(store).config_root()? {
        Some(config_root) => Some(identity(&store.disk, &config_root)?),
        None => None,
    };
    if config_root.is_some_and(|found| found.is_same(&origin.config_root)) {
        return Ok(None);
    }
    let refusal = refuse(format!(
        "was written for the config/ of {}, and this command works with that of {}",
        origin.config_path,
        store.settings.root.display()
    ));
    Ok(Some(refusal.hint_shell(
        format!("ls -ld {}", quote_path(origin.config_path.as_ref())),
        "with --root and --state-file as they were then, the next command finishes it",
    )))
}

fn identity(disk: &Disk, dir: &Dir) -> Result<DirId> {
    let gone = || Error::new(Kind::DependencyMissing, format!("{} is gone", dir.path().display()));
    DirId::of(disk, dir)?.ok_or_else(gone)
}
