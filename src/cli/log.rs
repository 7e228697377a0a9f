//! Debug log for `-v` and `DEBUG=1`: on standard error, and in an audit log that was named.

use std::fs::File;
use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::audit;
use crate::config::{Config, Verbosity};
use crate::error::one_line;
use crate::fs::Disk;

/// Starts the log. Debug lines also go to the audit log, if it is not the default one, which users
/// share; its own lines are there already.
pub(super) fn start(config: &Config) {
    let level = match config.verbosity {
        Verbosity::Quiet | Verbosity::Normal => return,
        Verbosity::Info => Level::INFO,
        Verbosity::Debug => Level::DEBUG,
    };
    let is_named = level == Level::DEBUG && config.audit_log.as_os_str() != audit::DEFAULT;
    // opening it is itself logged
    let audit_log = is_named.then(|| audit::open(&Disk::real(), &config.audit_log).ok()).flatten();
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
    let _ = subscriber.with_writer(Outputs { audit_log }).try_init();
}

/// Destination of the lines.
struct Outputs {
    audit_log: Option<File>,
}

/// The lines of this program; those of libraries are left out.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// One log line.
struct Line<'a> {
    is_own: bool,
    audit_log: Option<&'a File>,
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { is_own: true, audit_log: None }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let audit_log = self.audit_log.as_ref().filter(|_| *meta.level() == Level::DEBUG);
        Line { is_own: meta.target().starts_with(OWN), audit_log }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.is_own {
            return Ok(line.len());
        }
        let text = String::from_utf8_lossy(line);
        // paths in it are not escaped
        let text = format!("{}\n", one_line(text.trim_end_matches('\n')));
        if let Some(mut log) = self.audit_log {
            // The level stands in brackets in an audit log. One write, so that lines of several
            // processes never mix.
            let text = text.replacen(" DEBUG ", " [DEBUG] ", 1);
            let _ = log.write(text.as_bytes());
        }
        io::stderr().write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
