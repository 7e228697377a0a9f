//! Renders the pages of `docs/` as text: the part of Markdown that they use.

use std::fmt::Write as _;

use super::width;

/// The columns that code is indented by.
const INDENT: usize = 4;
/// Two spaces between columns of a table.
const GAP: usize = 2;
const BOLD: &str = "\u{1b}[1m";
const CODE: &str = "\u{1b}[36m";
const END: &str = "\u{1b}[0m";

/// The look of a rendered page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The columns of a line.
    pub width: usize,
    /// Whether headings and code are marked by colour.
    pub is_coloured: bool,
}

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block<'t> {
    Heading(&'t str),
    /// Lines that stay as they are.
    Code(Vec<&'t str>),
    /// The rows of a table, the first of which is its head.
    Table(Vec<Vec<String>>),
    /// A paragraph; one of a list begins with `- ` or a number.
    Text(String),
}

/// Renders a page.
pub fn render(page: &str, look: Look) -> String {
    let mut text = String::new();
    let mut is_list = false;
    for block in blocks(page) {
        let follows_item = std::mem::replace(&mut is_list, bullet(&block).is_some()) && is_list;
        if !text.is_empty() && !follows_item {
            text.push('\n');
        }
        text.push_str(&look.block(&block));
    }
    text
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("```") {
            let code = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```"));
            blocks.push(Block::Code(code.collect()));
        } else if line.starts_with("    ") {
            let mut code = vec![line.trim_start()];
            while let Some(next) = lines.next_if(|next| next.starts_with("    ")) {
                code.push(next.get(4..).unwrap_or_default());
            }
            blocks.push(Block::Code(code));
        } else if line.starts_with('#') {
            blocks.push(Block::Heading(line.trim_start_matches('#').trim()));
        } else if line.starts_with('|') {
            let mut rows = vec![cells(line)];
            while let Some(next) = lines.next_if(|next| next.starts_with('|')) {
                rows.push(cells(next));
            }
            let is_rule =
                |row: &Vec<String>| row.iter().all(|cell| cell.trim_matches([':', '-']).is_empty());
            let first = rows.first().is_some_and(|row| row.iter().all(String::is_empty));
            rows.remove(usize::from(rows.get(1).is_some_and(is_rule)));
            if first {
                rows.remove(0);
            }
            blocks.push(Block::Table(rows));
        } else if !line.trim().is_empty() {
            let mut paragraph = line.trim().to_owned();
            let goes_on = |next: &&str| {
                !next.trim().is_empty()
                    && !next.starts_with(['#', '|'])
                    && !is_item(next)
                    && !next.trim_start().starts_with("```")
            };
            while let Some(next) = lines.next_if(goes_on) {
                paragraph.push(' ');
                paragraph.push_str(next.trim());
            }
            blocks.push(Block::Text(without_links(&without_stars(&paragraph))));
        }
    }
    blocks
}

/// The cells of a row; `\\|` is a bar in a cell.
fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\u{1}");
    let line = line.trim().trim_matches('|');
    line.split('|')
        .map(|cell| without_links(&without_stars(cell.trim())).replace('\u{1}', "|"))
        .collect()
}

fn is_item(line: &str) -> bool {
    marker(line.trim_start()).is_some()
}

/// The length of the marker of an item: `- ` or `1. `.
fn marker(text: &str) -> Option<usize> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    match text.get(digits..)? {
        rest if digits > 0 && rest.starts_with(". ") => Some(digits + 2),
        rest if digits == 0 && rest.starts_with("- ") => Some(2),
        _ => None,
    }
}

fn bullet(block: &Block<'_>) -> Option<usize> {
    match block {
        Block::Text(text) => marker(text),
        _ => None,
    }
}

/// Text without the marks of bold words; in code, stars are stars.
fn without_stars(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(place, part)| match place % 2 {
        0 => part.replace("**", ""),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

/// `[text](page.md)` is its text; another address follows in parentheses.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let link = after.split_once("](").and_then(|(label, after)| {
            let (address, after) = after.split_once(')')?;
            (!label.contains('`') || !label.contains('[')).then_some((label, address, after))
        });
        plain.push_str(before);
        let Some((label, address, after)) = link else {
            plain.push('[');
            rest = after;
            continue;
        };
        plain.push_str(label);
        if address.starts_with("http") {
            let _ = write!(plain, " ({address})");
        }
        rest = after;
    }
    plain + rest
}

impl Look {
    fn block(self, block: &Block<'_>) -> String {
        match block {
            Block::Heading(title) if self.is_coloured => format!("{BOLD}{title}{END}\n"),
            Block::Heading(title) => format!("{}\n", title.to_uppercase()),
            Block::Code(lines) => {
                let indent = " ".repeat(INDENT);
                lines
                    .iter()
                    .map(|line| format!("{indent}{line}").trim_end().to_owned() + "\n")
                    .collect()
            }
            Block::Text(text) => {
                let indent = marker(text).unwrap_or(0);
                self.marked(&(self.wrapped(text, 0, indent) + "\n"))
            }
            Block::Table(rows) => self.table(rows),
        }
    }

