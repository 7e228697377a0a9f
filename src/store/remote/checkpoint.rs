//! Checkpoints on the cluster: state and signals at one revision, and this host's `config/`.
//!
//! A checkpoint is an [`Archive`] in chunks, and a head that says what it is. Several chunks are
//! put [`ahead`](super::ahead) of their head: a checkpoint is complete or absent.

mod catalog;
mod head;
mod moment;
mod retention;

use std::time::SystemTime;

use bytes::Bytes;

pub use self::catalog::Checkpoint;
pub(super) use self::catalog::state_of;
use self::head::{CHUNK, Head};
pub(super) use self::moment::{Moment, free_moment};
use super::ahead::Ahead;
use super::change::undamaged;
use super::edits::accepts_edits;
use super::ground::Ground;
use super::queue::retry;
use super::{RemoteStore, trees};
use crate::audit::Level;
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::fate::Fate;
use crate::etcd::messages::{RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, Part, absent, put};
use crate::store::checkpoint::archive::Archive;
use crate::store::checkpoint::catalog::{Made, Snapshot, sort};
use crate::store::checkpoint::id;
use crate::store::checkpoint::manifest::{self, Metadata, STATE};
use crate::store::checkpoint::retention::Retention;
use crate::store::diagnosis::Health;
use crate::store::logged::recovery;
use crate::store::options::WriteOptions;
use crate::time::rfc3339;

/// The ids that are tried: another command may take the same one.
const ATTEMPTS: usize = 16;

/// The checkpoints of a store on a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoints<'s> {
    pub(super) store: &'s RemoteStore,
}

/// Makes what goes into the transaction of the checkpoint of this name.
pub(super) type With<'w> = dyn FnMut(&Ground<'_>, &str) -> Result<Part> + 'w;

/// A checkpoint to be made.
#[derive(Clone, Copy)]
struct Taken<'a> {
    moment: &'a Moment<'a>,
    archive: &'a Archive,
    snapshot: &'a Snapshot,
    retention: Retention,
    now: SystemTime,
}

