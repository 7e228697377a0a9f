//! The scripts of "Programming Interface", in real shells: as they were printed, alone and in a
//! crowd.

use std::process::{Child, Command};

use crate::real_shells::{BASH_3, DASH, Shell, ZSH, shells};
use crate::sandbox::{Ran, Sandbox, installed};

/// Verbatim from the request for this program.
const STATE_SCRIPT: &str = r##"#!/bin/bash

# Load state management
source "$(dirname "$0")/lib/state-manager.sh"

# Safe state update
if lock_state 30; then
    current_state=$(read_state)
    updated_state=$(echo "$current_state" | jq '.phase = "new-phase"')
    
    if write_state "$updated_state" "phase-transition"; then
        echo "State updated successfully"
    else
        echo "Failed to update state"
    fi
    
    unlock_state
fi
"##;

const RECOVERY_SCRIPT: &str = r##"#!/bin/bash

source "$(dirname "$0")/lib/error-recovery.sh"

# Create checkpoint before risky operation
create_checkpoint "risky-operation" "current-phase"

# Perform operation with retry
if retry_with_backoff "risky_command" 3 2 "arg1" "arg2"; then
    echo "Operation succeeded"
else
    echo "Operation failed, restoring checkpoint"
    restore_checkpoint "$CHECKPOINT_ID"
fi
"##;

/// The script for a shell: the loading line is from the program, and dash gets `printf`, since its
/// `echo` undoes `\n` in JSON.
fn as_in(shell: Shell, script: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in script.lines() {
        lines.push(if line.starts_with("source ") { shell.load() } else { line.to_owned() });
    }
    let text = lines.join("\n") + "\n";
    if shell == DASH {
        text.replace("echo \"$current_state\"", "printf '%s\\n' \"$current_state\"")
    } else {
        text
    }
}

/// Puts `risky_command` on the path of a command.
fn with_risky_command(sandbox: &Sandbox, command: &mut Command, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let bin = sandbox.file("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let risky = bin.join("risky_command");
    if !risky.exists() {
        std::fs::write(&risky, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&risky, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
}

#[test]
fn the_state_script_runs_as_it_was_printed() {
    if !installed("jq") {
        return;
    }
    for shell in shells().chain([BASH_3]) {
        for strict in ["", shell.strict] {
            let sandbox = Sandbox::initialized();
            // the `echo` of zsh would undo this, too
            let note = if shell == ZSH { "plain" } else { "two\nlines and a \\" };
            sandbox.run_args(&["state", "set", &format!("note={note}")]).expect(0);
            let script = format!("{strict}\n{}", as_in(shell, STATE_SCRIPT));
            let ran = Ran::of(shell.command(&sandbox, &script).output().unwrap()).expect(0);
            assert_eq!(ran.stdout, "State updated successfully\n", "{shell:?}: {}", ran.stderr);
            assert_eq!(sandbox.ok("state phase"), "new-phase");
            assert_eq!(sandbox.document()["note"], note);
            assert!(sandbox.shelf("state-").iter().any(|name| name.contains("phase-transition")));
            assert_eq!(sandbox.check("state"), ("unlocked".to_owned(), 1));
        }
    }
}

#[test]
fn the_recovery_script_runs_as_it_was_printed() {
    let fails = "echo \"$# $1 $2\" >>calls; \"$PIPELINE_BINARY\" state phase half-done; exit 5";
    let scripts: Vec<(Shell, &str, Sandbox)> = shells()
        .chain([BASH_3])
        .flat_map(|shell| [(shell, ""), (shell, shell.strict)])
        .map(|(shell, strict)| (shell, strict, Sandbox::initialized()))
        .collect();
    // all at once: a failure is retried after seconds
    let started: Vec<Child> = scripts
        .iter()
        .map(|(shell, strict, sandbox)| {
            let mut command =
                shell.command(sandbox, &format!("{strict}\n{}", as_in(*shell, RECOVERY_SCRIPT)));
            with_risky_command(sandbox, &mut command, fails);
            command.spawn().unwrap()
        })
        .collect();
    for ((shell, _, sandbox), child) in scripts.iter().zip(started) {
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{shell:?}: {}", ran.stderr);
        assert!(
            ran.stdout.ends_with("Operation failed, restoring checkpoint\n"),
            "{shell:?}: {}",
            ran.stdout
        );
        let calls = std::fs::read_to_string(sandbox.file("calls")).unwrap();
        assert_eq!(calls, "2 arg1 arg2\n".repeat(3), "{shell:?}");
        assert!(
            ran.stderr.contains("attempt 2 of 3 ended with 5; the next begins in "),
            "{}",
            ran.stderr
        );
        assert_eq!(sandbox.ok("state phase"), "pre-init", "{shell:?}: it is restored");
        let mut command = shell.command(sandbox, &as_in(*shell, RECOVERY_SCRIPT));
        command.env("PATH", "/usr/bin:/bin").env_remove("PIPELINE_STATE_BIN");
        std::fs::remove_file(sandbox.file("bin/risky_command")).unwrap();
        with_risky_command(sandbox, &mut command, "exit 0");
        let ran = Ran::of(command.output().unwrap()).expect(0);
        assert_eq!(ran.stdout, "Operation succeeded\n", "{shell:?}: {}", ran.stderr);
    }
}

/// Number at once. So many waiters cost a debug build much time; PIPELINE_CROWD asks for more.
fn crowded(size: usize) -> usize {
    std::env::var("PIPELINE_CROWD").map_or(size, |size| size.parse().unwrap())
}

/// Runs a script in all shells in turn, this many at once; each must succeed and print this.
fn crowd(sandbox: &Sandbox, size: usize, script: &dyn Fn(Shell) -> String, said: &str) {
    let shells: Vec<Shell> = shells().collect();
    let start = |shell: &Shell| {
        let mut command = shell.command(sandbox, &format!("{}\n{}", shell.strict, script(*shell)));
        with_risky_command(
            sandbox,
            &mut command,
            "exec \"$PIPELINE_BINARY\" state update '.n = (.n // 0) + 1' -q",
        );
        // no timeout depends on the speed of a hundred others; each prints its blockers
        command.env("LOCK_TIMEOUT", "600").stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<(Shell, Child)> =
        shells.iter().cycle().take(size).map(|shell| (*shell, start(shell))).collect();
    for (shell, child) in children {
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str()), (0, said), "{shell:?}: {}", ran.stderr);
    }
    assert_eq!(sandbox.document()["n"], size, "{shells:?}");
    assert_eq!(sandbox.revision(), 1 + size as u64);
    assert_eq!(sandbox.rows(), Vec::<serde_json::Value>::new());
}

#[test]
fn many_state_scripts_at_once_lose_no_update_and_leave_no_lock() {
    if installed("jq") {
        let script = |shell| {
            as_in(shell, STATE_SCRIPT).replace(".phase = \"new-phase\"", ".n = (.n // 0) + 1")
        };
        let script = |shell| script(shell).replace("lock_state 30", "lock_state 600");
        crowd(&Sandbox::initialized(), crowded(60), &script, "State updated successfully\n");
    }
}

#[test]
fn many_recovery_scripts_at_once_lose_no_update_and_leave_no_lock() {
    let sandbox = Sandbox::initialized();
    crowd(&sandbox, crowded(30), &|shell| as_in(shell, RECOVERY_SCRIPT), "Operation succeeded\n");
    assert_eq!(sandbox.names(".checkpoints").len(), crowded(30));
}
