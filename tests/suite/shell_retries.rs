//! `retry_with_backoff`, in real shells.

use crate::real_shells::{HELPERS, shells};
use crate::sandbox::{Sandbox, until};
use crate::script::Script;

#[test]
fn a_command_is_retried_up_to_its_limit_unless_it_fails_for_good() {
    for shell in shells() {
        let sandbox = Sandbox::empty();
        let script = r#"
            fail() { echo "$#:$1" >>calls; return "$2"; }
            tries() { rm -f calls; code "$@" 2>said; said=$(grep -c . calls); }
            tries retry_with_backoff fail 3 0 "two words" 5
            is "$code after $said, $(sort -u calls)" "5 after 3, 2:two words"
            is "$(grep -c 'of 3 ended with 5; the next begins in 0.0 s' said)" 2
            for final in 4 6 7 126 127 130 143; do
                tries retry_with_backoff fail 3 0 x "$final"
                is "$code after $said" "$final after 1"
            done
            for other in 1 2 3 5 8 9 10 64 129 255; do
                tries retry_with_backoff fail 2 0 x "$other"
                is "$code after $said" "$other after 2"
            done
            second() { echo x >>calls; [ "$(grep -c . calls)" -gt 1 ]; }
            tries retry_with_backoff second 3 0.001
            is "$code after $said" "0 after 2"
            nested() { echo x >>calls; retry_with_backoff second "$1" 0; return 1; }
            tries retry_with_backoff nested 2 0 2
            is "$code after $said" "1 after 4"
            tries retry_with_backoff fail 1 0 x 5
            is "$code after $said" "5 after 1"
            returns 127 retry_with_backoff no-such-command 3 0 2>/dev/null
            retry_with_backoff true
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn invalid_counts_and_pauses_are_refused_before_the_first_attempt() {
    for shell in shells() {
        let sandbox = Sandbox::empty();
        let script = r#"
            second() { echo x >>calls; }
            for wrong in 0 -1 +2 many 2x '' 4294967296 99999999999999999999; do
                returns 64 retry_with_backoff second "$wrong" 0 2>said
                problem="is not a number of attempts: write one from 1 to 4294967295"
                grep -q "retry_with_backoff: \"$wrong\" $problem" said
            done
            for wrong in -1 soon '' 1x 1parsec; do
                returns 64 retry_with_backoff second 3 "$wrong" 2>said
                problem="is not a duration: write 30, 0.5, 5s or 2m"
                grep -q "retry_with_backoff: \"$wrong\" $problem" said
                grep -q 'hint: .* shell --help' said
            done
            [ ! -e calls ]
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn nested_retries_keep_their_own_exit_codes() {
    for shell in shells() {
        let sandbox = Sandbox::empty();
        let script = r#"
            fail() { return 5; }
            recovers() { echo x >>calls; retry_with_backoff fail 2 0 2>/dev/null || :; }
            retry_with_backoff recovers 3 0
            is "$(grep -c . calls)" 1

            rm calls; here
            trap 'retry_with_backoff fail 3 0 2>/dev/null || :' USR1
            signalled() { echo x >>calls; kill -USR1 "$me"; return 9; }
            returns 9 retry_with_backoff signalled 2 0 2>/dev/null
            is "$(grep -c . calls)" 2
        "#;
        let ran = shell.run(&sandbox, script);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{shell:?}");
    }
}

#[test]
fn an_interrupt_ends_the_pause_between_attempts() {
    for shell in shells() {
        let sandbox = Sandbox::empty();
        let mut command = shell.command(
            &sandbox,
            &format!(
                "{}{HELPERS}here; echo \"$me\"; retry_with_backoff false 3 1h; echo \"ended $?\"",
                shell.load()
            ),
        );
        command.stderr(std::fs::File::create(sandbox.file("said")).unwrap());
        let mut script = Script::of(command);
        let pid = script.line();
        let children =
            || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let said = || std::fs::read_to_string(sandbox.file("said")).unwrap();
        until("it pauses", || {
            said().contains("the next begins in") && !children().trim().is_empty()
        });
        let paused = rustix::process::Pid::from_raw(children().trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(paused, rustix::process::Signal::TERM).unwrap();
        script.until("ended 143");
        script.end().expect(0);
    }
}
