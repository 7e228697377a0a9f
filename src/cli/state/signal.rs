//! `state signal`: sets a signal, or clears it.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Run, non_empty, put, write_options};
use crate::cli::args::state::Signal as Arguments;
use crate::cli::input::inline_json;
use crate::cli::output::Output;
use crate::cli::write_command::change;
use crate::document::new_document::NewDocument;
use crate::error::Result;
use crate::name::Name;
use crate::store::change::Proposal;
use crate::store::signal::Signals;
use crate::store::{SignalFile, Store};

pub(super) fn run(args: &Arguments, store: &Store, output: &Output<'_>) -> Run {
    let name = Name::parse("signal", &args.name)?;
    let metadata =
        args.metadata.as_deref().map(|json| inline_json("--metadata", json)).transpose()?;
    let options = write_options("signal", &args.writer)?;
    change(store, output, &options, "State updated", &mut |base| {
        let phase = args.phase.as_deref().map(|phase| non_empty("phase", phase)).transpose()?;
        let signal = Signal { name: &name, phase, metadata: metadata.as_ref() };
        let draft = NewDocument::edit(&base.value, []);
        if args.clear { Ok(signal.clear(draft)) } else { signal.set(draft, store.now()) }
    })
}

struct Signal<'a> {
    name: &'a Name,
    phase: Option<&'a str>,
    metadata: Option<&'a Value>,
}

impl Signal<'_> {
    fn set(&self, mut draft: NewDocument, now: SystemTime) -> Result<Proposal> {
        let value = draft.root_mut();
        if let Some(phase) = self.phase {
            put(value, "phase", phase.into());
        }
        let metadata = self.metadata.cloned().unwrap_or_else(|| json!({}));
        let signals = vec![SignalFile::give(value, self.name, &metadata, now)?];
        Ok(Proposal { signals: Signals::These(signals), ..draft.into() })
    }

    fn clear(&self, mut draft: NewDocument) -> Proposal {
        let value = draft.root_mut();
        if let Some(signals) = value.get_mut("signals").and_then(Value::as_object_mut) {
            signals.shift_remove(self.name.as_str());
        }
        if value.get("lastSignal").and_then(Value::as_str) == Some(self.name.as_str()) {
            put(value, "lastSignal", Value::Null);
        }
        if let Some(phase) = self.phase {
            put(value, "phase", phase.into());
        }
        let file = SignalFile { name: self.name.clone(), content: None };
        Proposal { signals: Signals::These(vec![file]), ..draft.into() }
    }
}
