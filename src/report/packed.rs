//! The data of a page in few bytes: a browser reads 50,000 events in a fraction of a second. A text
//! that occurs often stands in the data once.

use std::collections::HashMap;

use serde::Serialize;

use super::Timeline;
use super::marks::{End, Fact, Lane, Mark, Script, What};

/// A timeline as the script of the page reads it.
#[derive(Debug, Serialize)]
pub(super) struct Packed<'a> {
    root: &'a str,
    made: i64,
    from: i64,
    until: i64,
    events: usize,
    notes: &'a [String],
    scripts: &'a [Script],
    lanes: &'a [Lane],
    texts: Vec<&'a str>,
    marks: Vec<PackedMark<'a>>,
}

/// A mark as an array.
#[derive(Debug, Serialize)]
struct PackedMark<'a>(
    usize,
    usize,
    What,
    End,
    /// Milliseconds from the beginning of the timeline.
    i64,
    /// The length, if it has ended.
    Option<i64>,
    /// The number of the label.
    usize,
    Option<usize>,
    /// The numbers of names and texts by turns.
    Vec<usize>,
    &'a [usize],
);

#[derive(Default)]
struct Texts<'a> {
    list: Vec<&'a str>,
    numbers: HashMap<&'a str, usize>,
}

impl<'a> Texts<'a> {
    fn number(&mut self, text: &'a str) -> usize {
        *self.numbers.entry(text).or_insert_with(|| {
            self.list.push(text);
            self.list.len() - 1
        })
    }
}

impl<'a> Packed<'a> {
    pub(super) fn of(timeline: &'a Timeline) -> Self {
        let mut texts = Texts::default();
        let pack = |mark: &'a Mark| {
            let facts = mark.facts.iter();
            PackedMark(
                mark.lane,
                mark.row,
                mark.what,
                mark.end,
                mark.from - timeline.from,
                mark.until.map(|until| until - mark.from),
                texts.number(&mark.label),
                mark.script,
                facts
                    .flat_map(|Fact(name, text)| [texts.number(name), texts.number(text)])
                    .collect(),
                &mark.waited_for,
            )
        };
        let marks = timeline.marks.iter().map(pack).collect();
        Self {
            root: &timeline.root,
            made: timeline.made,
            from: timeline.from,
            until: timeline.until,
            events: timeline.events,
            notes: &timeline.notes,
            scripts: &timeline.scripts,
            lanes: &timeline.lanes,
            texts: texts.list,
            marks,
        }
    }
}
