//! Recognising this program's hooks among the commands in an editor's settings.

use std::path::Path;

use crate::hook::announce::EventKind;

/// The event that a command of the settings answers, if it is a plain call of this program's hook:
/// the program, by name or path, its options, `hook`, and the name of the hook. A command that does
/// more is the user's own.
pub fn called_event(command: &str) -> Option<EventKind> {
    let words = words(command)?;
    let [program, .., hook, name] = words.as_slice() else { return None };
    let is_program = Path::new(program).file_name().is_some_and(|name| name == "pipeline-state");
    EventKind::ALL.into_iter().find(|event| is_program && hook == "hook" && name == event.command())
}

/// The words of a command line without any operator of the shell; `None` if it has one.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '`' => return None,
                        '\\' => word.push(chars.next()?),
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '`' | '#' => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_call_is_ours_and_a_command_that_does_more_is_not() {
        for (command, event) in [
            ("pipeline-state hook skill-activation-prompt", EventKind::Prompt),
            ("'/opt/it'\\''s here/pipeline-state' hook post-tool-use-tracker", EventKind::Tool),
            (
                "/usr/bin/pipeline-state --state-file \"$CLAUDE_PROJECT_DIR\"/a.json hook \
                 session-start",
                EventKind::Session,
            ),
        ] {
            assert_eq!(called_event(command), Some(event), "{command}");
        }
        for other in [
            "",
            "hook session-start",
            "my-pipeline-state hook session-start",
            "pipeline-state hook check",
            "pipeline-state hook session-start --quiet",
            "pipeline-state hook session-start; rm x",
            "make && pipeline-state hook session-start",
            "pipeline-state hook session-start | tee log",
            "pipeline-state 'hook session-start",
        ] {
            assert_eq!(called_event(other), None, "{other}");
        }
    }
}
