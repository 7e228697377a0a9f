//! The functions that `shell` prints, in real shells.

use crate::real_shells::{BASH_3, shells};
use crate::sandbox::Sandbox;

// ---- every function ----

#[test]
fn every_function_works_like_its_command() {
    for shell in shells().chain([BASH_3]) {
        let sandbox = Sandbox::empty();
        let script = r#"
            returns 1 read_state 2>/dev/null
            init_state_manager
            is "$(read_state)" "$(cat .workflow-state.json)"
            is "$(validate_state)" "State validation: PASSED"
            old=$(read_state)
            write_state "${old%\}*}, \"n\": 1}" "first write"
            is "$(ls .state-backups | grep -c first-write)" 1
            write_state "$(read_state)"
            returns 75 write_state "$old" stale 2>/dev/null
            returns 4 write_state "" 2>/dev/null
            returns 4 write_state '{"phase":' 2>/dev/null
            backup_state keep
            "$PIPELINE_BINARY" state set n:=2 -q
            recover_state keep
            is "$("$PIPELINE_BINARY" state get .n)" 1
            recover_state ""
            migrate_state
            returns 1 recover_state nothing-like-it 2>/dev/null

            acquire_lock build
            here; is "$(check_lock build)" "locked:exclusive:$me"
            returns 1 acquire_lock build 0 2>/dev/null
            release_lock build
            code check_lock build >said
            is "$code $(cat said)" "1 unlocked"
            acquire_lock build 1 shared '{"for":"a test"}'
            is "$(check_lock build)" "locked:shared:$me"
            release_lock build
            returns 1 release_lock build 2>/dev/null
            returns 4 acquire_lock "" 2>/dev/null
            acquire_lock build "" "" ""
            release_lock build

            create_checkpoint deploy phase6 '{"version":"1.2.3"}'
            shown=$("$PIPELINE_BINARY" recover show "$CHECKPOINT_ID" --json)
            is "$(echo "$shown" | grep -c '"phase":"phase6"')" 1
            "$PIPELINE_BINARY" state phase half-done -q
            restore_checkpoint "$CHECKPOINT_ID"
            is "$("$PIPELINE_BINARY" state phase)" pre-init
            before=$CHECKPOINT_ID
            returns 4 create_checkpoint "../evil" 2>/dev/null
            is "$CHECKPOINT_ID" ""
            returns 64 restore_checkpoint "$CHECKPOINT_ID" 2>/dev/null
            PIPELINE_FORMAT=json; export PIPELINE_FORMAT
            create_checkpoint deploy
            "$PIPELINE_BINARY" recover verify "$CHECKPOINT_ID" -q
            [ "$CHECKPOINT_ID" != "$before" ]
            lock_state; here; is "$(holder | grep -c "exclusive:$me\"")" 1; unlock_state
            unset PIPELINE_FORMAT

            "$PIPELINE_BINARY" state phase half-done -q
            restore_checkpoint
            is "$("$PIPELINE_BINARY" state phase)" pre-init

            for PIPELINE_FORMAT in text json; do
              export PIPELINE_FORMAT
              is "$(is_degraded_mode)" false
              enable_degraded_mode database-unavailable '["real-time-updates", "\"disabled\":true"]'
              is "$(is_degraded_mode)" true
              is "$(is_degraded_mode real-time-updates)" true
              is "$(is_degraded_mode mail)" false
              is "$(is_degraded_mode '"disabled":true')" true
              disable_degraded_mode
              is "$(is_degraded_mode)" false
            done
            unset PIPELINE_FORMAT
            PIPELINE_ROOT=/nowhere; export PIPELINE_ROOT
            returns 5 is_degraded_mode >said 2>/dev/null
            is "$(cat said)" ""
            unset PIPELINE_ROOT

            read_state copy
            is "$(cat copy)" "$(read_state)"
            PIPELINE_ROOT=/nowhere; export PIPELINE_ROOT
            returns 5 read_state copy 2>/dev/null
            unset PIPELINE_ROOT
            is "$(cat copy)" "$(read_state)"
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn a_lock_timeout_returns_its_code_to_a_strict_script() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let _holder = sandbox.holder("state,deploy");
        let script = r#"
            if lock_state 0; then echo locked; else echo "not: $?"; fi
            lock_state 0.01 || echo "not: $?"
            acquire_lock deploy 0 || echo "not: $?"
            unlock_state || echo "not unlocked: $?"
            PIPELINE_LOCK_EXIT=75; export PIPELINE_LOCK_EXIT
            lock_state 0 || echo "not: $?"
            lock_state soon || echo "not: $?"
            : | lock_state 0 || echo "not in a pipeline: $?"
            said=$(lock_state 0) || echo "not in a substitution: $?"
            lock_state 0
            echo "a strict script does not come here"
        "#;
        let ran = shell.run(&sandbox, script);
        let wanted = "not: 2\nnot: 2\nnot: 2\nnot unlocked: 1\nnot: 75\nnot: 64\n\
                      not in a pipeline: 75\n\
                      not in a substitution: 75\n";
        assert_eq!((ran.code, ran.stdout.as_str()), (75, wanted), "{shell:?}: {}", ran.stderr);
    }
}

