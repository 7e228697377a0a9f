//! Tables. A file or a pipe gets all of it; a narrow terminal gets the part that fits its lines.
//!
//! A narrow table gives up, in this order: long forms of cells, columns that repeat another one,
//! empty columns, the ends of the widest cells, less important columns, the ends of cells meant for
//! copying.

use std::io;

use rustix::termios::{isatty, tcgetwinsize};

use super::style::{Paint, Palette};
use super::width::{self, cut};
use crate::error::one_line;

/// Two spaces between columns.
const GAP: usize = 2;
/// A column is not made narrower than this.
const NARROWEST: usize = 8;
/// Placeholder of an empty cell.
const NOTHING: &str = "-";

/// A table to be written.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// The properties of a column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    head: &'static str,
    side: Side,
    need: Need,
    /// Order of removal where cutting words is not enough: the highest first, 0 never.
    lightness: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The part of a column that can be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The ends of its cells.
    Words,
    /// Nothing, while other columns can give: its cells are for copying.
    Whole,
    /// All of it.
    Spare,
}

/// A cell: its full text, and a short form for narrow lines. Control characters are escaped.
#[derive(Clone, Debug)]
pub struct Cell {
    whole: String,
    short: Option<String>,
    paint: Option<Paint>,
}

impl Cell {
    /// A cell with a shorter form.
    pub fn or(whole: impl Into<String>, short: impl Into<String>) -> Self {
        Self { short: Some(one_line(&short.into())), ..whole.into().into() }
    }

    /// A cell in a colour.
    pub fn painted(text: impl Into<String>, paint: Option<Paint>) -> Self {
        Self { paint, ..text.into().into() }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { whole: one_line(&text.into()), short: None, paint: None }
    }
}

/// A dash if there is no text.
pub fn dash<T: ToString>(thing: Option<T>) -> String {
    thing.map_or_else(|| NOTHING.to_owned(), |thing| thing.to_string())
}

impl Column {
    /// A column of words.
    pub const fn new(head: &'static str) -> Self {
        Self { head, side: Side::Left, need: Need::Words, lightness: 0 }
    }

    /// A column of numbers.
    pub const fn number(head: &'static str) -> Self {
        Self { side: Side::Right, need: Need::Whole, ..Self::new(head) }
    }

    /// Marks its cells as short or for copying.
    pub const fn whole(self) -> Self {
        Self { need: Need::Whole, ..self }
    }

    /// Allows a narrow terminal to drop the column.
    pub const fn spare(self) -> Self {
        Self { need: Need::Spare, ..self }
    }

    /// Marks it as less important; a higher value goes first.
    pub const fn light(self, lightness: u8) -> Self {
        Self { lightness, ..self }
    }
}

impl Table {
    /// A table of these columns.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: a cell for each column.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// The table as text.
    pub fn render(mut self, palette: Palette) -> String {
        if let Some(width) = terminal_width() {
            self.fit(width);
        }
        let widths = self.widths();
        let mut text = String::new();
        let heads: Vec<Cell> = self.columns.iter().map(|column| column.head.into()).collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            let mut blank = 0; // written only before more text
            for ((column, cell), width) in self.columns.iter().zip(row).zip(&widths) {
                let space = width.saturating_sub(width::of(&cell.whole));
                let (before, after) =
                    if column.side == Side::Right { (space, 0) } else { (0, space) };
                line.push_str(&" ".repeat(blank + before));
                line.push_str(
                    &cell.paint.map_or_else(
                        || cell.whole.clone(),
                        |paint| palette.paint(&cell.whole, paint),
                    ),
                );
                blank = after + GAP;
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> =
            self.columns.iter().map(|column| width::of(column.head)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(width::of(&cell.whole));
            }
        }
        widths
    }

