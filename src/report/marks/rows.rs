//! The rows of a lane: marks of the same time are below each other.

use std::collections::HashMap;

use super::{Lane, Mark};

/// The most rows of a lane; what has no free row is drawn in the last one.
const ROWS_LIMIT: usize = 8;

/// The rows of a lane while they are filled.
#[derive(Default)]
struct Rows {
    /// The end of the last mark in each row.
    ends: Vec<i64>,
    /// The row in which a script was last.
    last: HashMap<usize, usize>,
}

impl Rows {
    /// The row for a mark from `from` until `until`: the script's last one if it is free, else the
    /// first free one.
    fn take(&mut self, script: Option<usize>, from: i64, until: i64) -> usize {
        let is_free = |row: &usize| self.ends.get(*row).is_none_or(|end| *end <= from);
        let last = script.and_then(|script| self.last.get(&script).copied());
        let row = last
            .filter(is_free)
            .or_else(|| (0..ROWS_LIMIT).find(is_free))
            .unwrap_or(ROWS_LIMIT - 1);
        if self.ends.len() <= row {
            self.ends.resize(row + 1, i64::MIN);
        }
        if let Some(end) = self.ends.get_mut(row) {
            *end = until.max(*end);
        }
        if let Some(script) = script {
            self.last.insert(script, row);
        }
        row
    }
}

/// Gives each mark a row. The marks are sorted by lane and beginning. A wait and the grant after it
/// are in one row.
pub(super) fn assign(lanes: &mut [Lane], marks: &mut [Mark]) {
    // The end of the grant of each wait.
    let ends: HashMap<usize, i64> = marks
        .iter()
        .filter_map(|mark| Some((mark.after?, mark.until.unwrap_or(i64::MAX))))
        .collect();
    let mut rows: Vec<Rows> = lanes.iter().map(|_| Rows::default()).collect();
    for number in 0..marks.len() {
        let row_of_wait =
            marks.get(number).and_then(|mark| marks.get(mark.after?)).map(|wait| wait.row);
        let Some(mark) = marks.get_mut(number) else { continue };
        let Some(rows) = rows.get_mut(mark.lane) else { continue };
        let until = mark.until.unwrap_or(i64::MAX);
        let until = ends.get(&number).map_or(until, |end| until.max(*end));
        // A point takes no place.
        mark.row = row_of_wait.unwrap_or_else(|| {
            if until == mark.from { 0 } else { rows.take(mark.script, mark.from, until) }
        });
    }
    for (lane, rows) in lanes.iter_mut().zip(rows) {
        lane.rows = rows.ends.len().max(1);
    }
}
