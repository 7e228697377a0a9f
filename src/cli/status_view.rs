//! The view that the three `status` commands show, once or again at each change.

use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::moment::Moment;
use super::output::{Output, PipeClosed};
use super::style::Paint;
use super::table::{TerminalSize, terminal_size, terminal_width};
use super::wakeups::Wakeups;
use super::width::{self, cut};
use crate::error::{Error, one_line};
use crate::fs::watch::OutputReader;
use crate::lock::{EntryStatus, LockEntry, LockSummary, Mode, describe_process, shorten};
use crate::os::process::Ends;
use crate::time::rfc3339;

/// The most locks that are named.
const MOST_LOCKS: usize = 6;
/// The most processes watched for their end.
const MOST_PROCESSES: usize = 64;
/// Interval for re-checking a passing state: a commit that drops its flock causes no event.
const SOON: Duration = Duration::from_millis(50);
/// Interval for re-checking processes that cannot be watched.
const LATER: Duration = Duration::from_millis(250);

/// Durations shown in seconds are redrawn each second; those in minutes at most this much later.
const FIRST_TICK: Duration = Duration::from_secs(1);
const LAST_TICK: Duration = Duration::from_secs(30);

/// The view at one moment.
#[derive(Debug, Default)]
pub struct StatusView {
    /// Text for people.
    pub text: String,
    /// JSON for programs.
    pub facts: Value,
    /// Warnings to show with it.
    pub warnings: Vec<String>,
    /// The error that ends the command.
    pub error: Option<Error>,
    /// Processes that matter to the view: their end changes it.
    pub processes: Vec<u32>,
    /// True if the state shown passes without an event.
    pub is_passing: bool,
}

/// Shows the view once, or, given wakeups, at each change until the output has no reader.
pub fn show(
    output: &Output<'_>,
    wakeups: Option<Box<dyn Wakeups + '_>>,
    look: &mut dyn FnMut() -> anyhow::Result<StatusView>,
) -> anyhow::Result<()> {
    if let Some(wakeups) = wakeups {
        return follow(output, wakeups, look);
    }
    let status_view = look()?;
    if output.is_json() {
        output.json(&status_view.facts)?;
    } else {
        output.bytes(status_view.text.as_bytes())?;
    }
    for warning in &status_view.warnings {
        output.warning(warning);
    }
    status_view.error.map_or(Ok(()), |error| Err(error.into()))
}

fn follow(
    output: &Output<'_>,
    mut wakeups: Box<dyn Wakeups + '_>,
    look: &mut dyn FnMut() -> anyhow::Result<StatusView>,
) -> anyhow::Result<()> {
    let mut shown: Option<(Value, String)> = None;
    let mut tick = FIRST_TICK;
    loop {
        wakeups.renew();
        let status_view = look()?;
        let is_same = |(facts, text): &(Value, String)| match ticks(output) {
            true => *facts == status_view.facts && *text == status_view.text,
            false => *facts == status_view.facts,
        };
        if shown.as_ref().is_some_and(is_same) {
            tick = tick.saturating_mul(2).min(LAST_TICK);
        } else {
            draw(output, &status_view, shown.is_none())?;
            tick = FIRST_TICK;
        }
        let processes = status_view.processes.iter().take(MOST_PROCESSES);
        let mut ends = Ends::default();
        // A process that ended in the meantime cannot be watched either.
        let watched = processes.filter(|pid| ends.add(**pid)).count();
        let are_watched = watched == status_view.processes.len();
        let at_most = status_view.is_passing.then_some(SOON).or((!are_watched).then_some(LATER));
        let at_most = at_most.or(ticks(output).then_some(tick));
        shown = Some((status_view.facts, status_view.text));
        if wakeups.wait(Some(std::io::stdout().as_fd()), &ends, at_most) == OutputReader::Gone {
            return Err(PipeClosed.into());
        }
    }
}

/// True if durations stay up to date: a new view replaces the old one on the terminal.
fn ticks(output: &Output<'_>) -> bool {
    !output.is_json() && terminal_size().is_some()
}

/// Replaces the view on a terminal; elsewhere appends it.
fn draw(output: &Output<'_>, status_view: &StatusView, is_first: bool) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(&status_view.facts);
    }
    let head =
        format!("{}   shown again at each change; Ctrl-C ends it\n\n", rfc3339(SystemTime::now()));
    let mut text = status_view.text.clone();
    for warning in &status_view.warnings {
        text.push_str(&format!(
            "{} {}\n",
            output.paint("warning:", Paint::Yellow),
            one_line(warning)
        ));
    }
    if let Some(error) = &status_view.error {
        text.push_str(&output.error_text(error));
    }
    let Some(size) = terminal_size() else {
        return output.bytes(format!("{head}{text}\n").as_bytes());
    };
    // Where not all fits, the head goes first.
    let whole = head + &text;
    let text = if top(&whole, size).len() == whole.lines().count() { whole } else { text };
    // Home, each line to its end, and what is left below: without a blank screen in between, which
    // would flicker.
    let lines: String = top(&text, size).iter().map(|line| format!("{line}\u{1b}[K\n")).collect();
    let clear = if is_first { "\u{1b}[2J" } else { "" };
    output.bytes(format!("\u{1b}[H{clear}{lines}\u{1b}[J").as_bytes())
}

/// The lines that fit a terminal of this size without scrolling.
fn top(text: &str, size: TerminalSize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let used = lines.iter().scan(0, |used: &mut usize, line| {
        // colours are counted, too: rather one line less
        *used += width::of(line).div_ceil(size.columns).max(1);
        Some(*used)
    });
    let used: Vec<usize> = used.collect();
    let room = size.rows.saturating_sub(1); // the last one is the cursor's
    let fit = |room: usize| used.iter().take_while(|used| **used <= room).count();
    if fit(room) == lines.len() {
        return lines.into_iter().map(str::to_owned).collect();
    }
    let shown = fit(room.saturating_sub(1));
    let more = format!("… {} more lines", lines.len() - shown);
    lines.into_iter().take(shown).map(str::to_owned).chain([more]).collect()
}