    /// Columns by which the lines exceed this width.
    fn excess(&self, width: usize) -> usize {
        let widths = self.widths();
        (widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)).saturating_sub(width)
    }

    fn fit(&mut self, width: usize) {
        if self.excess(width) == 0 {
            return;
        }
        for cell in self.rows.iter_mut().flatten() {
            if let Some(short) = cell.short.take() {
                cell.whole = short;
            }
            cell.whole = cut(&cell.whole, width.max(NARROWEST)); // no column is wider than the line
        }
        while self.excess(width) > 0 && self.give_up(|column| u8::from(column.need == Need::Spare))
        {
        }
        if self.excess(width) > 0 {
            self.keep_columns(|cells| cells.iter().any(|cell| cell.whole != NOTHING));
        }
        let mut narrowed = self.narrowed(Need::Words, width);
        while narrowed.excess(width) > 0 && self.give_up(|column| column.lightness) {
            narrowed = self.narrowed(Need::Words, width);
        }
        *self = narrowed.narrowed(Need::Whole, width);
    }

    /// Cuts cells of this need as far as necessary.
    fn narrowed(&self, need: Need, width: usize) -> Self {
        let mut table = self.clone();
        while table.excess(width) > 0 && table.narrow_widest(need) {}
        table
    }

    /// Removes the first column with the highest value; false if all values are 0.
    fn give_up(&mut self, rank: impl Fn(&Column) -> u8) -> bool {
        let highest = self.columns.iter().map(&rank).max().filter(|highest| *highest > 0);
        let place = self.columns.iter().position(|column| Some(rank(column)) == highest);
        let mut places = 0..;
        self.keep_columns(|_| places.next() != place);
        place.is_some()
    }

    fn keep_columns(&mut self, mut keep: impl FnMut(&[&Cell]) -> bool) {
        let kept = (0..self.columns.len()).map(|place| {
            let cells: Vec<&Cell> = self.rows.iter().filter_map(|row| row.get(place)).collect();
            keep(&cells)
        });
        let kept: Vec<bool> = kept.collect();
        let mut kept_columns = kept.iter();
        self.columns.retain(|_| kept_columns.next() == Some(&true));
        for row in &mut self.rows {
            let mut kept_cells = kept.iter();
            row.retain(|_| kept_cells.next() == Some(&true));
        }
    }

    /// Takes a character from the widest column that can spare one; false if none can.
    fn narrow_widest(&mut self, need: Need) -> bool {
        let widths = self.widths();
        let can = |(place, width): &(usize, &usize)| {
            self.columns.get(*place).is_some_and(|column| {
                column.need == need && **width > NARROWEST.max(width::of(column.head))
            })
        };
        let Some((place, width)) =
            widths.iter().enumerate().filter(can).max_by_key(|(_, width)| **width)
        else {
            return false;
        };
        for cell in self.rows.iter_mut().filter_map(|row| row.get_mut(place)) {
            cell.whole = cut(&cell.whole, width.saturating_sub(1));
        }
        true
    }
}

/// The width of the terminal on standard output; `None` if it is no terminal.
pub fn terminal_width() -> Option<usize> {
    terminal_size().map(|size| size.columns)
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// The size of that terminal.
pub fn terminal_size() -> Option<TerminalSize> {
    let stdout = io::stdout();
    let size = isatty(&stdout).then(|| tcgetwinsize(&stdout).ok()).flatten()?;
    let rows = if size.ws_row == 0 { usize::MAX } else { size.ws_row.into() };
    Some(TerminalSize { columns: size.ws_col.into(), rows }).filter(|size| size.columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = [
            Column::new("LOCK"),
            Column::number("PID"),
            Column::new("SINCE").whole(),
            Column::new("NOTE").spare(),
            Column::new("FOR"),
            Column::new("COMMAND"),
        ];
        let mut table = Table::new(&columns);
        let time = || Cell::or("2026-01-01T00:00:00Z (5 s ago)", "5 s");
        table.row([
            "deploy".into(),
            "12".into(),
            time(),
            "x".into(),
            "-".into(),
            "make -C a/long/way/down install".into(),
        ]);
        table.row(["b".into(), "1234567".into(), time(), "-".into(), "-".into(), "sh".into()]);
        table
    }

    fn rows(table: &Table) -> Vec<String> {
        table
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.whole.as_str()).collect::<Vec<_>>().join("|"))
            .collect()
    }

    #[test]
    fn a_table_gives_up_no_more_than_it_must() {
        let fitted = |width| {
            let mut table = table();
            table.fit(width);
            assert_eq!(table.excess(width), 0, "{width}");
            rows(&table)
        };
        assert_eq!(fitted(200), rows(&table()));
        assert_eq!(fitted(80)[0], "deploy|12|5 s|x|-|make -C a/long/way/down install");
        assert_eq!(fitted(64)[0], "deploy|12|5 s|-|make -C a/long/way/down install");
        assert_eq!(fitted(59)[0], "deploy|12|5 s|make -C a/long/way/down install");
        assert_eq!(fitted(46), ["deploy|12|5 s|make -C a/long/way/do…", "b|1234567|5 s|sh"]);
    }

    #[test]
    fn a_terminal_too_narrow_for_anything_is_no_reason_to_hang() {
        let mut table = table();
        table.fit(1);
        assert_eq!(rows(&table)[0], "deploy|12|5 s|make -C…");
    }

    #[test]
    fn light_columns_go_before_cells_for_copying_are_cut() {
        let fitted = |width| {
            let mut table = Table::new(&[
                Column::new("ID").whole(),
                Column::number("BYTES").light(1),
                Column::new("PID").light(1),
                Column::new("NOTE"),
            ]);
            table.row([
                "checkpoint-1".into(),
                "123456".into(),
                "42".into(),
                "a few words more".into(),
            ]);
            table.fit(width);
            rows(&table).remove(0)
        };
        assert_eq!(fitted(35), "checkpoint-1|123456|42|a few w…");
        assert_eq!(fitted(34), "checkpoint-1|42|a few words mo…");
        assert_eq!(fitted(26), "checkpoint-1|a few words…");
        assert_eq!(fitted(20), "checkpoin…|a few w…");
    }
}
