//! The manual: a page of the program to standard output, or a page of each command into a
//! directory.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::args::Cli;
use super::args::shell;
use super::output::write_out;
use crate::error::{Error, ExitCode, Kind, quote_path};
use crate::placement;

/// Writes the requested pages.
pub fn write(arguments: &shell::Man) -> anyhow::Result<u8> {
    let mut command = Cli::command();
    command.build();
    match &arguments.dir {
        None => write_out(&page(&command)?)?,
        Some(dir) if placement::side_directory_of(dir).is_some() => {
            let message = format!("{} belongs to a state; no page was written", dir.display());
            let error = Error::new(Kind::UnsafePath, message);
            return Err(error.hint_command("man --help", "name another directory").into());
        }
        Some(dir) if dir.is_dir() => write_pages(&command, dir)?,
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
    let path = dir.join(Man::new(command.clone()).get_filename());
    // Put in place by a rename: a link that stands there is replaced and not followed.
    let write = || -> std::io::Result<()> {
        let readable = Permissions::from_mode(0o666); // less the umask
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(dir)?;
        file.write_all(&page(command).map_err(std::io::Error::other)?)?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(|error| {
        Error::new(Kind::of_io(&error), format!("cannot write {}: {error}", path.display()))
    })?;
    Ok(())
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
        page.extend(b".SH NOTES AND EXAMPLES\n.nf\n");
        for line in below.lines() {
            page.extend(b"\\&"); // a dot or an apostrophe in front would be a request
            page.extend(
                line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").bytes(),
            );
            page.push(b'\n');
        }
        page.extend(b".fi\n");
    }
    let page = String::from_utf8_lossy(&page);
    Ok(page.chars().map(named).collect::<String>().into_bytes())
}
