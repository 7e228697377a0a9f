//! The commit: one transaction, sent again until its fate is known.

use std::time::Duration;

use serde_json::json;

use super::DOCUMENT_LIMIT;
use super::ahead::Ahead;
use super::claim::Claim;
use super::conditions::fence_guards;
use super::ground::Ground;
use super::guard::on_record::{guards_of_commit, warn_of_guards};
use super::log::{Operation, Record, last_dropped};
use super::preserve::{Kept, REQUEST_ROOM};
use super::prune::surplus;
use super::queue::Place;
use super::source::Source;
use super::writer::Writer;
use crate::document::seal::{Revision, Seal, Sealed, full_size, to_bytes};
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::Failure;
use crate::etcd::fate::Fate;
use crate::etcd::messages::{Compare, RequestOp, TxnRequest, TxnResponse};
use crate::etcd::txn::{Keys, Part, absent, created_at, created_before, delete, put, put_at};
use crate::journal::{Changes, Commit};
use crate::lock::{Fence, STATE};
use crate::store::logged;
use crate::store::options::WriteOptions;
use crate::store::signal::SignalFile;
use crate::time::rfc3339;

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
    /// Guards of the first commit of a store.
    pub beginning: Vec<Compare>,
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
            beginning: Vec::new(),
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

/// Commits on this ground.
pub(super) fn publish<'s>(ground: &Ground<'s>, plan: Plan<'_>) -> Result<Landed<'s>> {
    let store = ground.store;
    let seal = &plan.sealed.document.seal;
    check_size(plan.sealed)?;
    let operation = Operation::new()?;
    let record = Record { operation: operation.clone(), commit: record_of(ground, &plan) };
    let record = record.value()?;
    let mut compare = guards_of(ground, seal.revision, &plan.options.fences)?;
    compare.extend(plan.claim.into_iter().flat_map(|claim| claim.guards(store)));
    compare.extend(plan.guards.compare.iter().chain(&plan.beginning).cloned());
    let mut success = operations_of(ground, &plan)?;
    let kept = plan.kept.values(&store.keys);
    let ahead = match plan.size() + record.len() <= REQUEST_ROOM {
        true => {
            success.extend(kept.into_iter().map(|(key, value)| put(key, value)));
            None
        }
        false => {
            let still = put_at(store.keys.state(), ground.state_put_at());
            let Some(ahead) = Ahead::put(&store.client, kept, Some(&still))? else {
                let found = Ground::observe(store, &plan.options.fences)?;
                return Ok(Landed::Overtaken(Box::new(found)));
            };
            compare.extend(ahead.guards());
            success.extend(ahead.operations());
            Some(ahead)
        }
    };
    success.push(put(store.keys.log(seal.revision), record));
    let own_record = Keys::one(store.keys.log(seal.revision)).read();
    let next = Ground::ranges(store, &plan.options.fences);
    let failure = std::iter::once(own_record).chain(next).map(RequestOp::from).collect();
    let request = TxnRequest { compare, success, failure };
    let answer = store.client.commit(&request);
    let answer = answer.map_err(|failure| failed(failure, seal, &operation))?;
    let landed = match answer.succeeded {
        true => Landed::Done,
        false => overtaken(ground, answer, seal, &operation)?,
    };
    match &landed {
        Landed::Done => {
            plan.place.inspect(|place| place.is_left.set(true));
            store.log(logged::commit(plan.options, plan.sealed, plan.waited));
            // A commit that settles some is about them.
            if plan.guards.success.is_empty() {
                warn_of_guards(ground);
            }
        }
        Landed::Overtaken(_) => {
            ahead.inspect(|ahead| ahead.take_back(&store.client));
        }
    }
    Ok(landed)
}

/// What a transaction whose guards did not hold has found: perhaps that it had been carried out
/// before, and its answer was lost.
fn overtaken<'s>(
    ground: &Ground<'s>,
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
    let ground = Ground::in_answer(ground.store, Source::Cluster, at, ranges)?;
    let newest = ground.newest.as_ref().map(|newest| newest.revision);
    if recorded.is_empty() && newest > Some(seal.revision) {
        // So long overtaken that the log no longer reaches back.
        return Err(unknown(seal, operation, "the log no longer has its record"));
    }
    Ok(Landed::Overtaken(Box::new(ground)))
}

fn guards_of(ground: &Ground<'_>, revision: Revision, fences: &[Fence]) -> Result<Vec<Compare>> {
    let keys = &ground.store.keys;
    let mut guards = vec![
        put_at(keys.state(), ground.state_put_at()),
        put_at(keys.meta(), ground.meta_put_at()),
        absent(keys.log(revision)),
        created_before(&keys.locks.grants(STATE), ground.at + 1),
    ];
    // What is written under the lock `state` needs that grant.
    if let Some(held) = Writer::of(ground.store).own_grant(&ground.state_holders)? {
        guards.push(created_at(held.key.clone(), held.created));
    }
    guards.extend(fence_guards(ground, fences)?);
    Ok(guards)
}

/// The operations of a commit, but for what it keeps and its record.
fn operations_of(ground: &Ground<'_>, plan: &Plan<'_>) -> Result<Vec<RequestOp>> {
    let keys = &ground.store.keys;
    let now = ground.store.now();
    let seal = &plan.sealed.document.seal;
    let mut operations = vec![put(keys.state(), plan.sealed.text.whole())];
    if ground.lineage.as_ref() != Some(&seal.lineage) {
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
        Kept::Backup(made, _) => surplus(ground, made, now),
        Kept::Evidence(..) | Kept::Nothing => Vec::new(),
    };
    operations.extend(surplus.iter().map(|name| delete(&Keys::one(keys.backup(name)))));
    Ok(operations)
}

fn record_of(ground: &Ground<'_>, plan: &Plan<'_>) -> Commit {
    let seal = &plan.sealed.document.seal;
    let changes = ground.text().and_then(|old| Changes::between(old, plan.sealed.text.iter()));
    Commit {
        origin: (ground.store.surroundings.origin)(ground.store.now()),
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
        guards: guards_of_commit(ground),
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
