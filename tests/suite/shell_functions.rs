//! The functions that `shell` prints, in real shells.

use crate::real_shells::{BASH, BASH_3, HELPERS, ZSH, shells};
use crate::sandbox::{BINARY, Ran, Sandbox, installed};

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

// ---- unusual scripts ----

#[test]
fn documents_longer_than_an_argument_may_be_are_written() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let script = r#"
            big=0123456789abcdef
            while [ ${#big} -lt 300000 ]; do big=$big$big; done
            lock_state
            old=$(read_state)
            write_state "${old%\}*}, \"big\": \"$big\"}" big
            is "$("$PIPELINE_BINARY" state get .big)" "$big"
            returns 4 write_state "[\"$big\"]" wrong 2>said
            grep -q VALIDATION_FAILED said
            unlock_state
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn a_refusal_before_the_read_has_its_own_code() {
    for shell in shells() {
        let sandbox = Sandbox::empty();
        let big = r#"big=0123456789abcdef; while [ ${#big} -lt 300000 ]; do big=$big$big; done; "#;
        for ignored in ["", "trap '' PIPE; "] {
            let ran = shell.run(
                &sandbox,
                &format!(
                    "{ignored}{big} PIPELINE_AUTO_RECOVER=maybe; \
                export PIPELINE_AUTO_RECOVER; returns 64 write_state \"$big\""
                ),
            );
            assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{shell:?}: {}", ran.stderr);
            assert!(
                ran.stderr.starts_with("error: ") && !ran.stderr.contains("roken pipe"),
                "{shell:?}: {}",
                ran.stderr
            );
        }
    }
}

#[test]
fn odd_separators_options_and_directories_change_nothing() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let options = match shell {
            BASH => "set -o posix -o noglob -o noclobber; shopt -s nullglob failglob",
            ZSH => {
                "setopt sh_word_split ksh_arrays glob_subst no_clobber warn_create_global \
                 err_return"
            }
            _ => "set -f -C",
        };
        let script = format!(
            r#"
            {options}
            IFS=0123456789/
            cd /
            lock_state 5 && write_state "$(read_state)" "a reason with 'quotes' * and $" &&
                unlock_state
            create_checkpoint op && restore_checkpoint "$CHECKPOINT_ID"
            acquire_lock deploy && release_lock deploy
            fail() {{ return 3; }}
            code retry_with_backoff fail 2 0 2>/dev/null; IFS=' '; is "$code" 3
            "#
        );
        let load = format!("eval \"$(\"$PIPELINE_BINARY\" --root . shell {})\"\n", shell.functions);
        let text = format!("{}\n{load}{HELPERS}{script}", shell.strict);
        let ran = Ran::of(shell.command(&sandbox, &text).output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn an_argument_is_never_an_option() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let script = r#"
            for word in --help -h --json -- --latest --version; do
                code lock_state "$word" 2>said; is "$code" 64
                for function in acquire_lock release_lock check_lock \
                    create_checkpoint restore_checkpoint; do
                    code "$function" "$word" 2>said
                    is "$function $word: $code" "$function $word: 4"
                    grep -qe "\"$word\" is not a valid name" said
                done
                is "$CHECKPOINT_ID" ""
                returns 64 acquire_lock deploy "$word" 2>said
                grep -qe "\"$word\" is neither a duration" said
                returns 64 retry_with_backoff true "$word" 0 2>said
                returns 5 validate_state "$word" 2>said
                returns 1 recover_state "$word" 2>said
                returns 4 backup_state "$word" 2>said
                is "$(is_degraded_mode "$word")" false
            done
            returns 64 acquire_lock deploy --no-deadlock-check 2>said
            enable_degraded_mode --help '["-h"]'
            is "$("$PIPELINE_BINARY" state get .degradedMode.reason)" --help
            is "$(is_degraded_mode -h)" true
            acquire_lock deploy; lock_state; release_lock deploy
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn redefined_builtins_of_a_script_change_nothing() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let script = format!(
            r#"
            {}
            read() {{ echo my own read; }}
            printf() {{ echo my own printf; }}
            alias read=false printf=false
            {}
            lock_state
            write_state "$(read_state)"
            ( lock_state 0; unlock_state )
            create_checkpoint op
            code=0; create_checkpoint -h 2>said || code=$?
            [ "$code" = 4 ]
            [ "$("$PIPELINE_BINARY" lock check state)" = "locked:exclusive:$$" ]
            unlock_state
            "#,
            if shell == BASH { "shopt -s expand_aliases" } else { "" },
            shell.load()
        );
        let text = format!("{}\n{script}", shell.strict);
        let ran = Ran::of(shell.command(&sandbox, &text).output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn the_program_is_found_again_whatever_its_path_is_and_can_be_another() {
    let elsewhere = Sandbox::empty();
    let dir = elsewhere.file("it's a \"dir\" $HOME");
    std::fs::create_dir(&dir).unwrap();
    let program = dir.join("pipeline state");
    if std::fs::hard_link(BINARY, &program).is_err() {
        std::fs::copy(BINARY, &program).unwrap();
    }
    for shell in shells() {
        let sandbox = Sandbox::empty();
        let root = sandbox.file("the root's dir");
        std::fs::create_dir(&root).unwrap();
        let text = format!(
            "{}\neval \"$(\"$PROGRAM\" shell {} --root \"$ROOT\" --lock-timeout 250ms --lock-exit \
             7)\"\nPATH=/nowhere\ncd /\n\
             init_state_manager\nlock_state\nread_state >/dev/null\nunlock_state",
            shell.strict, shell.functions
        );
        let mut command = shell.command(&sandbox, &text);
        let ran = Ran::of(command.env("PROGRAM", &program).env("ROOT", &root).output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
        assert!(root.join(".workflow-state.json").exists(), "{shell:?}");

        let other = dir.join("another");
        std::fs::write(&other, "#!/bin/sh\necho \"called with $*\"\n").unwrap();
        std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let text = format!(
            "{}PIPELINE_STATE_BIN=$OTHER read_state; PIPELINE_STATE_BIN=$OTHER; check_lock 'a b'",
            shell.load()
        );
        let ran = Ran::of(shell.command(&sandbox, &text).env("OTHER", &other).output().unwrap())
            .expect(0);
        assert_eq!(
            ran.stdout, "called with state read\ncalled with lock check -- a b\n",
            "{shell:?}"
        );
    }
}

#[test]
fn only_documented_names_are_left_in_a_script() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let names = if shell == ZSH { "typeset +" } else { "set" };
        let script = format!(
            "{names} >before; {}\nlock_state; write_state \"$(read_state)\"; unlock_state; \
             create_checkpoint x; restore_checkpoint \"$CHECKPOINT_ID\"; retry_with_backoff true; \
             acquire_lock x; release_lock x; {names} >after",
            shell.load()
        );
        let ran = Ran::of(shell.command(&sandbox, &script).output().unwrap()).expect(0);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "{shell:?}");
        let variables = |file: &str| -> Vec<String> {
            let text = std::fs::read_to_string(sandbox.file(file)).unwrap();
            let plain = |name: &&str| {
                name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.is_empty()
            };
            let lines = text
                .lines()
                .map_while(|line| if line.ends_with("() ") { None } else { Some(line) });
            let name = |line: &'_ str| {
                line.split('=').next().unwrap().rsplit(' ').next().unwrap().to_owned()
            };
            lines.map(name).filter(|name| plain(&name.as_str())).collect()
        };
        let before = variables("before");
        assert!(before.contains(&"PATH".to_owned()), "{before:?}");
        let shells_own = [
            "sysparams",
            "_",
            "PIPESTATUS",
            "BASH_LINENO",
            "LINENO",
            "RANDOM",
            "SECONDS",
            "OPTIND",
            "pipestatus",
            "BASHPID",
        ];
        let left: Vec<String> = variables("after")
            .into_iter()
            .filter(|name| !before.contains(name) && !shells_own.contains(&name.as_str()))
            .filter(|name| !name.starts_with("_pipeline_"))
            .collect();
        assert_eq!(left, ["CHECKPOINT_ID"], "{shell:?}");
    }
}

#[test]
fn the_functions_are_printed_without_a_state() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "zsh", "sh"] {
        let mut command = sandbox.command();
        command
            .args(["shell", shell])
            .env("LOCK_TIMEOUT", "soon")
            .env("PIPELINE_FORMAT", "json")
            .env("STATE_FILE", "/");
        let ran = Ran::of(command.output().unwrap()).expect(0);
        assert!(ran.stdout.contains("\nlock_state() {"), "{shell}");
    }
    assert!(sandbox.snapshot().is_empty());
    sandbox.run("shell").expect(64);
    sandbox.run("shell powershell").expect(64);
    assert_eq!(
        sandbox
            .bash("$PIPELINE_BINARY shell bash | head -1; exit ${PIPESTATUS[0]}")
            .expect(0)
            .stderr,
        ""
    );
}

