//! The functions under interruption: traps that call them meanwhile, subshells that are killed. In
//! real shells.

use rustix::process::Signal;

use crate::real_shells::shells;
use crate::sandbox::{Sandbox, until};

#[test]
fn a_trap_that_makes_a_checkpoint_does_not_disturb_a_wait() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let mut holder = sandbox.holder("state");
        let script = "trap 'create_checkpoint from-trap' USR1\nlock_state 60; echo \"got $?\"; \
                      holder; unlock_state; holder";
        let mut script = shell.script(&sandbox, script);
        sandbox.await_row("waiting", script.pid());
        script.signal(Signal::USR1);
        holder.go();
        script.until("got 0");
        assert_eq!(script.line(), format!("locked:exclusive:{}", script.pid()), "{shell:?}");
        assert_eq!(script.line(), "unlocked", "{shell:?}");
        script.end().expect(0);
        assert!(sandbox.names(".checkpoints")[0].ends_with("-from-trap"), "{shell:?}");
    }
}

#[test]
fn a_trap_that_locks_the_state_keeps_the_checkpoint_id() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let mut holder = sandbox.holder("state");
        let script = "trap 'lock_state 60; ( lock_state; unlock_state ); unlock_state' USR1\n\
                      create_checkpoint risky; echo \"got $?\"; echo \"$CHECKPOINT_ID\"; holder";
        let mut script = shell.script(&sandbox, script);
        until("it waits", || sandbox.rows().iter().any(|row| row["status"] == "waiting"));
        script.signal(Signal::USR1);
        holder.go();
        script.until("got 0");
        assert_eq!(sandbox.names(".checkpoints"), [script.line()], "{shell:?}");
        assert_eq!(script.line(), "unlocked", "{shell:?}");
        script.end().expect(0);
    }
}

/// The trap runs before each command in the functions.
#[test]
fn a_trap_with_a_retry_does_not_disturb_another_retry() {
    let script = r#"
        eval "$("$PIPELINE_BINARY" shell bash)"
        deploy() {
            tries=$((tries + 1)); echo "deploy $*"; [ "$tries" -lt 9 ] || exit 9; [ "$tries" = 3 ]
        }
        beat() { [ $# = 0 ] || { echo "beat was called with $*"; exit 9; }; return 1; }
        tries=0 inside=''
        set -o functrace
        trap '[ "$inside" ] || {
            inside=1; retry_with_backoff beat 2 0 2>/dev/null || :; inside=; }' DEBUG
        retry_with_backoff deploy 4 0 to production
        echo "ended with $?"
    "#;
    let ran = Sandbox::empty().bash(script).expect(0);
    let deploy = "deploy to production\n";
    assert_eq!(ran.stdout, format!("{deploy}{deploy}{deploy}ended with 0\n"));
    let counted: Vec<&str> =
        ran.stderr.lines().filter_map(|line| line.split(" ended").next()).collect();
    assert_eq!(counted, ["attempt 1 of 4", "attempt 2 of 4"]);
}

#[test]
fn a_failure_in_a_trap_is_reported() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let _holder = sandbox.holder("state,deploy");
        let script = r#"
            fail() { return 5; }
            each() {
                returns 2 acquire_lock deploy 0
                returns 2 lock_state 0
                returns 1 unlock_state
                returns 1 release_lock deploy
                returns 4 create_checkpoint ../evil
                returns 5 retry_with_backoff fail 2 0
                returns 64 retry_with_backoff true 0
                retry_with_backoff true
                echo said
            }
            trap each USR1
            here; kill -USR1 "$me"
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "said\n"), "{shell:?}: {}", ran.stderr);
    }
}

/// It may be killed at any moment, so the count must be the same throughout.
#[test]
fn a_subshell_never_changes_its_scripts_count() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let script = r#"
            lock_state
            cp "$AUDIT_LOG" before
            ( lock_state 0; lock_state 5; ( lock_state 0; unlock_state ); unlock_state
              unlock_state )
            said=$(lock_state; unlock_state; lock_state; unlock_state)
            PIPELINE_FORMAT=json; export PIPELINE_FORMAT
            ( lock_state 0; unlock_state )
            unset PIPELINE_FORMAT
            cmp "$AUDIT_LOG" before
            ( ( lock_state; here; kill -9 "$me" ); : ) 2>/dev/null || :
            cmp "$AUDIT_LOG" before
            unlock_state
            is "$(holder)" unlocked
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}
