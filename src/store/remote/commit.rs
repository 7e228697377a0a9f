//! The commit: one transaction, sent again until its fate is known.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::ground::Ground;
use super::keys::KeySpace;
use super::log::{Operation, Record, last_dropped};
use super::queue::Place;
use super::restore::Claim;
use super::{DOCUMENT_LIMIT, RemoteStore};
use crate::document::seal::{Digest, Revision, Seal, Sealed, full_size, to_bytes};
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::fate::Fate;
use crate::etcd::messages::{Compare, KeyValue, RequestOp, TxnRequest, TxnResponse};
use crate::etcd::txn::{Keys, Part, absent, created_at, created_before, delete, put, put_at};
use crate::journal::{Changes, Commit};
use crate::lock::Fence;
use crate::lock::remote::Loss;
use crate::store::fresh::Replaced;
use crate::store::layout::{BackupName, EVIDENCE_PREFIX};
use crate::store::logged;
use crate::store::options::WriteOptions;
use crate::store::signal::SignalFile;
use crate::time::{compact, rfc3339};

/// The most bytes of values in one request: etcd takes 1.5 MiB. What is kept of the replaced
/// document goes ahead of a commit that would be larger, in parts of this size.
const REQUEST_ROOM: usize = 1_400_000;

/// What is kept of the document that a commit replaces.
#[derive(Debug)]
pub(super) enum Kept {
    /// These bytes become a backup.
    Backup(BackupName, Bytes),
    /// These bytes become evidence of what was wrong, under this name.
    Evidence(String, Bytes),
    /// There is none.
    Nothing,
}

impl Kept {
    fn size(&self) -> usize {
        match self {
            Self::Backup(_, bytes) | Self::Evidence(_, bytes) => bytes.len(),
            Self::Nothing => 0,
        }
    }

    /// Where it is found.
    pub(super) fn replaced(&self, keys: &KeySpace) -> Option<Replaced> {
        match self {
            Self::Backup(name, _) => Some(Replaced::Backup(name.as_str().to_owned())),
            Self::Evidence(name, _) => Some(Replaced::Evidence(keys.evidence(name))),
            Self::Nothing => None,
        }
    }

    /// The keys that hold it. Evidence may be larger than any document: it may have several.
    fn values(&self, keys: &KeySpace) -> Vec<(String, Bytes)> {
        match self {
            Self::Backup(name, bytes) => vec![(keys.backup(name.as_str()), bytes.clone())],
            Self::Evidence(name, bytes) if bytes.len() <= REQUEST_ROOM => {
                vec![(keys.evidence(name), bytes.clone())]
            }
            Self::Evidence(name, bytes) => (0..bytes.len())
                .step_by(REQUEST_ROOM)
                .map(|start| bytes.slice(start..bytes.len().min(start + REQUEST_ROOM)))
                .enumerate()
                .map(|(number, part)| (keys.evidence(&format!("{name}.{number}")), part))
                .collect(),
            Self::Nothing => Vec::new(),
        }
    }
}

/// A document to be committed.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub sealed: &'a Sealed,
    pub kept: Kept,
    pub signals: Vec<SignalFile>,
    pub options: &'a WriteOptions,
    /// The earlier revision that it is again, if it is one.
    pub repeats: Option<Revision>,
    pub waited: Duration,
    /// The writer's place in the queue, which the commit leaves.
    pub place: Option<&'a Place>,
    /// What the commit decides besides, if it does.
    pub claim: Option<&'a Claim>,
    /// What becomes of guards on record.
    pub guards: Part,
}

impl<'a> Plan<'a> {
    /// A commit that keeps nothing and decides nothing besides.
    pub(super) fn of(
        sealed: &'a Sealed,
        signals: Vec<SignalFile>,
        options: &'a WriteOptions,
        place: Option<&'a Place>,
    ) -> Self {
        Self {
            sealed,
            kept: Kept::Nothing,
            signals,
            options,
            repeats: None,
            waited: Duration::ZERO,
            place,
            claim: None,
            guards: Part::default(),
        }
    }

    /// The bytes of the values that it puts, but for its record.
    fn size(&self) -> usize {
        let signals = self.signals.iter().flat_map(|file| file.content.as_ref());
        self.sealed.text.size() + self.kept.size() + signals.map(Vec::len).sum::<usize>()
    }
}

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Landed<'s> {
    /// It is done.
    Done,
    /// Another writer was faster, and this is what it left. The commit was not carried out and
    /// never will be.
    Overtaken(Box<Ground<'s>>),
}

