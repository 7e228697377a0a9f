//! `state complete`: adds completed tasks.

use std::collections::HashSet;

use serde_json::Value;

use super::{Run, non_empty, write_options};
use crate::cli::args::state::Complete;
use crate::cli::output::Output;
use crate::cli::write_command::change;
use crate::document::new_document::NewDocument;
use crate::store::Store;

pub(super) fn run(args: &Complete, store: &Store, output: &Output<'_>) -> Run {
    for task in &args.tasks {
        non_empty("task", task)?;
    }
    let options = write_options("complete", &args.writer)?;
    change(store, output, &options, "State updated", &mut |base| {
        let mut draft = NewDocument::edit(&base.value, ["completedTasks"]);
        if let Some(Value::Array(completed)) = draft.root_mut().get_mut("completedTasks") {
            let mut done: HashSet<&str> = completed.iter().filter_map(Value::as_str).collect();
            let new = args.tasks.iter().filter(|task| done.insert(task));
            let new: Vec<Value> = new.map(|task| task.as_str().into()).collect();
            completed.extend(new);
        }
        Ok(draft.into())
    })
}
