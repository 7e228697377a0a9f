//! The name of a waiter's file in a queue. It says all that decides which waiter comes next, so one
//! listing of a directory shows a long queue.
//!
//! Its fields are separated by dots, in the order of [`name_of`]. Numbers are decimal. A name that
//! [`name_of`] would write otherwise is no waiter's: its file must be found again, and a root may
//! come from anywhere.

use std::sync::Arc;

use super::identity::{Identity, Namespace};
use super::lifeline::Lifeline;
use super::limits;
use super::record::{Mode, Place, Purpose, Token, Waiter};

/// The longest name of a file: `NAME_MAX`.
const LONGEST: usize = 255;
/// In place of a lifeline's ID, of a waiter without one.
const NONE: &str = "-";
const PASSED_OVER: &str = "p";
const BROKEN: &str = "b";
const BOTH: &str = "pb";
/// The digits of a ticket, at least.
const TICKET: usize = 10;
/// Milliseconds below this are found again in seconds of 53 bits.
const LATEST: u64 = 1 << 51;

/// The name of a waiter's file; `None` if it waits in the record.
pub fn name_of(waiter: &Waiter) -> Option<String> {
    let Place::File { ticket, size } = waiter.place else { return None };
    let Waiter { process, owner, .. } = waiter;
    let Namespace { boot, pid_namespace, time_namespace, machine, .. } = &*process.namespace;
    let mode = match waiter.mode {
        Mode::Exclusive => 'x',
        Mode::Shared => 's',
    };
    let purpose = match waiter.purpose {
        Purpose::Hold => 'h',
        Purpose::Commit => 'c',
    };
    let passed_over = if waiter.passed_over { PASSED_OVER } else { "" };
    let broken = if waiter.broken { BROKEN } else { "" };
    let id = waiter.lifeline.as_ref().map_or(NONE, Lifeline::id);
    let own = waiter.own.map_or(0, Token::get);
    let until = waiter.until * 1000.0;
    Some(format!(
        "{ticket:0TICKET$}.{mode}{purpose}{passed_over}{broken}.{}.{}.{}.{}.{until:.0}.{}.\
         {size}.{own}.{id}.{pid_namespace}.{time_namespace}.{machine}.{boot}",
        process.pid, process.start, owner.pid, owner.start, waiter.locks,
    ))
}

/// The waiters of these names; a name that is not that of a waiter's file is left out.
pub fn parse_all<'n>(names: impl Iterator<Item = &'n str>) -> Vec<Waiter> {
    let mut scope = Arc::new(Namespace::default());
    names
        .filter_map(|name| {
            let waiter = parse(name, &scope)?;
            scope = Arc::clone(&waiter.process.namespace);
            Some(waiter)
        })
        .collect()
}

/// The waiter of this name; `None` if it is not the name of a waiter's file. Its command, its start
/// and its notes are in its lifeline. Waiters mostly are of one scope: that of the last one is
/// shared where it is the same.
fn parse(name: &str, last: &Arc<Namespace>) -> Option<Waiter> {
    let mut fields = name.split('.');
    let mut next = || fields.next();
    let ticket = padded(next()?)?;
    let mut letters = next()?.chars();
    let mode = match letters.next()? {
        'x' => Mode::Exclusive,
        's' => Mode::Shared,
        _ => return None,
    };
    let purpose = match letters.next()? {
        'h' => Purpose::Hold,
        'c' => Purpose::Commit,
        _ => return None,
    };
    let (passed_over, broken) = match letters.as_str() {
        "" => (false, false),
        PASSED_OVER => (true, false),
        BROKEN => (false, true),
        BOTH => (true, true),
        _ => return None,
    };
    let (pid, start) = (number(next()?)?, number(next()?)?);
    let (owner_pid, owner_start) = (number(next()?)?, number(next()?)?);
    let until = number::<u64>(next()?).filter(|until| *until < LATEST)?;
    let (locks, size, own) = (number(next()?)?, number(next()?)?, number(next()?)?);
    if size as usize > limits::RECORD {
        return None;
    }
    let lifeline = match next()? {
        NONE => None,
        id => Some(Lifeline::of_waiter(id)?),
    };
    let (pid_namespace, time_namespace) = (number(next()?)?, number(next()?)?);
    let (machine, boot) = (plain(next()?)?, plain(next()?)?);
    if next().is_some() || name.len() > LONGEST {
        return None;
    }
    let is_last = (&*last.boot, &*last.machine) == (boot, machine)
        && (last.pid_namespace, last.time_namespace) == (pid_namespace, time_namespace)
        && last.host.is_empty();
    let namespace = match is_last {
        true => Arc::clone(last),
        false => Arc::new(Namespace {
            boot: boot.to_owned(),
            pid_namespace,
            time_namespace,
            machine: machine.to_owned(),
            host: String::new(),
        }),
    };
    Some(Waiter {
        mode,
        owner: Identity { pid: owner_pid, start: owner_start, namespace: namespace.clone() },
        process: Identity { pid, start, namespace },
        command: String::new(),
        since: String::new(),
        until: until as f64 / 1000.0,
        own: Token::new(own),
        purpose,
        metadata: None,
        lifeline,
        locks,
        passed_over,
        broken,
        place: Place::File { ticket, size },
    })
}