impl<'s> Ground<'s> {
    /// Commits on this ground.
    pub(super) fn publish(&self, plan: Plan<'_>) -> Result<Landed<'s>> {
        let seal = &plan.sealed.document.seal;
        check_size(plan.sealed)?;
        let operation = Operation::new()?;
        let record = Record { operation: operation.clone(), commit: self.record(&plan) };
        let record = record.value()?;
        let mut compare = self.guards(seal.revision, &plan.options.fences)?;
        compare.extend(plan.claim.into_iter().flat_map(|claim| claim.guards(self.store)));
        compare.extend(plan.guards.compare.iter().cloned());
        let mut success = self.operations(&plan)?;
        let kept = plan.kept.values(&self.store.keys);
        let ahead = match plan.size() + record.len() <= REQUEST_ROOM {
            true => {
                success.extend(kept.into_iter().map(|(key, value)| put(key, value)));
                None
            }
            false => {
                let still = put_at(self.store.keys.state(), self.state_put_at());
                let Some(ahead) = self.store.put_ahead(kept, Some(&still))? else {
                    return Ok(Landed::Overtaken(Box::new(self.again(plan.options)?)));
                };
                compare.extend(ahead.guards());
                success.extend(ahead.operations());
                Some(ahead)
            }
        };
        success.push(put(self.store.keys.log(seal.revision), record));
        let own_record = Keys::one(self.store.keys.log(seal.revision)).read();
        let next = self.store.ranges(&plan.options.fences);
        let failure = std::iter::once(own_record).chain(next).map(RequestOp::from).collect();
        let request = TxnRequest { compare, success, failure };
        let answer = self.store.client.commit(&request);
        let answer = answer.map_err(|failure| failed(failure, seal, &operation))?;
        let landed = match answer.succeeded {
            true => Landed::Done,
            false => self.overtaken(answer, seal, &operation)?,
        };
        match &landed {
            Landed::Done => {
                plan.place.inspect(|place| place.is_left.set(true));
                self.store.log(logged::commit(plan.options, plan.sealed, plan.waited));
                // A commit that settles some is about them.
                if plan.guards.success.is_empty() {
                    self.warn_of_guards();
                }
            }
            Landed::Overtaken(_) => {
                ahead.inspect(|ahead| self.store.take_back_ahead(ahead));
            }
        }
        Ok(landed)
    }

    /// What a transaction whose guards did not hold has found: perhaps that it had been carried out
    /// before, and its answer was lost.
    fn overtaken(
        &self,
        answer: TxnResponse,
        seal: &Seal,
        operation: &Operation,
    ) -> Result<Landed<'s>> {
        let at = answer.revision();
        let mut ranges = answer.ranges().map(|range| range.kvs);
        let recorded = ranges.next().unwrap_or_default();
        if let Some(record) = recorded.first().and_then(Record::of)
            && record.operation == *operation
        {
            return Ok(Landed::Done);
        }
        let ground = self.store.ground(at, ranges)?;
        let newest = ground.newest.as_ref().map(|newest| newest.revision);
        if recorded.is_empty() && newest > Some(seal.revision) {
            // So long overtaken that the log no longer reaches back.
            return Err(unknown(seal, operation, "the log no longer has its record"));
        }
        Ok(Landed::Overtaken(Box::new(ground)))
    }

