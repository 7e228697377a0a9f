//! What this user may do on this machine.

use std::process::Command;

/// True if this works here; otherwise prints so in one line.
pub fn is_permitted(program: &str, args: &[&str]) -> bool {
    let ran = Command::new(program).args(args).output();
    let works = ran.is_ok_and(|output| output.status.success());
    if !works {
        assert!(
            std::env::var_os("CI").is_none(),
            "{program} {args:?} does not work, and in CI nothing is skipped"
        );
        eprintln!("{program} {args:?} is not permitted here: the test that needs it is not run");
    }
    works
}