// ---- owners of locks ----

#[test]
fn a_lock_of_the_state_nests_and_is_the_scripts_until_it_unlocks_as_often() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let script = r#"
            inner() { lock_state; write_state "$(read_state)"; unlock_state; }
            lock_state 5
            here; is "$(holder)" "locked:exclusive:$me"
            lock_state
            inner
            unlock_state
            here; is "$(holder)" "locked:exclusive:$me"
            read_state | { inner; cat >/dev/null; }
            unlock_state
            is "$(holder)" unlocked
            returns 1 unlock_state 2>/dev/null
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn a_lock_taken_in_a_subshell_ends_with_it_and_not_before() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let script = r#"
            ( lock_state; here; is "$(holder)" "locked:exclusive:$me"; echo "$me" >inner )
            here; [ "$me" != "$(cat inner)" ]
            is "$(holder)" stale
            lock_state 0
            unlock_state
            ( acquire_lock deploy; here; is "$(check_lock deploy)" "locked:exclusive:$me" )
            acquire_lock deploy 0
            said=$(lock_state; here; is "$(holder)" "locked:exclusive:$me"; echo fine)
            is "$said" fine
            : | ( lock_state; here; is "$(holder)" "locked:exclusive:$me" )
            lock_state 0
            ( acquire_lock last ); ( lock_state ); said=$(acquire_lock last)
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn locks_of_a_script_are_shared_by_its_children() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        std::fs::write(
            sandbox.file("other"),
            format!(
                "{}\n{}lock_state 0; write_state \"$(read_state)\" x; unlock_state",
                shell.strict,
                shell.load()
            ),
        )
        .unwrap();
        let script = format!(
            r#"
            lock_state
            ( lock_state 0; lock_state 0; write_state "$(read_state)"; unlock_state; unlock_state )
            ( ( lock_state 0; ( lock_state 0; unlock_state ); here; kill -9 "$me" )
              : ) 2>/dev/null || :
            said=$(lock_state 0; write_state "$(read_state)"; unlock_state)
            {} other
            here; is "$(holder)" "locked:exclusive:$me"
            unlock_state
            is "$(holder)" unlocked
            lock_state
            read_state | while IFS= read -r line; do
                case $line in *phase*) unlock_state ;; esac
            done
            is "$(holder)" unlocked
            "#,
            shell.program
        );
        let ran = shell.run(&sandbox, &script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn a_background_subshell_that_outlives_the_scripts_lock_takes_its_own() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let script = r#"
            mkfifo go
            lock_state
            ( read -r _ <go; lock_state 5; here; is "$(holder)" "locked:exclusive:$me"
              unlock_state; echo ended ) &
            unlock_state
            echo >go
            wait $!
            is "$(holder)" unlocked
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (0, "ended\n", ""),
            "{shell:?}"
        );
    }
}

#[test]
fn a_script_that_is_killed_leaves_its_locks_to_the_next() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let mut holder = shell.script(
            &sandbox,
            "lock_state; lock_state; acquire_lock deploy; echo held; read -r _; :",
        );
        holder.until("held");
        let next = "here; echo \"$me\"; lock_state 60; acquire_lock deploy 60; echo \"got $?\"; \
                    read -r _; unlock_state; echo released";
        let mut next = shell.script(&sandbox, next);
        let pid: u32 = next.line().parse().unwrap();
        sandbox.await_row("waiting", pid);
        holder.kill();
        next.until("got 0");
        next.go();
        next.until("released");
        next.end().expect(0);
    }
}

#[test]
fn a_trap_at_the_end_unlocks_and_a_failed_script_holds_nothing() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let ran = shell.run(
            &sandbox,
            "trap 'unlock_state; echo unlocked' EXIT\nlock_state\nfalse\necho not here",
        );
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (1, "unlocked\n", ""),
            "{shell:?}"
        );
        assert_eq!(sandbox.check("state").0, "unlocked", "{shell:?}");
    }
}