    fn again(&self, options: &WriteOptions) -> Result<Ground<'s>> {
        self.store.observe(&options.fences)
    }

    fn guards(&self, revision: Revision, fences: &[Fence]) -> Result<Vec<Compare>> {
        let keys = &self.store.keys;
        let mut guards = vec![
            put_at(keys.state(), self.state_put_at()),
            put_at(keys.meta(), self.meta_put_at()),
            absent(keys.log(revision)),
            created_before(&keys.holders("state"), self.at + 1),
        ];
        // What is written under the lock `state` needs that grant.
        if let Some((created, key)) = self.own_grant()? {
            guards.push(created_at(key, created));
        }
        guards.extend(self.fence_guards(fences)?);
        Ok(guards)
    }

    /// Guards that the grants of these fences are still on record; an error if one is not now.
    pub(super) fn fence_guards(&self, fences: &[Fence]) -> Result<Vec<Compare>> {
        let guard = |(fence, holders): (&Fence, &Vec<KeyValue>)| {
            let token = i64::try_from(fence.token.get()).unwrap_or(i64::MAX);
            let held = holders.iter().find(|kv| kv.create_revision == token);
            let held = held.ok_or_else(|| self.fenced(fence))?;
            Ok(created_at(held.key.clone(), token))
        };
        fences.iter().zip(&self.fenced).map(guard).collect()
    }

    /// The error of a commit that a grant was to fence which is gone.
    fn fenced(&self, fence: &Fence) -> Error {
        let loss = self.store.loss_of(fence);
        let message = match &loss {
            Some(loss) => format!("the grant {fence} {loss}; nothing was written"),
            None => format!("the grant {fence} is no longer on record, so nothing was written"),
        };
        Error::new(Kind::Fenced, message)
            .hint_command("lock list", "see which locks are held now")
            .detail("lock", fence.name.as_str())
            .detail("token", fence.token.get())
            .detail("lost", loss.as_ref().and_then(Loss::time))
    }

    /// What is damaged, as evidence.
    pub(super) fn evidence(&self) -> Kept {
        let Some(text) = self.damaged() else { return Kept::Nothing };
        let tag: String = Digest::of(text).as_str().chars().take(16).collect();
        let name = format!("{EVIDENCE_PREFIX}{}-{tag}.json", compact(self.store.now()));
        Kept::Evidence(name, text.clone())
    }

    /// The operations of a commit, but for what it keeps and its record.
    fn operations(&self, plan: &Plan<'_>) -> Result<Vec<RequestOp>> {
        let keys = &self.store.keys;
        let now = self.store.now();
        let seal = &plan.sealed.document.seal;
        let mut operations = vec![put(keys.state(), plan.sealed.text.whole())];
        if self.lineage.as_ref() != Some(&seal.lineage) {
            let meta = json!({
                "format": super::meta::FORMAT,
                "lineage": seal.lineage.as_str(),
                "created": rfc3339(now),
            });
            operations.push(put(keys.meta(), to_bytes(&meta).unwrap_or_default()));
        }
        for file in &plan.signals {
            let key = keys.signal(file.name.as_str());
            operations.push(match &file.content {
                Some(content) => put(key, content.clone()),
                None => delete(&Keys::one(key)),
            });
        }
        if let Some(place) = plan.place {
            operations.push(delete(&Keys::one(place.key.clone())));
        }
        if let Some(claim) = plan.claim {
            operations.push(delete(&Keys::one(claim.key.clone())));
        }
        operations.extend(plan.guards.success.iter().cloned());
        if let Some(last) = last_dropped(seal.revision) {
            operations.push(delete(&keys.logs_until(last)));
        }
        let surplus = match &plan.kept {
            Kept::Backup(made, _) => self.surplus(made, now),
            Kept::Evidence(..) | Kept::Nothing => Vec::new(),
        };
        operations.extend(surplus.iter().map(|name| delete(&Keys::one(keys.backup(name)))));
        Ok(operations)
    }

    fn record(&self, plan: &Plan<'_>) -> Commit {
        let seal = &plan.sealed.document.seal;
        let changes = self.text().and_then(|old| Changes::between(old, plan.sealed.text.iter()));
        Commit {
            origin: (self.store.surroundings.origin)(self.store.now()),
            lineage: seal.lineage.clone(),
            revision: seal.revision,
            digest: seal.digest.clone(),
            command: plan.options.command(),
            reason: plan.options.reason.clone(),
            waited: plan.waited.as_secs_f64(),
            blockers: Vec::new(),
            bytes: plan.sealed.text.size() as u64,
            repeats: plan.repeats,
            changes,
            guards: self.guards_of_commit(),
        }
    }
}

impl RemoteStore {
    /// Makes backups and the like: a transaction that commits no revision.
    pub(super) fn carry_out(&self, request: &TxnRequest) -> Result<bool> {
        Ok(self.client.commit(request).map_err(Error::from)?.succeeded)
    }
}

fn check_size(sealed: &Sealed) -> Result<()> {
    let size = full_size(&sealed.text, sealed.document.seal.revision);
    if size <= DOCUMENT_LIMIT {
        return Ok(());
    }
    let message = format!(
        "the document would have {size} bytes, and {} MiB is the limit in a store on other \
         machines; a local state may have {} MiB",
        DOCUMENT_LIMIT >> 20,
        crate::document::WRITE_LIMIT >> 20
    );
    Err(Error::new(Kind::TooLarge, message)
        .hint_command("state update 'del(.large)'", "for instance: remove what is large from it")
        .detail("bytes", size))
}

fn failed(failure: Failure, seal: &Seal, operation: &Operation) -> Error {
    match failure.fate {
        Fate::Unknown => unknown(seal, operation, &failure.to_string()).caused_by(failure),
        Fate::NotSent | Fate::Refused => failure.into(),
    }
}

/// The error of a commit of which nothing shows whether it was carried out.
fn unknown(seal: &Seal, operation: &Operation, why: &str) -> Error {
    let (revision, operation) = (seal.revision, operation.as_str());
    let message = format!("revision {revision} may be committed by operation {operation}: {why}");
    Error::new(Kind::DurabilityUnknown, message)
        .hint_command(
            format!("state history --operation {operation}"),
            "see whether it is; do not repeat the change blindly",
        )
        .detail("revision", revision.get())
        .detail("operation", operation)
}