/// A number as it is written in decimal, without a sign or zeros before it.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.len() > 1 && text.starts_with('0') { None } else { digits(text) }
}

/// A number with zeros before it, up to [`TICKET`] digits.
fn padded(text: &str) -> Option<u64> {
    if text.len() == TICKET { digits(text) } else { number(text).filter(|_| text.len() > TICKET) }
}

fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// An ID of a boot or a machine.
fn plain(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-').then_some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::queue::tests::waiter;

    fn at(ticket: u64) -> Waiter {
        Waiter { place: Place::File { ticket, size: 700 }, ..waiter(Mode::Exclusive, 7) }
    }

    #[test]
    fn a_waiter_is_known_from_its_name() {
        let namespace = Arc::new(Namespace {
            boot: "0d1e2f3a-0000-4000-8000-000000000000".to_owned(),
            pid_namespace: 4_026_531_836,
            time_namespace: 4_026_531_834,
            machine: "0123456789abcdef0123456789abcdef".to_owned(),
            host: String::new(),
        });
        let identity = |pid| Identity { pid, start: 1 << 48, namespace: namespace.clone() };
        let full = Waiter {
            owner: identity(u32::MAX),
            process: identity(u32::MAX - 1),
            until: 1_790_000_000.125,
            own: Token::new(u64::from(u32::MAX)),
            lifeline: Lifeline::of_waiter("0123456789abcdef"),
            locks: 64,
            passed_over: true,
            broken: true,
            ..at(u64::MAX)
        };
        let commit = Waiter { purpose: Purpose::Commit, mode: Mode::Shared, ..at(1) };
        for waiter in [at(12), full, commit] {
            let name = name_of(&waiter).unwrap();
            assert!(name.len() <= LONGEST, "{name}");
            assert_eq!(parse_all([name.as_str()].into_iter()), [waiter], "{name}");
        }
    }

    #[test]
    fn a_name_that_is_read_is_the_one_that_is_written() {
        let waiter = Waiter { passed_over: true, broken: true, until: 9e9, ..at(12) };
        let name = name_of(&waiter).unwrap();
        let mut read = 0;
        for place in 0..name.len() {
            for new in ["", "0", "1", "-", ".", "p", "b", "a", "00", "9999999999"] {
                for length in [0, 1] {
                    let (before, rest) = (&name[..place], &name[place + length..]);
                    let changed = format!("{before}{new}{rest}");
                    for waiter in parse_all([changed.as_str()].into_iter()) {
                        assert_eq!(name_of(&waiter), Some(changed.clone()));
                        read += 1;
                    }
                }
            }
        }
        assert!(read > 100, "{read} of them are waiters");
    }

    #[test]
    fn other_names_are_no_waiters() {
        let name = name_of(&at(1)).unwrap();
        for bad in [
            "",
            "x",
            &name.replace("xh", "xx"),
            &name.replace("xh", "xhq"),
            &name.replacen(".7.", ".+7.", 1),
            name.trim_start_matches('0'),
            &name.replacen(".700.", ".1048577.", 1),
            &name.replacen(".-.", ".../../x.", 1),
            &format!("{name}.1"),
            &format!("{name}{}", "b".repeat(255)),
        ] {
            assert_eq!(parse_all([bad].into_iter()), [], "{bad:?}");
        }
    }
}
