//! Moving a state between a root and a store.
//!
//! `meta` says where the state is. While it moves, `meta` says so, and each commit compares `meta`.
//! The transaction that puts the document and says that it is here decides a push; the one that
//! deletes it and says where it went decides a pull. All others are guarded by the `meta` that the
//! move has put, so they come too late after another command ended the move.

mod arrival;
mod departure;

use serde_json::json;

use super::RemoteStore;
use super::keys::KeySpace;
use super::meta::{Meta, Standing};
use crate::audit::Level;
use crate::error::{Error, Hint, Kind, Result, quote};
use crate::etcd::failure::Failure;
use crate::etcd::fate::Fate;
use crate::etcd::messages::{KeyValue, RangeResponse, TxnRequest};
use crate::etcd::txn::Keys;
use crate::lock::remote::StateMark;
use crate::store::FileStore;
use crate::store::logged::entry;
use crate::store::moving::{Contents, Direction, GivenUp, Mark, Moved, Phase};
use crate::store::restore::intent::OperationId;

impl RemoteStore {
    /// Moves the state between a root and this store, or continues to.
    pub fn move_state(&self, direction: Direction, root: &FileStore) -> Result<Moved> {
        let (moved, action) = match direction {
            Direction::Push => (self.push_from(root)?, "push"),
            Direction::Pull => (self.pull_to(root)?, "pull"),
        };
        let entry = entry(Level::Info, action, "moved").with("revision", moved.revision);
        self.log(entry.with("lineage", &moved.lineage).with("pid", std::process::id()));
        Ok(moved)
    }

    /// Gives up a move that was interrupted.
    pub fn give_up_move(&self, direction: Direction, root: &FileStore) -> Result<GivenUp> {
        let (done, action) = match direction {
            Direction::Push => (self.abort_push(root)?, "push"),
            Direction::Pull => (self.abort_pull(root)?, "pull"),
        };
        if done == GivenUp::TakenBack {
            self.log(entry(Level::Info, action, "given up").with("pid", std::process::id()));
        }
        Ok(done)
    }

    /// `state push`: moves the state of a root here, or continues to.
    fn push_from(&self, root: &FileStore) -> Result<Moved> {
        // A store that cannot take it refuses before anything is touched.
        if self.meta()?.put_at == 0 {
            self.check_neighbours()?;
        }
        let (moved, contents) = root.moves().push(self.mark(Phase::Pushing)?).map_err(of_root)?;
        let operation = moved.mark.operation.clone();
        let claimed = match self.begin_arrival(&operation, &contents, root) {
            // The store knows nothing of it.
            Err(error) if moved.is_new && error.kind != Kind::DurabilityUnknown => {
                moved.give_up()?;
                return Err(error);
            }
            claimed => claimed.map_err(|error| self.interrupted(error, Phase::Pushing))?,
        };
        self.complete_arrival(&operation, &contents, claimed)
            .map_err(|error| self.interrupted(error, Phase::Pushing))?;
        moved.complete().map_err(|error| self.interrupted(error, Phase::Pushing))?;
        Ok(self.moved(&contents))
    }

    /// `state push --abort`: the state stays in the root.
    fn abort_push(&self, root: &FileStore) -> Result<GivenUp> {
        let Some(moved) = root.moves().interrupted(Phase::Pushing, &self.shown).map_err(of_root)?
        else {
            return Ok(GivenUp::Nothing);
        };
        self.take_back(&moved.mark.operation)?;
        moved.give_up()?;
        Ok(GivenUp::TakenBack)
    }

    /// `state pull`: moves the state to a root that has none, or continues to.
    fn pull_to(&self, root: &FileStore) -> Result<Moved> {
        self.meta()?;
        let moved = root.moves().pull(self.mark(Phase::Pulling)?).map_err(of_root)?;
        let operation = moved.mark.operation.clone();
        let frozen = match self.begin_departure(&operation, moved.lineage(), root) {
            Err(error) if moved.is_new && error.kind != Kind::DurabilityUnknown => {
                moved.give_up()?;
                return Err(error);
            }
            frozen => frozen.map_err(|error| self.interrupted(error, Phase::Pulling))?,
        };
        let complete = || -> Result<Contents> {
            let received = moved.received()?;
            let contents = self.departing(&frozen, received)?;
            if let Some(state) = frozen.document() {
                moved.receive(state)?;
                self.complete_departure(&operation, &contents, &frozen, root)?;
            }
            Ok(contents)
        };
        let contents = complete().map_err(|error| self.interrupted(error, Phase::Pulling))?;
        moved.arrive(&contents).map_err(|error| self.interrupted(error, Phase::Pulling))?;
        Ok(self.moved(&contents))
    }

    /// `state pull --abort`: the state stays here.
    fn abort_pull(&self, root: &FileStore) -> Result<GivenUp> {
        let Some(moved) = root.moves().interrupted(Phase::Pulling, &self.shown).map_err(of_root)?
        else {
            return Ok(GivenUp::Nothing);
        };
        self.release(&moved.mark.operation)?;
        moved.give_up()?;
        Ok(GivenUp::TakenBack)
    }

