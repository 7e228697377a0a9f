//! Help: the tree of commands with their short and whole help, and the pages of the manual.
//!
//! `-h` shows a command's own options and its examples. `--help` adds the global options and what
//! it prints as JSON. `help TOPIC` prints a page of `docs/`.

use std::io;

use clap::{Command, CommandFactory as _};

use super::args::Cli;
use super::markdown::{self, Look};
use super::output::write_out;
use super::style::Palette;
use super::table::terminal_size;
use crate::config::OutputStyle;
use crate::error::ExitCode;

/// Begin the parts of the help that `-h` leaves out.
const LONG_ONLY: [&str; 2] = ["\nJSON:\n", "\nExit codes: 0"];
const SHORT_END: &str = "Global options: --help. More to read: pipeline-state help pages.";

/// A page of the manual.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Its name on the command line.
    pub topic: &'static str,
    /// Its purpose.
    pub about: &'static str,
    /// Its text, in Markdown.
    pub text: &'static str,
}

/// What `help TOPIC` asks for.
#[derive(Clone, Copy, Debug)]
pub enum Topic {
    /// One page.
    Page(&'static Page),
    /// Their names.
    List,
}

/// Columns of a page on a terminal.
const NARROWEST: usize = 40;
const WIDEST: usize = 90;
/// Columns of a page elsewhere.
pub const PLAIN_WIDTH: usize = 80;

macro_rules! page {
    ($topic:literal, $about:literal) => {
        Page {
            topic: $topic,
            about: $about,
            text: include_str!(concat!("../../docs/", $topic, ".md")),
        }
    };
}

/// The pages, in the order in which they are listed.
pub const PAGES: [Page; 13] = [
    page!("scripting", "use the state in shell scripts"),
    page!("locks", "take, share, wait for and break locks"),
    page!("recovery", "checkpoints, guards, retries, repair"),
    page!("hooks", "connect editors and agents"),
    page!("report", "what happened, as a picture"),
    page!("ci", "pipelines on one or several runners"),
    page!("exit-codes", "every exit code, and what to do"),
    page!("json", "what --json prints"),
    page!("configuration", "settings, files and variables"),
    page!("jq", "filters, and where they differ from jq"),
    page!("limits", "guarantees and limits"),
    page!("performance", "figures beside other programs"),
    page!("coming-from-lib", "from lib/*.sh to this program"),
];

/// The page on a topic.
pub fn page(topic: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.topic == topic)
}

/// The pages, one a line.
pub fn topics() -> String {
    let lines = PAGES.iter().map(|page| format!("  {:<17}{}\n", page.topic, page.about));
    format!("Pages, by `pipeline-state help PAGE`:\n{}", lines.collect::<String>())
}

/// Prints a page, or lists them.
pub fn show(topic: Topic, style: OutputStyle) -> u8 {
    let width = terminal_size().map_or(PLAIN_WIDTH, |size| size.columns);
    let is_coloured = Palette::of(style.color, &io::stdout()) == Palette::Coloured;
    let text = match topic {
        Topic::List => topics(),
        Topic::Page(page) => {
            page.render(Look { width: width.clamp(NARROWEST, WIDEST), is_coloured })
        }
    };
    let _ = write_out(text.as_bytes());
    ExitCode::Success as u8
}

impl Page {
    /// Its text in this look.
    pub fn render(&self, look: Look) -> String {
        markdown::render(self.text, look)
    }
}

/// The tree of commands, with its help.
pub fn tree() -> Command {
    let command = with_short_help(Cli::command());
    let whole = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    command.after_long_help(format!("{whole}\n\n{}", topics().trim_end()))
}

fn with_short_help(command: Command) -> Command {
    let whole = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let end = LONG_ONLY.iter().filter_map(|part| whole.find(part)).min().unwrap_or(whole.len());
    let short = whole.split_at(end).0.trim_end();
    let short = format!("{short}\n\n{SHORT_END}");
    command
        .after_help(short.trim_start().to_owned())
        .after_long_help(whole)
        .mut_args(|arg| if arg.is_global_set() { arg.hide_short_help(true) } else { arg })
        .mut_subcommands(with_short_help)
}