/// Name and text, a line each.
pub fn lines(lines: &[(&str, String)]) -> String {
    lines.iter().map(|(name, text)| format!("{name:<12}{text}\n")).collect()
}

/// A line for each lock with its holders; locks with waiters come first.
pub fn holders(output: &Output<'_>, locks: &LockSummary, now: SystemTime) -> String {
    let mut by_lock: Vec<(&str, Vec<&LockEntry>)> = Vec::new();
    for entry in &locks.entries {
        match by_lock.last_mut().filter(|(lock, _)| *lock == entry.lock) {
            Some((_, entries)) => entries.push(entry),
            None => by_lock.push((&entry.lock, vec![entry])),
        }
    }
    by_lock.sort_by_key(|(_, entries)| std::cmp::Reverse(waiting(entries)));
    let mut text: String = by_lock
        .iter()
        .take(MOST_LOCKS)
        .map(|(lock, entries)| holder(output, lock, entries, now))
        .collect();
    if by_lock.len() > MOST_LOCKS {
        text.push_str(&format!("  … and {} more: `lock list`\n", by_lock.len() - MOST_LOCKS));
    }
    text
}

/// The statuses of an entry that waits.
const WAITS: [EntryStatus; 2] = [EntryStatus::Waiting, EntryStatus::PassedOver];

fn waiters<'e>(entries: &'e [&'e LockEntry]) -> impl Iterator<Item = &'e &'e LockEntry> {
    entries.iter().filter(|entry| entry.token.is_none() && WAITS.contains(&entry.status))
}

fn waiting(entries: &[&LockEntry]) -> usize {
    waiters(entries).count()
}

fn holder(output: &Output<'_>, lock: &str, entries: &[&LockEntry], now: SystemTime) -> String {
    let mut holding = entries
        .iter()
        .filter(|entry| entry.token.is_some() || entry.status == EntryStatus::Damaged);
    let more = holding.clone().count().saturating_sub(1);
    let first = holding.next();
    let status = first.map_or(EntryStatus::Held, |first| first.status);
    let words = |command: &str| {
        let Some(first) = first else { return "it has no holder".to_owned() };
        let who =
            first.pid().map_or_else(|| command.to_owned(), |pid| describe_process(pid, command));
        let place = first.namespace.as_ref();
        let place = place.map_or_else(String::new, |place| format!(" in {place}"));
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let since = if first.since.is_empty() {
            String::new()
        } else {
            format!("for {} ", Moment::from(first.since.as_str()).age(now))
        };
        let share = if first.mode == Mode::Shared { "shared" } else { "held" };
        format!("{share} {since}by {who}{place}{more}")
    };
    let room = terminal_width().unwrap_or(usize::MAX);
    // The ID of the first, where it leaves room for the rest.
    let first_id =
        waiters(entries).find_map(|entry| entry.waiter.as_deref()).filter(|_| room >= 120);
    let waiting = match (waiting(entries), first_id) {
        (0, _) => String::new(),
        (count, None) => format!("; {count} waiting"),
        (1, Some(id)) => format!("; 1 waiting (ID {id})"),
        (count, Some(id)) => format!("; {count} waiting (the first has ID {id})"),
    };
    // The status comes first, so that a narrow terminal does not cut it off.
    let alarm = if status == EntryStatus::Held {
        String::new()
    } else {
        format!("{} ", output.paint(status.name(), Paint::Red))
    };
    let lock = cut(lock, (room / 3).max(16));
    let used = 4
        + width::of(&lock)
        + width::of(&waiting)
        + if alarm.is_empty() { 0 } else { status.name().len() + 1 };
    // Only the command is cut, since text follows it.
    let command = first.map_or_else(String::new, |first| one_line(&shorten(&first.command)));
    let excess = (used + width::of(&words(&command))).saturating_sub(room);
    let words = words(&cut(&command, width::of(&command).saturating_sub(excess)));
    let painted =
        if waiting.is_empty() { String::new() } else { output.paint(&waiting, Paint::Yellow) };
    format!("  {lock}: {alarm}{words}{}\n", painted)
}

/// The processes of locks in this pid namespace.
pub fn processes(locks: &LockSummary) -> Vec<u32> {
    let here = locks
        .entries
        .iter()
        .filter(|entry| entry.namespace.is_none() && entry.status != EntryStatus::Stale);
    let mut pids: Vec<u32> = here.filter_map(|entry| entry.pid()).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// JSON of something and further fields.
pub fn with(facts: impl serde::Serialize, more: &[(&str, Value)]) -> Value {
    let mut facts = json!(facts);
    if let Some(fields) = facts.as_object_mut() {
        fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::{TerminalSize, top};

    #[test]
    fn a_low_terminal_keeps_the_top_and_says_how_much_is_below() {
        let size = |columns, rows| TerminalSize { columns, rows };
        let text = "1\n2 long line\n\n4\n";
        assert_eq!(top(text, size(80, 5)), ["1", "2 long line", "", "4"]);
        assert_eq!(top(text, size(80, 4)), ["1", "2 long line", "… 2 more lines"]);
        assert_eq!(top(text, size(6, 6)), ["1", "2 long line", "", "4"]);
        assert_eq!(top(text, size(6, 5)), ["1", "2 long line", "… 2 more lines"]);
        assert_eq!(top(text, size(6, 4)), ["1", "… 3 more lines"]);
        assert_eq!(top(text, size(6, 1)), ["… 4 more lines"]);
    }
}
