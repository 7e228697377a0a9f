//! Checks that signals and their files agree.

use serde_json::Value;

use super::{Examination, Finding, Subject};
use crate::document::{READ_LIMIT, json as text};
use crate::error::{ExitCode, Result, quote};
use crate::name::Name;
use crate::store::SignalFiles;
use crate::store::layout::SIGNALS;

/// Reports files of signals that the state does not have, as a rollback leaves them, or with
/// another time, and signals without a file.
pub(super) fn signals(examination: &mut Examination<'_>) -> Result<()> {
    let (found, Some(state)) =
        (examination.side(SIGNALS)?, examination.store.report().read_as_it_is()?)
    else {
        return Ok(());
    };
    // The next writer puts the staged files in place, or removes them.
    let staged = SignalFiles::of(examination.store).staged()?;
    missing(examination, &state, found.as_ref().map_or(&[], |(_, names)| names), &staged);
    let Some((dir, names)) = found else { return Ok(()) };
    for name in names {
        let Some(signal) = name.strip_suffix(".json") else { continue };
        if staged.iter().any(|staged| staged.as_str() == signal)
            || !examination.is_place_free(SIGNALS, &name)?
        {
            continue;
        }
        let path = examination.shown(&format!("{SIGNALS}/{name}"));
        let content = examination.store.disk().read(&dir, &name, READ_LIMIT)?;
        let file = content.and_then(|content| text::parse(&content.bytes).ok());
        let known = state.get("signals").and_then(|signals| signals.get(signal));
        let finding = match (file.as_ref().and_then(|file| file.get("timestamp")), known) {
            (None, _) => Finding::new(
                Subject::Signals,
                ExitCode::ValidationFailed,
                format!("{SIGNALS}/{name} is not the file of a signal"),
            ),
            (Some(_), None) => {
                let message =
                    format!("{SIGNALS}/{name} announces a signal that the state does not have");
                Finding::new(Subject::Signals, ExitCode::General, message)
            }
            (Some(time), Some(known)) if time != known => {
                let message = format!("{SIGNALS}/{name} says {time}, and the state says {known}");
                Finding::new(Subject::Signals, ExitCode::General, message)
            }
            _ => continue,
        };
        examination.add(match known {
            Some(_) => {
                let word = quote(signal);
                finding.hint_command(
                    format!("state signal {word}"),
                    "writes the file, and sets the signal to now",
                )
            }
            None => finding.hint_shell(format!("rm -i {path}"), "the state is the truth"),
        });
    }
    Ok(())
}

/// Reports signals of the state without a file. Signals of old documents that are not times
/// have none.
fn missing(examination: &mut Examination<'_>, state: &Value, names: &[String], staged: &[Name]) {
    let signals = state.get("signals").and_then(Value::as_object);
    for (signal, _) in signals.into_iter().flatten().filter(|(_, time)| time.is_number()) {
        let file = format!("{signal}.json");
        let is_staged = staged.iter().any(|staged| staged.as_str() == signal);
        if is_staged || names.contains(&file) || Name::parse("signal", signal).is_err() {
            continue;
        }
        let message = format!("the state has the signal {signal}, and {SIGNALS}/{file} is missing");
        let finding = Finding::new(Subject::Signals, ExitCode::General, message);
        let command = format!("state signal {}", quote(signal));
        examination.add(finding.hint_command(command, "writes it, and sets the signal to now"));
    }
}
