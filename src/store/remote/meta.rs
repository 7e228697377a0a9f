//! `meta`: that there is a store, its lineage, and where its state is.

use serde_json::{Value, json};

use super::RemoteStore;
use crate::digest::Digest;
use crate::document::seal::{Lineage, Revision, to_bytes};
use crate::error::{Error, Kind, Result, quote};
use crate::etcd::messages::{KeyValue, RangeResponse};
use crate::etcd::txn::Keys;
use crate::store::moving::{Contents, Phase};
use crate::store::restore::intent::OperationId;

/// The format of the keys.
pub(super) const FORMAT: u64 = 1;

/// The fields of a move in `meta`.
const ARRIVING: &str = "arriving";
const DEPARTING: &str = "departing";
const DEPARTED: &str = "departed";
const PUSHED: &str = "pushed";

/// Where the state of a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Here; brought by this push, if by one.
    Here { pushed: Option<OperationId> },
    /// On its way here.
    Arriving { operation: OperationId, root: String },
    /// On its way to a root.
    Departing { operation: OperationId, root: String },
    /// In a root, at this revision.
    Departed { operation: OperationId, root: String, revision: Revision, digest: Digest },
}

impl Standing {
    /// The root that it is in, or on its way from or to.
    pub(super) fn root(&self) -> Option<&str> {
        match self {
            Self::Here { .. } => None,
            Self::Arriving { root, .. }
            | Self::Departing { root, .. }
            | Self::Departed { root, .. } => Some(root),
        }
    }
}

/// `meta` as it was found.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    value: Value,
    /// The revision that put it; 0 if there is none.
    pub put_at: i64,
    /// The lineage that it names; none where there is no `meta`.
    pub lineage: Option<Lineage>,
    pub standing: Standing,
}

/// Why `meta` cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// This program did not write it.
    Damaged,
    /// It has this later format.
    TooNew(u64),
}

impl Meta {
    /// Reads `meta`.
    fn read(found: &KeyValue) -> std::result::Result<Self, Flaw> {
        let value = crate::document::json::parse(&found.value).map_err(|_| Flaw::Damaged)?;
        match value.get("format").and_then(Value::as_u64) {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => return Err(Flaw::TooNew(newer)),
            _ => return Err(Flaw::Damaged),
        }
        let lineage = value.get("lineage").and_then(Lineage::from_value).ok_or(Flaw::Damaged)?;
        let standing = standing_in(&value).ok_or(Flaw::Damaged)?;
        Ok(Self { put_at: found.mod_revision, lineage: Some(lineage), standing, value })
    }

    /// The same: none if it is damaged.
    pub(super) fn usable(found: &KeyValue) -> Result<Option<Self>> {
        match Self::read(found) {
            Ok(meta) => Ok(Some(meta)),
            Err(Flaw::Damaged) => Ok(None),
            Err(Flaw::TooNew(format)) => Err(too_new(format)),
        }
    }

    fn none() -> Self {
        let standing = Standing::Here { pushed: None };
        Self { value: Value::Null, put_at: 0, lineage: None, standing }
    }

    /// Returns whether this is the `meta` of some store.
    pub(super) fn is_one(found: &KeyValue) -> bool {
        !matches!(Self::read(found), Err(Flaw::Damaged))
    }

    /// Returns whether it says that its state is here, and of this lineage.
    pub(super) fn is_of(found: &KeyValue, lineage: &Lineage) -> bool {
        Self::read(found).is_ok_and(|meta| {
            meta.lineage.as_ref() == Some(lineage) && matches!(meta.standing, Standing::Here { .. })
        })
    }

    fn with(&self, note: Option<(&str, Value)>) -> Vec<u8> {
        let mut value = self.value.clone();
        if let Some(fields) = value.as_object_mut() {
            for field in [ARRIVING, DEPARTING, DEPARTED, PUSHED] {
                fields.shift_remove(field);
            }
            if let Some((field, note)) = note {
                fields.insert(field.to_owned(), note);
            }
        }
        to_bytes(&value).unwrap_or_default()
    }

    /// A store that a state of `lineage` is on its way to. What there was before is kept, for a
    /// push that is taken back.
    pub(super) fn arriving(&self, lineage: &Lineage, created: &str, mut note: Value) -> Vec<u8> {
        let before = match &self.standing {
            Standing::Departed { .. } => self.value.clone(),
            Standing::Arriving { .. } => {
                self.value.pointer("/arriving/before").cloned().unwrap_or_default()
            }
            _ => Value::Null,
        };
        note["before"] = before;
        let value = json!({
            "format": FORMAT,
            "lineage": lineage.as_str(),
            "created": self.value.get("created").cloned().unwrap_or_else(|| created.into()),
        });
        Self { value, ..self.clone() }.with(Some((ARRIVING, note)))
    }

