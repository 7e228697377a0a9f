//! Records an event's effects in the state: one commit, or none.

use serde_json::{Value, json};

use super::decide::Effects;
use crate::error::Result;
use crate::store::change::{Outcome, Proposal};
use crate::store::options::WriteOptions;
use crate::store::signal::Signals;
use crate::store::{SignalFile, Store};

/// Commits the effects that `decide` computes from the state, under the lock. Commits nothing
/// without a change. `reason` goes into the history, `about` into the signals' files.
pub fn record(
    store: &Store,
    action: &'static str,
    reason: Option<String>,
    about: &Value,
    decide: &mut dyn FnMut(&Value) -> Effects,
) -> Result<Effects> {
    let mut decided = Effects::default();
    let order = WriteOptions { group: "hook", reason, ..WriteOptions::of(action) };
    let outcome = store.change(&order, &mut |base| {
        decided = decide(&base.value);
        propose(&decided, &base.value, about, store)
    })?;
    if let Outcome::Committed { revision, .. } = outcome {
        tracing::info!("{} is revision {revision}", decided.in_words());
    }
    Ok(decided)
}

fn propose(effects: &Effects, state: &Value, about: &Value, store: &Store) -> Result<Proposal> {
    let mut value = state.clone();
    if let Some(fields) = value.as_object_mut() {
        if let Some(phase) = &effects.phase {
            fields.insert("phase".into(), json!(phase));
        }
        if let Some(code) = &effects.activation {
            fields.insert("lastActivation".into(), json!(code));
        }
    }
    let now = store.now();
    let give = |signal| SignalFile::give(&mut value, signal, about, now);
    let signals = effects.signals.iter().map(give).collect::<Result<_>>()?;
    Ok(Proposal { signals: Signals::These(signals), ..value.into() })
}