#[test]
fn the_process_of_a_subshell_is_found_without_bashpid_proc_and_modules() {
    for shell in shells() {
        let sandbox = Sandbox::initialized();
        let load = format!(
            "unset BASHPID\neval \"$(\"$PIPELINE_BINARY\" shell {} | \
             sed 's,/proc/self/stat,/nowhere,; s,sysparams,nothing,')\"",
            shell.functions
        );
        let script = r#"
            lock_state; here; is "$(holder)" "locked:exclusive:$me"; unlock_state
            ( lock_state; here; is "$(holder)" "locked:exclusive:$me"; [ "$me" != "$$" ]
              unlock_state; : )
            { acquire_lock build; here; is "$(check_lock build)" "locked:exclusive:$me"; } | cat
            is "$(check_lock build || :)" stale
            lock_state; ( lock_state; unlock_state; : )
            is "$(holder)" "locked:exclusive:$$"; unlock_state
        "#;
        let text = format!("{}\n{load}\n{HELPERS}{script}", shell.strict);
        let ran = Ran::of(shell.command(&sandbox, &text).output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn the_functions_for_bash_have_nothing_that_bash_3_lacks() {
    if !installed("shellcheck") {
        return;
    }
    let sandbox = Sandbox::empty();
    let text = sandbox.run("shell bash").expect(0).stdout.replace("shell=bash", "shell=dash");
    std::fs::write(sandbox.file("functions"), text).unwrap();
    // bash 3.2 has all of POSIX, and `local`; BASHPID has a fallback
    let ran = Ran::of(
        sandbox.program("shellcheck").args(["-e", "SC3028", "functions"]).output().unwrap(),
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
}

#[test]
fn shellcheck_has_nothing_to_say() {
    if !installed("shellcheck") {
        return;
    }
    let sandbox = Sandbox::empty();
    for shell in ["bash", "sh", "zsh"] {
        std::fs::write(
            sandbox.file("functions"),
            sandbox.run(&format!("shell {shell}")).expect(0).stdout,
        )
        .unwrap();
        let ran = Ran::of(sandbox.program("shellcheck").arg("functions").output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{shell}");
    }
}
