//! The functions that `shell` prints, in unusual scripts.

use crate::real_shells::{BASH, HELPERS, ZSH, shells};
use crate::sandbox::{BINARY, Ran, Sandbox, installed};

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