impl Checkpoints<'_> {
    /// Makes a checkpoint. A damaged state is healed first.
    pub fn create(&self, snapshot: &Snapshot) -> Result<Made> {
        self.create_with(snapshot, Retention::Manual, &mut |_, _| Ok(Part::default()))
    }

    /// As [`Self::create`], retained as `retention` says, with what goes into the same transaction.
    pub(super) fn create_with(
        &self,
        snapshot: &Snapshot,
        retention: Retention,
        with: &mut With<'_>,
    ) -> Result<Made> {
        let options = WriteOptions::of("checkpoint");
        retry(self.store, || {
            let moment = free_moment(self.store)?;
            match &moment.ground.health {
                Health::Healthy(_) | Health::Legacy(_) => {}
                Health::Damaged(_) => {
                    undamaged(Box::new(moment.ground), &options)?;
                    return Ok(None);
                }
                Health::Foreign(_) if accepts_edits(self.store) => {
                    self.store.lineages().seal_as_it_is(&options)?;
                    return Ok(None);
                }
                _ => return Err(moment.ground.refusal()),
            }
            let archive = self.archive(&moment)?;
            let now = self.store.now();
            let taken = Taken { moment: &moment, archive: &archive, snapshot, retention, now };
            let made = self.take_with(taken, with)?;
            let Some(made) = made else { return Ok(None) };
            if retention == Retention::Automatic {
                self.retire(&made.id);
            }
            Ok(Some(made))
        })
    }

    /// Makes a checkpoint of a moment, in whatever condition the state was; `None` if `config` or
    /// `signals` was granted since.
    pub(super) fn take(
        &self,
        moment: &Moment<'_>,
        archive: &Archive,
        snapshot: &Snapshot,
        retention: Retention,
    ) -> Result<Option<Made>> {
        let taken = Taken { moment, archive, snapshot, retention, now: self.store.now() };
        self.take_with(taken, &mut |_, _| Ok(Part::default()))
    }

    fn take_with(&self, taken: Taken<'_>, with: &mut With<'_>) -> Result<Option<Made>> {
        let Taken { moment, archive, snapshot, retention, now } = taken;
        let content = Bytes::from(archive.write()?);
        let ground = &moment.ground;
        let phase =
            ground.known().and_then(|state| state.get("phase")?.as_str().map(str::to_owned));
        let origin = (self.store.surroundings.origin)(now);
        let metadata = Metadata {
            id: id::free(&moment.ids, now, &snapshot.operation),
            operation: snapshot.operation.to_string(),
            phase: snapshot.phase.clone().or(phase),
            timestamp: rfc3339(now),
            pid: origin.pid,
            hostname: origin.owner.host,
            revision: Some(ground.revision()).filter(|revision| *revision > 0),
            automatic: retention == Retention::Automatic,
            metadata: snapshot.metadata.clone(),
        };
        metadata.write()?; // refuses what could not be read back
        let head = Head::new(metadata, archive, &content)?;
        let (files, bytes) = (head.files, head.size);
        let Some(id) = self.upload(head, content, taken, with)? else {
            return Ok(None);
        };
        let entry = recovery(Level::Info, "checkpoint", "created").with("id", &id);
        let entry = entry.with("files", files).with("bytes", bytes);
        self.store.log(entry.with("pid", std::process::id()));
        Ok(Some(Made { id, files, bytes, left: Vec::new() }))
    }

    /// What a checkpoint of a moment holds, with `config/` as it is now.
    pub(super) fn archive(&self, moment: &Moment<'_>) -> Result<Archive> {
        let config = match &self.store.host {
            Some(host) => host.config()?,
            None => None,
        };
        let mut archive = config.unwrap_or_default();
        if let Some(text) = moment.ground.text() {
            archive = archive.with_file(STATE, text.clone());
        }
        if !moment.signals.is_empty() {
            archive = archive.with_directory(manifest::SIGNALS);
        }
        for (name, content) in &moment.signals {
            let path = format!("{}/{name}.json", manifest::SIGNALS);
            archive = archive.with_file(&path, content.clone());
        }
        Ok(archive)
    }

    /// Puts the chunks, and then the head under an id that is free.
    fn upload(
        &self,
        mut head: Head,
        content: Bytes,
        taken: Taken<'_>,
        with: &mut With<'_>,
    ) -> Result<Option<String>> {
        let Taken { moment, snapshot, now, .. } = taken;
        let (client, keys) = (&self.store.client, &self.store.keys);
        let chunks: Vec<Bytes> = (0..head.chunks)
            .map(|number| content.slice(number * CHUNK..content.len().min((number + 1) * CHUNK)))
            .collect();
        let chunks = chunks.into_iter().enumerate();
        let mut chunks = chunks.map(|(number, chunk)| (keys.chunk(&head.blob, number), chunk));
        // One chunk goes with its head.
        let ahead = match head.chunks {
            1 => None,
            _ => Ahead::put(client, chunks.by_ref(), None)?,
        };
        let ahead = ahead.as_ref();
        let with_head: Vec<RequestOp> = chunks
            .map(|(key, chunk)| put(key, chunk))
            .chain(ahead.into_iter().flat_map(Ahead::operations))
            .collect();
        let mut ids = moment.ids.clone();
        for _ in 0..ATTEMPTS {
            let id = head.metadata.id.clone();
            let (head_key, value) = (keys.checkpoint(&id), head.value()?);
            let also = with(&moment.ground, &id)?;
            let mut success = vec![put(head_key.clone(), value.clone())];
            success.extend(with_head.iter().cloned().chain(also.success));
            let request = TxnRequest {
                compare: std::iter::once(absent(head_key.clone()))
                    .chain(trees::guards(keys, moment.ground.at))
                    .chain(ahead.into_iter().flat_map(Ahead::guards))
                    .chain(also.compare)
                    .collect(),
                success,
                failure: vec![Keys::one(head_key).read().into()],
            };
            let answer = client.commit(&request).map_err(|failure| failed(failure, &id))?;
            let found = answer.succeeded.then(|| Bytes::from(value.clone()));
            let found = found.or_else(|| {
                let range = answer.ranges().next()?;
                range.kvs.into_iter().next().map(|kv| kv.value)
            });
            // It may have been put before, and the answer lost.
            match found {
                Some(found) if found == value => return Ok(Some(id)),
                Some(_) => {}
                None => {
                    ahead.inspect(|ahead| ahead.take_back(client));
                    return Ok(None);
                }
            }
            ids.push(id);
            sort(&mut ids);
            head.metadata.id = id::free(&ids, now, &snapshot.operation);
        }
        Err(Error::new(Kind::Conflict, "other commands make checkpoints all the time")
            .hint_command("recover list", "see them; nothing was made"))
    }
}

fn failed(failure: Failure, id: &str) -> Error {
    if failure.fate != Fate::Unknown {
        return failure.into();
    }
    let message = format!("the checkpoint {id} may be in place: {failure}");
    Error::new(Kind::DurabilityUnknown, message)
        .hint_command(format!("recover verify {id}"), "see whether it is")
        .detail("checkpoint", id)
        .caused_by(failure)
}
