//! A watch: it wakes when keys change. What they are now is read afterwards.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use prost::Message as _;

use super::failure::{Cause, Failure};
use super::messages::{Event, WatchResponse};
use super::wire::Stream;

/// An open watch of keys.
#[derive(Debug)]
pub struct Watch {
    stream: Box<dyn Stream>,
}

impl Watch {
    /// Waits until the cluster says that so many watches of the stream are open.
    pub(super) fn open(
        stream: Box<dyn Stream>,
        watches: usize,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let (mut watch, mut open) = (Self { stream }, 0);
        while open < watches {
            match watch.answer(deadline, &[])? {
                Some(answer) if answer.created => open += 1,
                Some(_) => {}
                None => return Err(Failure::unknown(Cause::TimedOut)),
            }
        }
        Ok(watch)
    }

    /// The next changes; none if there were none until `deadline`. After a failure the watch has
    /// ended, and changes may have been missed.
    pub fn next(&mut self, deadline: Instant) -> Result<Vec<Event>, Failure> {
        self.next_or(deadline, &[])
    }

    /// The same; none also if one of the descriptors `wake` can be read before.
    pub fn next_or(
        &mut self,
        deadline: Instant,
        wake: &[BorrowedFd<'_>],
    ) -> Result<Vec<Event>, Failure> {
        loop {
            match self.answer(deadline, wake)? {
                Some(answer) if answer.events.is_empty() => {}
                Some(answer) => return Ok(answer.events),
                None => return Ok(Vec::new()),
            }
        }
    }

    fn answer(
        &mut self,
        deadline: Instant,
        wake: &[BorrowedFd<'_>],
    ) -> Result<Option<WatchResponse>, Failure> {
        let Some(message) = self.stream.next(deadline, wake)? else { return Ok(None) };
        let answer = WatchResponse::decode(message)
            .map_err(|error| Failure::unknown(Cause::Protocol(error.to_string())))?;
        if answer.canceled {
            return Err(Failure::of_status(14, &answer.cancel_reason));
        }
        Ok(Some(answer))
    }
}
