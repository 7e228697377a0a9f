//! Help pages: the short one, the whole one, and the pages of the manual.

use std::fs;

use crate::sandbox::Sandbox;

const SHORT_FORMS: [(&str, &str); 8] = [
    ("status", "state status"),
    ("get", "state get"),
    ("set", "state set"),
    ("undo", "state undo"),
    ("history", "state history"),
    ("diff", "state diff"),
    ("watch", "state watch"),
    ("doctor", "recover doctor"),
];

/// The commands that the help of `words` lists.
fn listed(root: &Sandbox, words: &str) -> Vec<String> {
    let help = root.ok(&format!("{words} --help"));
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let list = list.split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn short_help_is_a_commands_own() {
    let root = Sandbox::empty();
    let groups = listed(&root, "");
    assert!(groups.len() >= 7, "{groups:?}");
    let commands = groups.iter().flat_map(|group| {
        let below = listed(&root, group).into_iter().map(move |name| format!("{group} {name}"));
        below.chain([group.clone()])
    });
    for command in commands.chain([String::new()]) {
        let (short, whole) =
            (root.ok(&format!("{command} -h")), root.ok(&format!("{command} --help")));
        for global in ["--lock-timeout <T>", "--audit-log <PATH>"] {
            assert!(!short.contains(global) && whole.contains(global), "{command}: {global}");
        }
        assert!(!short.contains("\nJSON:\n") && short.lines().count() <= 50, "{command}: {short}");
        assert!(short.contains("\nGlobal options: --help."), "{command}: {short}");
        assert!(short.contains("Examples:\n"), "{command} has examples");
    }
}

#[test]
fn every_listed_page_is_printed() {
    let root = Sandbox::empty();
    let list = root.ok("help pages");
    let topics: Vec<&str> =
        list.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(topics.len() >= 10, "{list}");
    let man = root.file("man");
    fs::create_dir(&man).unwrap();
    root.ok("man man");
    for topic in topics {
        let page = root.ok(&format!("help {topic}"));
        assert!(page.lines().count() > 10 && !page.contains('\u{1b}'), "{topic}: {page}");
        assert!(root.ok("--help").contains(&format!("\n  {topic} ")), "{topic} is listed");
        let written = fs::read_to_string(man.join(format!("pipeline-state-{topic}.1"))).unwrap();
        assert!(written.starts_with(".TH \"pipeline"), "{topic}: {written}");
    }
}

#[test]
fn pages_fit_the_terminal() {
    let root = Sandbox::empty();
    for topic in ["locks", "jq", "hooks", "coming-from-lib"] {
        let page = root.ok(&format!("help {topic}"));
        let prose = page.lines().filter(|line| !line.starts_with("    "));
        let long: Vec<&str> = prose.filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "{topic}: {long:?}");
    }
}

#[test]
fn short_forms_are_the_commands_of_their_groups() {
    let root = Sandbox::initialized();
    for (short, whole) in SHORT_FORMS {
        assert_eq!(root.ok(&format!("{short} --help")), root.ok(&format!("{whole} --help")));
        assert_eq!(root.ok(&format!("help {short}")), root.ok(&format!("{whole} --help")));
    }
    root.ok("set phase=build");
    assert_eq!(root.ok("get .phase"), "build");
    assert_eq!(root.run("doctor").code, root.run("recover doctor").code);
    let words = format!("--root {} get .phase", root.path().display());
    assert_eq!(root.ok(&words), "build");
    root.run("get").expect(64).saying("hint: pipeline-state state get --help");
}
