//! A check of a state on a cluster: the document, its checkpoints, and the members.

use super::{Finding, Report, Subject, severity};
use crate::document::degraded::Degraded;
use crate::error::{Error, ExitCode, Kind, quote};
use crate::recovery::strategy::Member;
use crate::store::Store;
use crate::store::remote::{Condition, OddKey, Oddity, RemoteStore, oddities};
use crate::store::restore::Interrupted;

/// Versions that may lose what they acknowledged, by their beginnings (etcd-io/etcd#13766).
const FAULTY: [&str; 3] = ["3.5.0", "3.5.1", "3.5.2"];

/// Checks everything, and changes nothing. `members` were asked each by itself; `remote` is what
/// `store` is.
pub fn examine(store: &Store, remote: &RemoteStore, members: Vec<Member>) -> Report {
    let mut findings = Vec::new();
    let one_answers = members.iter().any(|member| member.obstacle.is_none());
    for Member { endpoint, obstacle } in members {
        let Some(error) = obstacle else { continue };
        let message = format!("{endpoint} cannot be used: {}", error.message);
        findings.push(Finding::of(Subject::Members, error).saying(message));
    }
    if one_answers {
        match Condition::of(remote) {
            Ok(condition) => findings.extend(of_condition(&condition)),
            // Said of each member already.
            Err(_) if !findings.is_empty() => {}
            Err(error) => findings.push(Finding::of(Subject::Members, error)),
        }
        let mut add = |subject, error: Error| findings.push(Finding::of(subject, error));
        match store.report().status() {
            Ok((_, refusal)) => refusal.into_iter().for_each(|error| add(Subject::State, error)),
            Err(error) => add(Subject::State, error),
        }
        match store.restores().interrupted() {
            Ok(None) => {}
            Ok(Some(Interrupted::Ours(id))) => add(
                Subject::Restore,
                Error::new(Kind::Conflict, format!("a restore of {id} is not finished here"))
                    .hint_command("state read", "finish it, like every command"),
            ),
            Ok(Some(Interrupted::Foreign(error))) | Err(error) => add(Subject::Restore, error),
        }
        for id in store.checkpoints().ids().unwrap_or_default() {
            if let Err(error) = store.checkpoints().verify(&id) {
                add(Subject::Checkpoints, error);
            }
        }
        let guards = store.guards().list().unwrap_or_default();
        findings.extend(guards.iter().filter_map(Finding::of_guard));
        let oddities = oddities(remote).unwrap_or_default();
        findings.extend(oddities.into_iter().map(of_oddity));
        let document = store.report().read_as_it_is().ok().flatten();
        if let Some(mode) = document.map(|it| Degraded::of(&it)).filter(|mode| mode.is_on) {
            let message = format!("degraded mode is on since {}: {}", mode.since, mode.reason);
            findings.push(
                Finding::new(Subject::Degraded, ExitCode::General, message)
                    .hint_command("recover recover-mode", "back to normal"),
            );
        }
    }
    findings.sort_by_key(|finding| severity(finding.code));
    Report { findings, ..Report::default() }
}

fn of_oddity(oddity: Oddity) -> Finding {
    let Oddity { key, of, why } = oddity;
    let subject = match of {
        OddKey::Signal(_) | OddKey::UnknownSignal => Subject::Signals,
        OddKey::Backup => Subject::Backups,
        OddKey::Record => Subject::Logs,
        OddKey::Grant(..) => Subject::Locks,
    };
    let delete = format!("del {}", quote(&key));
    let finding = Finding::new(subject, ExitCode::General, format!("the key {key}: {why}"));
    match of {
        OddKey::Signal(name) => finding
            .hint_command(format!("state signal {name}"), "writes it, and sets the signal to now"),
        OddKey::Grant(lock, token) => finding.hint_command(
            format!("lock break {lock} --token {token}"),
            "if no process relies on it",
        ),
        OddKey::UnknownSignal => finding.hint_etcdctl(delete, "the state is the truth"),
        OddKey::Backup | OddKey::Record => finding.hint_etcdctl(delete, "if it is of no use"),
    }
}

fn of_condition(condition: &Condition) -> Vec<Finding> {
    let mut findings = Vec::new();
    if condition.is_full {
        let message = "the cluster's database is full: it takes no commit".to_owned();
        findings.push(
            Finding::new(Subject::Disk, ExitCode::DiskFull, message)
                .hint_etcdctl("alarm list", "then compact, defragment and disarm it"),
        );
    }
    if condition.is_corrupt {
        let message = "a member has the alarm CORRUPT: its data differs from that of the others";
        findings.push(
            Finding::new(Subject::Members, ExitCode::StateCorruption, message)
                .hint_etcdctl("alarm list", "replace that member"),
        );
    }
    if FAULTY.contains(&condition.version.as_str()) {
        let message = format!(
            "etcd {} may lose what it acknowledged (etcd-io/etcd#13766)",
            condition.version
        );
        findings.push(
            Finding::new(Subject::Members, ExitCode::General, message)
                .hint_etcdctl("endpoint status", "see which members; upgrade them"),
        );
    }
    findings
}