    fn moved(&self, contents: &Contents) -> Moved {
        Moved {
            url: self.shown.clone(),
            lineage: contents.lineage.clone(),
            revision: contents.revision,
            backups: contents.backups.len(),
            signals: contents.signals.len(),
        }
    }

    fn mark(&self, phase: Phase) -> Result<Mark> {
        let [random @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            crate::store::next_revision::random()?;
        let operation = OperationId::new(random);
        Ok(Mark { phase, url: self.shown.clone(), operation, lineage: None })
    }

    fn meta(&self) -> Result<Meta> {
        let range = self.client.range(&Keys::one(self.keys.meta()).read())?;
        self.meta_in(range)
    }

    /// The refusal of a store that a state is on its way to from this host, and that does not know
    /// it yet.
    pub(super) fn push_from_here(&self) -> Option<Error> {
        let host = self.host.as_ref()?;
        let mark = match host.mark() {
            Ok(mark) => mark?,
            Err(error) => return Some(error),
        };
        let is_here = mark.phase == Phase::Pushing && mark.url == self.shown;
        is_here.then(|| mark.refusal(&host.root()))
    }

    /// The refusal of a store with its state elsewhere.
    pub(super) fn not_here(&self, standing: &Standing) -> Error {
        not_here(standing, &self.shown)
    }

    /// The error of a move that has begun: it says how to go on.
    fn interrupted(&self, error: Error, phase: Phase) -> Error {
        let verb = if phase == Phase::Pulling { "pull" } else { "push" };
        let url = quote(&self.shown);
        let message = format!("the move is not finished: {}", error.message);
        Error { message, ..error }
            .hint_command(format!("state {verb} {url}"), "go on with it")
            .hint_command(format!("state {verb} {url} --abort"), "or take it back")
    }

    /// Carries out a step of a move; false if its guards did not hold. Then `meta` is as returned.
    fn step(&self, request: TxnRequest) -> Result<(bool, RangeResponse)> {
        let failure = vec![Keys::one(self.keys.meta()).read().into()];
        let answer = self.client.commit(&TxnRequest { failure, ..request }).map_err(open)?;
        let succeeded = answer.succeeded;
        let meta = answer.ranges().last().filter(|_| !succeeded);
        Ok((succeeded, meta.unwrap_or_default()))
    }

    /// The value that `meta` gets: what it was, with or without a note of a move.
    fn note(&self, root: &FileStore, operation: &OperationId) -> serde_json::Value {
        let origin = (self.surroundings.origin)(self.now());
        let path = root.settings().path().display().to_string();
        json!({
            "operation": operation.as_str(),
            "root": format!("{}:{path}", origin.owner.host),
            "time": origin.time,
        })
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
    StateMark { key: KeySpace::new(prefix).meta(), check: Box::new(check) }
}

fn not_here(standing: &Standing, shown: &str) -> Error {
    let url = quote(shown);
    let root = standing.root().unwrap_or("another root");
    let error = match standing {
        Standing::Here { .. } => Error::new(Kind::Exists, format!("{shown} has a state already"))
            .hint_command("state push --help", "name another prefix in the address"),
        Standing::Arriving { .. } => {
            Error::new(Kind::Moving, format!("the state of {root} is being moved to {shown}"))
                .hint_command(format!("state push {url}"), "go on with it, in that root")
        }
        Standing::Departing { .. } => {
            let message = format!("the state of {shown} is being brought back to {root}");
            Error::new(Kind::Moving, message)
                .hint_command(format!("state pull {url}"), "go on with it, in that root")
        }
        Standing::Departed { .. } => {
            let message = format!("the state of {shown} was brought back to {root}");
            Error::new(Kind::Moved, message)
                .hint_shell("unset PIPELINE_STORE", "work with it there")
        }
    };
    error.detail("store", shown)
}

/// An error about the root: its commands are for the root, whatever store the user has named.
fn of_root(error: Error) -> Error {
    let of_root = |hint| match hint {
        Hint::Command(command, why)
            if !command.starts_with("state push") && !command.starts_with("state pull") =>
        {
            Hint::Shell(format!("env -u PIPELINE_STORE pipeline-state {command}"), why)
        }
        hint => hint,
    };
    let hints = error.hints.into_iter().map(of_root).collect();
    Error { hints, ..error }
}

/// The failure of a step of which it is open whether it was carried out.
fn open(failure: Failure) -> Error {
    match failure.fate {
        Fate::Unknown => Error::new(Kind::DurabilityUnknown, failure.to_string())
            .hint_command("state push --help", "the same command finds out")
            .caused_by(failure),
        Fate::NotSent | Fate::Refused => failure.into(),
    }
}

/// The error of a command that has put something and does not know what became of it.
fn unsure(error: Error, is_put: bool) -> Error {
    match error.kind {
        Kind::Unreachable | Kind::Tls if is_put => Error { kind: Kind::DurabilityUnknown, ..error },
        _ => error,
    }
}

/// The error of a move that another command ended.
fn ended() -> Error {
    Error::new(Kind::Conflict, "another command ended this move")
        .hint_command("state status", "see where the state is")
}
