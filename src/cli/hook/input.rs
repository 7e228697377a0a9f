//! The event on standard input, and the time limit for reading it.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::document::text::without_mark;
use crate::error::{Error, Kind, Result};
use crate::hook::announce::EventKind;
use crate::hook::event::{HookEvent, LIMIT};

/// The least room for one read, in bytes: what a pipe holds.
const AT_ONCE: usize = 64 << 10;

/// Reads an event until its writer closes the pipe, or, if that stays open, until it is whole.
pub fn read(hook: EventKind, until: Instant) -> Result<HookEvent> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Error::new(
            Kind::Usage,
            "a hook is called by an editor, with an event as JSON on standard input",
        )
        .hint_command("hook settings", "print the settings that have it called"));
    }
    let mut bytes = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !is_ready(stdin.as_fd(), left)? {
            let message = format!(
                "no whole event came on standard input in time: {} bytes, and it is still open",
                bytes.len()
            );
            return Err(Error::new(Kind::WaitTimeout, message));
        }
        if bytes.len() == bytes.capacity() {
            bytes.reserve(AT_ONCE);
        }
        match rustix::io::read(&stdin, spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => {
                let error = std::io::Error::from(errno);
                return Err(Error::new(
                    Kind::of_io(&error),
                    format!("cannot read standard input: {error}"),
                ));
            }
        }
        if bytes.len() > LIMIT {
            return Err(Error::new(Kind::TooLarge, "the event has over 64 MiB, the limit of one")
                .hint_command("hook settings", "print the settings that have an editor send one"));
        }
        // Some never close their end. What ends like an object and is followed by nothing may be
        // whole.
        if bytes.trim_ascii_end().last() == Some(&b'}')
            && !is_ready(stdin.as_fd(), Duration::ZERO)?
            && let Ok(event) = HookEvent::parse(&bytes)
        {
            return Ok(event);
        }
    }
    if without_mark(&bytes).trim_ascii().is_empty() {
        return Err(Error::new(Kind::InvalidJson, "no event came on standard input: it is empty")
            .hint_command("hook settings", "print the settings that have an editor send one"));
    }
    HookEvent::parse(&bytes).map_err(|error| {
        Error::new(Kind::InvalidJson, format!("standard input is not a valid event: {error}"))
            .hint_command(format!("hook {} --help", hook.command()), "has an example of one")
    })
}

fn is_ready(fd: BorrowedFd<'_>, patience: Duration) -> Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => {
                let error = std::io::Error::from(errno);
                return Err(Error::new(
                    Kind::of_io(&error),
                    format!("cannot wait for standard input: {error}"),
                ));
            }
        }
    }
}
