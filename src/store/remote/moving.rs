//! Moving a state between a root and a store.
//!
//! `meta` says where the state is. While it moves, `meta` says so, and each commit compares `meta`.
//! The transaction that puts the document and says that it is here decides a push; the one that
//! deletes it and says where it went decides a pull. All others are guarded by the `meta` that the
//! move has put, so they come too late after another command ended the move.

mod arrival;
mod departure;
mod step;

use self::arrival::{Push, take_back};
use self::departure::{Pull, release, tokens_end};
use super::RemoteStore;
use super::keys::KeySpace;
use super::meta::{Meta, Standing, meta_of, not_here};
use super::neighbours::check_neighbours;
use crate::audit::Level;
use crate::error::{Error, Hint, Kind, Result, quote};
use crate::etcd::messages::KeyValue;
use crate::etcd::txn::Keys;
use crate::lock::remote::StateMark;
use crate::store::FileStore;
use crate::store::logged::entry;
use crate::store::moving::{Contents, Direction, GivenUp, Mark, Moved};
use crate::store::next_revision::random;
use crate::store::remote::neighbours::Beginning;
use crate::store::restore::intent::OperationId;

/// Moves of the state of a store.
#[derive(Clone, Copy, Debug)]
pub struct Moves<'s> {
    pub(in crate::store) store: &'s RemoteStore,
}

impl Moves<'_> {
    /// Moves the state between a root and this store, or continues to.
    pub fn run(&self, direction: Direction, root: &FileStore) -> Result<Moved> {
        let contents = match direction {
            Direction::Push => self.push_from(root)?,
            Direction::Pull => self.pull_to(root)?,
        };
        let moved = Moved {
            url: self.store.shown.clone(),
            lineage: contents.lineage,
            revision: contents.revision,
            backups: contents.backups.len(),
            signals: contents.signals.len(),
        };
        let entry = entry(Level::Info, direction.action(), "moved");
        let entry = entry.with("revision", moved.revision).with("lineage", &moved.lineage);
        self.store.log(entry.with("pid", std::process::id()));
        Ok(moved)
    }

    /// Gives up a move that was interrupted.
    pub fn give_up(&self, direction: Direction, root: &FileStore) -> Result<GivenUp> {
        let found = root.moves().interrupted(&self.mark(direction)?);
        let Some(moved) = found.map_err(of_root)? else { return Ok(GivenUp::Nothing) };
        if !moved.is_own()? {
            moved.give_up()?; // the store knows nothing of this copy
            return Ok(GivenUp::TakenBack);
        }
        let operation = &moved.mark.operation;
        match direction {
            Direction::Push => {
                take_back(self.store, operation)?;
                moved.begin_locks_again(tokens_end(self.store)?)?;
            }
            Direction::Pull => release(self.store, operation)?,
        }
        moved.give_up()?;
        let entry = entry(Level::Info, direction.action(), "given up");
        self.store.log(entry.with("pid", std::process::id()));
        Ok(GivenUp::TakenBack)
    }

    /// `state push`: moves the state of a root here, or continues to.
    fn push_from(&self, root: &FileStore) -> Result<Contents> {
        let store = self.store;
        // A store that cannot take it refuses before anything is touched.
        if meta_of(store)?.put_at == 0 {
            check_neighbours(store, Beginning::Push)?;
        }
        let (moved, contents) = root.moves().push(self.mark(Direction::Push)?).map_err(of_root)?;
        let push = Push { store, root, operation: &moved.mark.operation, contents: &contents };
        let interrupted = |error| self.interrupted(error, Direction::Push);
        let claimed = match push.begin() {
            // The store knows nothing of it.
            Err(error) if moved.is_new && error.kind != Kind::DurabilityUnknown => {
                moved.give_up()?;
                return Err(error);
            }
            claimed => claimed.map_err(interrupted)?,
        };
        push.complete(claimed).map_err(interrupted)?;
        moved.complete().map_err(interrupted)?;
        Ok(contents)
    }

    /// `state pull`: moves the state to a root that has none, or continues to.
    fn pull_to(&self, root: &FileStore) -> Result<Contents> {
        let store = self.store;
        meta_of(store)?;
        let moved = root.moves().pull(self.mark(Direction::Pull)?).map_err(of_root)?;
        let pull = Pull { store, root, operation: &moved.mark.operation };
        let interrupted = |error| self.interrupted(error, Direction::Pull);
        let frozen = match pull.begin(moved.lineage()) {
            Err(error) if moved.is_new && error.kind != Kind::DurabilityUnknown => {
                moved.give_up()?;
                return Err(error);
            }
            frozen => frozen.map_err(interrupted)?,
        };
        let complete = || -> Result<Contents> {
            let received = moved.received()?;
            let contents = pull.contents(&frozen, received)?;
            if let Some(state) = frozen.document() {
                moved.receive(state)?;
                pull.complete(&contents, &frozen)?;
            }
            Ok(contents)
        };
        let contents = complete().map_err(interrupted)?;
        moved.arrive(&contents).map_err(interrupted)?;
        Ok(contents)
    }

    fn mark(&self, direction: Direction) -> Result<Mark> {
        Ok(Mark {
            phase: direction.phase(),
            url: self.store.shown.clone(),
            store: Some(self.identity()?),
            operation: OperationId::new(random()?),
            lineage: None,
            root: None,
        })
    }

    /// The store's cluster and prefix.
    fn identity(&self) -> Result<String> {
        let keys = &self.store.keys;
        let answer = self.store.client.range(&Keys::one(keys.meta()).list())?;
        let cluster = answer.header.unwrap_or_default().cluster_id;
        Ok(format!("{cluster:x}{}", keys.prefix()))
    }

    /// The error of a move that has begun: it says how to go on.
    fn interrupted(&self, error: Error, direction: Direction) -> Error {
        let (verb, url) = (direction.action(), quote(&self.store.shown));
        let message = format!("the move is not finished: {}", error.message);
        // The store has gone on without this move.
        if matches!(error.kind, Kind::Moved | Kind::Moving | Kind::Exists) {
            let error = Error { message, hints: Vec::new(), ..error };
            let abort = format!("state {verb} {url} --abort");
            return error.hint_command(abort, "give it up in this root");
        }
        Error { message, ..error }
            .hint_command(format!("state {verb} {url}"), "go on with it")
            .hint_command(format!("state {verb} {url} --abort"), "or take it back")
    }
}

/// What refuses grants of locks in the store below `prefix` as commits are refused there: where its
/// state moves or is elsewhere, and where a newer program keeps it.
pub fn mark_of_state(prefix: &str, shown: &str) -> StateMark {
    let shown = shown.to_owned();
    let check = move |found: &KeyValue| match Meta::usable(found)? {
        Some(Meta { standing: Standing::Here { .. }, .. }) | None => Ok(()),
        Some(meta) => Err(not_here(&meta.standing, &shown)),
    };
    let check_format = |found: &KeyValue| Meta::usable(found).map(drop);
    StateMark {
        key: KeySpace::new(prefix).meta(),
        check: Box::new(check),
        check_format: Box::new(check_format),
    }
}

/// An error about the root: its commands are for the root, whatever store the user has named.
fn of_root(error: Error) -> Error {
    let of_root = |hint| match hint {
        Hint::Command(command, why) => Hint::OnFiles(command, why),
        hint => hint,
    };
    let hints = error.hints.into_iter().map(of_root).collect();
    Error { hints, ..error }
}
