//! The name of a waiter's file in a queue. It says all that decides which waiter comes next, so one
//! listing of a directory shows a long queue.
//!
//! Its fields are separated by dots, in the order of [`name_of`]. Numbers are decimal. A name that
//! is not of this form is no waiter's: a root may come from anywhere.

use super::identity::{Identity, Namespace};
use super::lifeline::Lifeline;
use super::limits;
use super::record::{Mode, Place, Purpose, Token, Waiter};

/// The longest name of a file: `NAME_MAX`.
const LONGEST: usize = 255;
/// In place of a lifeline's ID, of a waiter without one.
const NONE: &str = "-";
const PASSED_OVER: char = 'p';
const BROKEN: char = 'b';

/// The name of a waiter's file; `None` if it waits in the record.
pub fn name_of(waiter: &Waiter) -> Option<String> {
    let Place::File { ticket, size } = waiter.place else { return None };
    let Waiter { process, owner, .. } = waiter;
    let Namespace { boot, pid_namespace, time_namespace, machine, .. } = &process.namespace;
    let mode = match waiter.mode {
        Mode::Exclusive => 'x',
        Mode::Shared => 's',
    };
    let purpose = match waiter.purpose {
        Purpose::Hold => 'h',
        Purpose::Commit => 'c',
    };
    let mark = |is_set: bool, mark: char| if is_set { mark.to_string() } else { String::new() };
    let marks = mark(waiter.passed_over, PASSED_OVER) + &mark(waiter.broken, BROKEN);
    let id = waiter.lifeline.as_ref().map_or(NONE, Lifeline::id);
    let own = waiter.own.map_or(0, Token::get);
    let until = waiter.until * 1000.0;
    Some(format!(
        "{ticket:010}.{mode}{purpose}{marks}.{}.{}.{}.{}.{until:.0}.{}.{size}.{own}.{id}.\
         {pid_namespace}.{time_namespace}.{machine}.{boot}",
        process.pid, process.start, owner.pid, owner.start, waiter.locks,
    ))
}

/// The waiter of this name; `None` if it is not the name of a waiter's file. Its command, its start
/// and its notes are in its lifeline.
pub fn parse(name: &str) -> Option<Waiter> {
    let mut fields = name.split('.');
    let mut next = || fields.next();
    let ticket = number(next()?)?;
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
    let marks: Vec<char> = letters.collect();
    let (pid, start) = (number(next()?)?, number(next()?)?);
    let (owner_pid, owner_start) = (number(next()?)?, number(next()?)?);
    let until = number::<u64>(next()?)?;
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
    let is_whole = next().is_none()
        && name.len() <= LONGEST
        && marks.iter().all(|mark| [PASSED_OVER, BROKEN].contains(mark));
    let namespace = Namespace {
        boot: boot.to_owned(),
        pid_namespace,
        time_namespace,
        machine: machine.to_owned(),
        host: String::new(),
    };
    let waiter = Waiter {
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
        passed_over: marks.contains(&PASSED_OVER),
        broken: marks.contains(&BROKEN),
        place: Place::File { ticket, size },
    };
    // Its name must be found again.
    (is_whole && name_of(&waiter).as_deref() == Some(name)).then_some(waiter)
}

/// A number as it is written in decimal, without a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
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
        let namespace = Namespace {
            boot: "0d1e2f3a-0000-4000-8000-000000000000".to_owned(),
            pid_namespace: 4_026_531_836,
            time_namespace: 4_026_531_834,
            machine: "0123456789abcdef0123456789abcdef".to_owned(),
            host: String::new(),
        };
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
            assert_eq!(parse(&name), Some(waiter), "{name}");
        }
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
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