    /// What there was before the state was on its way here.
    pub(super) fn before_arrival(&self) -> Option<Vec<u8>> {
        let kept = |field: &str| self.value.get(field)?.get("before");
        let before = kept(ARRIVING).or_else(|| kept(PUSHED)).filter(|before| !before.is_null())?;
        to_bytes(before)
    }

    /// A store that has the state by a push.
    pub(super) fn arrived(&self) -> Vec<u8> {
        let note = self.value.get(ARRIVING).cloned().unwrap_or_default();
        self.with(Some((PUSHED, note)))
    }

    /// A store with its state on the way to a root.
    pub(super) fn departing(&self, note: Value) -> Vec<u8> {
        self.with(Some((DEPARTING, note)))
    }

    /// The same.
    pub(super) fn as_it_is(&self) -> Vec<u8> {
        to_bytes(&self.value).unwrap_or_default()
    }

    /// A store that keeps its state.
    pub(super) fn staying(&self) -> Vec<u8> {
        self.with(None)
    }

    /// A store with its state in a root.
    pub(super) fn departed(&self, contents: &Contents, mut note: Value) -> Vec<u8> {
        note["revision"] = contents.revision.get().into();
        note["digest"] = contents.digest.as_str().into();
        self.with(Some((DEPARTED, note)))
    }
}

/// Where the state of a store with this `meta` is.
fn standing_in(meta: &Value) -> Option<Standing> {
    let operation_in = |note: &Value| OperationId::parse(note.get("operation")?.as_str()?);
    let root_in = |note: &Value| note.get("root").and_then(Value::as_str).unwrap_or("").to_owned();
    if let Some(note) = meta.get(ARRIVING) {
        return Some(Standing::Arriving { operation: operation_in(note)?, root: root_in(note) });
    }
    if let Some(note) = meta.get(DEPARTING) {
        return Some(Standing::Departing { operation: operation_in(note)?, root: root_in(note) });
    }
    if let Some(note) = meta.get(DEPARTED) {
        return Some(Standing::Departed {
            operation: operation_in(note)?,
            root: root_in(note),
            revision: Revision::from_value(note.get("revision")?)?,
            digest: Digest::from_value(note.get("digest")?)?,
        });
    }
    Some(Standing::Here { pushed: meta.get(PUSHED).and_then(operation_in) })
}

/// `meta` of a store. One that this program did not write is an error.
pub(super) fn meta_of(store: &RemoteStore) -> Result<Meta> {
    meta_in(store, store.client.range(&Keys::one(store.keys.meta()).read())?)
}

/// The same in the answer to its range.
pub(super) fn meta_in(store: &RemoteStore, range: RangeResponse) -> Result<Meta> {
    let Some(found) = range.kvs.into_iter().next() else { return Ok(Meta::none()) };
    Meta::read(&found).map_err(|flaw| match flaw {
        Flaw::Damaged => {
            let why = damaged_meta(&store.keys.meta());
            Error::new(Kind::Corrupt, format!("{} is damaged: {why}", store.shown))
                .hint_command("state recover", "write it again")
        }
        Flaw::TooNew(format) => too_new(format),
    })
}

/// Refuses a store of a later format.
pub(super) fn check_format(range: &RangeResponse) -> Result<()> {
    match range.kvs.first().map(Meta::read) {
        Some(Err(Flaw::TooNew(format))) => Err(too_new(format)),
        _ => Ok(()),
    }
}

/// `meta` for a writer or reader of the state: none if it is damaged, which is said.
pub(super) fn usable_meta(store: &RemoteStore, found: Option<&KeyValue>) -> Result<Option<Meta>> {
    let Some(found) = found else { return Ok(Some(Meta::none())) };
    match Meta::usable(found)? {
        Some(Meta { standing, .. }) if !matches!(standing, Standing::Here { .. }) => {
            Err(not_here(&standing, &store.shown))
        }
        meta => Ok(meta),
    }
}

/// What is wrong where `meta` is not what this program wrote.
pub(super) fn damaged_meta(key: &str) -> String {
    format!("the key {key} is not what this program wrote")
}

/// The refusal of a store that a state is on its way to from this host, and that does not know
/// it yet.
pub(super) fn push_from_here(store: &RemoteStore) -> Option<Error> {
    let host = store.host.as_ref()?;
    let mark = match host.mark() {
        Ok(mark) => mark?,
        Err(error) => return Some(error),
    };
    let is_here = mark.phase == Phase::Pushing && mark.url == store.shown;
    is_here.then(|| mark.refusal(&host.root()))
}

/// The refusal of the store `shown` with its state elsewhere, or with a state already.
pub(super) fn not_here(standing: &Standing, shown: &str) -> Error {
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
                .hint_on_files("status", "work with it in that root's files")
        }
    };
    error.detail("store", shown)
}

fn too_new(format: u64) -> Error {
    let message = format!("the store has format {format}, and this program knows {FORMAT}");
    Error::new(Kind::NewerSchema, message)
        .hint_command("--version", "a newer one is needed; nothing was changed")
}
