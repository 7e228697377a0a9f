//! `recover doctor` and `recover handle`: findings, fixes, remedies.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::args::recover::Handle;
use super::super::output::Output;
use super::super::style::Paint;
use super::Run;
use crate::cli::open;
use crate::config::Config;
use crate::error::{Error, ExitCode, Hint, one_line};
use crate::name::Name;
#[cfg(feature = "etcd")]
use crate::recovery::doctor::cluster;
use crate::recovery::doctor::{Finding, Fix, Subject, examine, repair};
use crate::recovery::strategy::{self, NextStep};
use crate::store::Store;

pub(super) fn doctor(fix: bool, config: &Config, store: &Store, output: &Output<'_>) -> Run {
    let mut report = match store {
        Store::Files(store) if fix => repair(store),
        Store::Files(store) => examine(store),
        #[cfg(feature = "etcd")]
        Store::Remote(remote) => {
            if fix {
                // A reader heals the document, and finishes a restore.
                let _ = store.read();
            }
            cluster::examine(store, remote, open::try_members(config)?)
        }
    };
    report.add(Subject::Settings, &config.errors);
    if let Some(store) = store.as_files().filter(|_| !report.fixed.is_empty()) {
        let subjects: BTreeSet<&str> =
            report.fixed.iter().map(|finding| finding.subject.name()).collect();
        store
            .logs()
            .record_repairs(&subjects.into_iter().collect::<Vec<_>>(), report.findings.len());
    }
    for warning in report.trials.warnings().into_iter().chain(open::exposure(config)) {
        output.warning(&warning);
    }
    if output.is_json() {
        let show = |finding: &Finding| {
            let remedies: Vec<String> =
                finding.remedies.iter().map(|remedy| output.command(remedy)).collect();
            json!({
                "code": finding.code as u8, "name": finding.code.name(),
                "subject": finding.subject.name(),
                "message": finding.message, "remedy": remedies.first(), "remedies": remedies,
                "fix": finding.fix,
            })
        };
        let all = |findings: &[Finding]| findings.iter().map(show).collect::<Vec<Value>>();
        output.json(&json!({
            "findings": all(&report.findings), "fixed": all(&report.fixed),
            "tests": report.trials.answers, "machine": report.trials.machine(),
        }))?;
    } else {
        for finding in &report.fixed {
            output.bytes(
                format!("{} {}\n", output.paint("fixed:", Paint::Green), describe(finding))
                    .as_bytes(),
            )?;
        }
        for finding in &report.findings {
            let name = output.paint(finding.code.name(), Paint::Red);
            output.bytes(format!("{name} {}\n", describe(finding)).as_bytes())?;
            // A finding that needs a decision has more than one remedy.
            let shown = if finding.fix == Fix::Manual { finding.remedies.len() } else { 1 };
            for remedy in finding.remedies.iter().take(shown) {
                output.line(&format!("hint: {}", output.command(remedy)))?;
            }
        }
        if report.findings.is_empty() {
            output.bytes(
                format!("{}\n", output.paint("No problems found", Paint::Green)).as_bytes(),
            )?;
        }
    }
    let Some(worst) = report.findings.first() else { return Ok(ExitCode::Success as u8) };
    let (count, safe) = (report.findings.len(), report.automatic());
    let message = match count {
        1 => "1 problem found".to_owned(),
        _ => format!("{count} problems found"),
    };
    let mut error = Error::new(worst.kind(), message);
    if output.is_json() {
        error.hints.extend(worst.remedies.first().cloned()); // already shown after the finding
    }
    if !fix && safe > 0 && worst.fix == Fix::Manual {
        error = error
            .hint_command("recover doctor --fix", format!("does what is safe: {safe} of {count}"));
    }
    let error = error.detail("findings", count).detail("safe", safe);
    Err(error.caused_by(RemediesShown).into())
}

/// Findings with their remedies on standard output.
#[derive(Debug, thiserror::Error)]
#[error("there are findings")]
pub(in crate::cli) struct RemediesShown;

fn describe(finding: &Finding) -> String {
    one_line(&format!("{}: {}", finding.subject.name(), finding.message))
}

pub(super) fn handle(
    arguments: &Handle,
    config: &Config,
    store: &Store,
    output: &Output<'_>,
) -> Run {
    let operation =
        arguments.operation.as_deref().map(|name| Name::parse("operation", name)).transpose()?;
    let (code, message) = (arguments.code, arguments.message.as_deref());
    let try_members = || open::try_members(config);
    let handled = strategy::handle(store, code, operation.as_ref(), message, &try_members)?;
    let next: Vec<String> = handled.next.iter().map(|hint: &Hint| output.command(hint)).collect();
    if output.is_json() {
        output.json(&json!({
            "code": arguments.code, "name": handled.name, "done": handled.done, "next": next,
            "try_again": handled.next_step == NextStep::Retry,
        }))?;
    } else {
        for done in &handled.done {
            output.line(&format!("{}: {done}", handled.name))?;
        }
        for next in next {
            output.line(&format!("next: {next}"))?;
        }
    }
    let code =
        if handled.next_step == NextStep::Retry { ExitCode::Success } else { ExitCode::General };
    Ok(code as u8)
}