    /// Text in lines that fit, of which all but the first are indented by `indent`. `begun` columns
    /// of the first are in use.
    fn wrapped(self, text: &str, begun: usize, indent: usize) -> String {
        let (mut lines, mut used) = (String::new(), begun);
        for word in text.split_whitespace() {
            let columns = width::of(word);
            if used > indent.max(begun) && used + 1 + columns > self.width {
                lines.push('\n');
                lines.push_str(&" ".repeat(indent));
                used = indent;
            } else if used > begun && !lines.is_empty() {
                lines.push(' ');
                used += 1;
            }
            lines.push_str(word);
            used += columns;
        }
        lines
    }

    /// A table with its last column wrapped; where even that does not fit, a row takes two lines.
    fn table(self, rows: &[Vec<String>]) -> String {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| width::of(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        let before: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
        let fits = before + widths.last().map_or(0, |last| (*last).min(32)) <= self.width;
        let mut text = String::new();
        if !fits && columns > 2 {
            return self.sections(rows);
        }
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths).take(columns.saturating_sub(1)) {
                let pad = if fits { width + GAP - width::of(cell) } else { GAP };
                let _ = write!(line, "{cell}{}", " ".repeat(pad));
            }
            let last = row.get(columns.saturating_sub(1)).map_or("", String::as_str);
            let (begun, indent) = if fits { (before, before) } else { (INDENT, INDENT) };
            if !fits {
                line = format!("{}\n{}", self.wrapped(line.trim(), 0, GAP), " ".repeat(INDENT));
            }
            line.push_str(&self.wrapped(last, begun, indent));
            text.push_str(&self.marked(line.trim_end()));
            text.push('\n');
        }
        text
    }

    /// A wide table as a section a row: the first cell, then each other one after its head.
    fn sections(self, rows: &[Vec<String>]) -> String {
        let Some((head, rows)) = rows.split_first() else { return String::new() };
        let mut text = String::new();
        for row in rows {
            let mut cells = row.iter().zip(head);
            if let Some((first, _)) = cells.next() {
                text.push_str(&self.marked(&(self.wrapped(first, 0, GAP) + "\n")));
            }
            for (cell, head) in cells.filter(|(cell, _)| !cell.is_empty()) {
                let label = if head.is_empty() { String::new() } else { format!("{head}: ") };
                let cell = self.wrapped(&format!("{label}{cell}"), INDENT, INDENT + GAP);
                text.push_str(&self.marked(&format!("{}{cell}\n", " ".repeat(INDENT))));
            }
        }
        text
    }

    /// Text with its code in colour, where there are colours.
    fn marked(self, text: &str) -> String {
        if !self.is_coloured {
            return text.to_owned();
        }
        let mut coloured = String::new();
        for (place, part) in text.split('`').enumerate() {
            match place % 2 {
                0 => coloured.push_str(part),
                _ => {
                    let _ = write!(coloured, "{CODE}{part}{END}");
                }
            }
        }
        coloured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { width: 30, is_coloured: false };

    #[test]
    fn paragraphs_and_items_are_wrapped() {
        let page = "# A page\n\nOne two three four five six\nseven `eight`.\n\n\
                    - an item that is\n  longer than a line\n- another\n";
        let text = "A PAGE\n\nOne two three four five six\nseven `eight`.\n\n\
                    - an item that is longer than\n  a line\n- another\n";
        assert_eq!(render(page, PLAIN), text);
    }

    #[test]
    fn code_keeps_its_lines() {
        assert_eq!(render("```sh\na  b\n\n  c\n```\n", PLAIN), "    a  b\n\n      c\n");
        assert_eq!(render("x\n\n    a\n    b\n", PLAIN), "x\n\n    a\n    b\n");
    }

    #[test]
    fn tables_are_aligned_or_take_two_lines_a_row() {
        let page = "| a | b |\n|---|---|\n| `x\\|y` | some words that go on |\n";
        let wide = Look { width: 40, ..PLAIN };
        assert_eq!(render(page, wide), "a      b\n`x|y`  some words that go on\n");
        let page = "| a | b |\n|--:|:--|\n| a long first cell of a row | words |\n";
        assert_eq!(render(page, PLAIN), "a\n    b\na long first cell of a row\n    words\n");
        let page = "| a | b | c |\n|---|---|---|\n| a long first cell | more words | even more |\n";
        assert_eq!(render(page, PLAIN), "a long first cell\n    b: more words\n    c: even more\n");
    }

    #[test]
    fn links_are_their_text() {
        let page = "See [locks](locks.md), [jaq](https://x.y) and [1].\n";
        let wide = Look { width: 80, ..PLAIN };
        assert_eq!(render("**One** `**`\n", wide), "One `**`\n");
        assert_eq!(render(page, wide), "See locks, jaq (https://x.y) and [1].\n");
    }

    #[test]
    fn a_terminal_gets_colours_of_its_own_palette() {
        let look = Look { is_coloured: true, ..PLAIN };
        assert_eq!(
            render("## T\n\nthe `x` y\n", look),
            "\u{1b}[1mT\u{1b}[0m\n\nthe \u{1b}[36mx\u{1b}[0m y\n"
        );
    }
}
