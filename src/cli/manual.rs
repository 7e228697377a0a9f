//! The manual: a page of the program to standard output, or a page of each command into a
//! directory.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use super::args::shell;
use super::help::{self, Page};
use super::markdown::Look;
use super::output::write_out;
use crate::error::{Error, ExitCode, Kind, quote_path};
use crate::placement;

/// Writes the requested pages.
pub fn write(arguments: &shell::Man) -> anyhow::Result<u8> {
    let mut command = help::tree();
    command.build();
    match &arguments.dir {
        None => write_out(&page(&command)?)?,
        Some(dir) if placement::side_directory_of(dir).is_some() => {
            let message = format!("{} belongs to a state; no page was written", dir.display());
            let error = Error::new(Kind::UnsafePath, message);
            return Err(error.hint_command("man --help", "name another directory").into());
        }
        Some(dir) if dir.is_dir() => {
            write_pages(&command, dir)?;
            help::PAGES.iter().try_for_each(|page| put(dir, &topic_file(page), &of_topic(page)))?;
        }
        Some(dir) => {
            let there = if dir.exists() { "is not a directory" } else { "is not there" };
            let error = Error::new(
                Kind::DependencyMissing,
                format!("{} {there}; no page was written", dir.display()),
            );
            return Err(error
                .hint_shell(format!("mkdir -p {}", quote_path(dir)), "make it first")
                .into());
        }
    }
    Ok(ExitCode::Success as u8)
}

fn write_pages(command: &Command, dir: &Path) -> anyhow::Result<()> {
    for below in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(below, dir)?;
    }
    put(dir, &Man::new(command.clone()).get_filename(), &page(command)?)
}

/// Writes a page. It is put in place by a rename: a link that stands there is replaced and not
/// followed.
fn put(dir: &Path, name: &str, page: &[u8]) -> anyhow::Result<()> {
    let path = dir.join(name);
    let write = || -> std::io::Result<()> {
        let readable = Permissions::from_mode(0o666); // less the umask
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(dir)?;
        file.write_all(page)?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(|error| {
        Error::new(Kind::of_io(&error), format!("cannot write {}: {error}", path.display()))
    })?;
    Ok(())
}

fn topic_file(page: &Page) -> String {
    format!("pipeline-state-{}.1", page.topic)
}

/// The page on a topic, laid out already.
fn of_topic(page: &Page) -> Vec<u8> {
    let text = page.render(Look { width: help::PLAIN_WIDTH - 7, is_coloured: false });
    let head = format!(
        ".TH \"pipeline-state-{0}\" \"1\" \"\" \"pipeline-state {1}\" \"\"\n.SH NAME\n\
         pipeline\\-state\\-{0} \\- {2}\n.SH DESCRIPTION\n",
        page.topic.replace('-', "\\-"),
        env!("CARGO_PKG_VERSION"),
        page.about,
    );
    format!("{head}{}", laid_out(&text)).chars().map(named).collect::<String>().into_bytes()
}

/// Text with lines that stay as they are, in the language of man(7).
fn laid_out(text: &str) -> String {
    let mut page = ".nf\n".to_owned();
    for line in text.lines() {
        page.push_str("\\&"); // a dot or an apostrophe in front would be a request
        page.push_str(&line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq"));
        page.push('\n');
    }
    page + ".fi\n"
}

/// Characters beyond ASCII by their names in groff_char(7), which mandoc knows, too.
fn named(c: char) -> String {
    if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", u32::from(c)) }
}

/// A page in the language of man(7). The text after a command's options is laid out already: it
/// keeps its lines.
fn page(command: &Command) -> anyhow::Result<Vec<u8>> {
    let below = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let mut page = Vec::new();
    let man = Man::new(command.clone())
        .manual("")
        .source(concat!("pipeline-state ", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(below) = below.filter(|text| !text.is_empty()) {
        page.extend(b".SH NOTES AND EXAMPLES\n");
        page.extend(laid_out(&below).bytes());
    }
    let page = String::from_utf8_lossy(&page);
    Ok(page.chars().map(named).collect::<String>().into_bytes())
}
