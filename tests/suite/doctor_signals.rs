//! `recover doctor` and half-given or half-cleared signals.

use std::fs;

use serde_json::Value;

use crate::doctor::{brief, chmod, findings, in_order};

#[test]
fn staged_signals_of_a_killed_writer_are_found_and_fixed() {
    let root = in_order();
    root.ok("state signal ON");
    root.ok("state signal OFF");
    let staged =
        |number: u32| root.file(format!(".state-backups/.pipeline-state-99-signal-{number}.tmp"));
    let file = |name: &str| root.file(format!(".signals/{name}.json"));
    // ON was given, but its file is an older one; OFF was cleared; GO was not, and GONE never given
    let (given, cleared) = (fs::read(file("ON")).unwrap(), fs::read(file("OFF")).unwrap());
    root.ok("state signal OFF --clear");
    fs::write(file("OFF"), &cleared).unwrap();
    fs::rename(file("ON"), staged(0)).unwrap();
    fs::write(file("ON"), r#"{"signal":"ON","timestamp":1}"#).unwrap();
    [("OFF", "null"), ("GO", "null"), ("GONE", "7")].iter().zip(1..).for_each(
        |((signal, time), number)| {
            fs::write(staged(number), format!(r#"{{"signal":"{signal}","timestamp":{time}}}"#))
                .unwrap();
        },
    );
    for number in 0..4 {
        chmod(staged(number), 0o600);
    }
    for name in ["ON", "OFF"] {
        chmod(file(name), 0o600);
    }
    let before = root.snapshot();
    let found = findings(&root, "recover doctor");
    assert_eq!(found.len(), 4, "{}", brief(&found));
    assert!(found.iter().all(|finding| finding["fix"] == "automatic"), "{}", brief(&found));
    for words in ["state status", "state validate", "state read", "recover status"] {
        root.ok(words);
    }
    assert_eq!(root.snapshot(), before);
    assert_eq!(findings(&root, "recover doctor --fix"), [] as [Value; 0]);
    assert_eq!(root.names(".signals"), ["GO.json", "ON.json"]);
    assert_eq!(fs::read(file("ON")).unwrap(), given);
}

#[test]
fn a_signal_without_its_file_is_found_and_its_remedy_helps() {
    let root = in_order();
    root.ok("state signal ON");
    fs::remove_file(root.file(".signals/ON.json")).unwrap();
    let found = findings(&root, "recover doctor");
    assert_eq!(found.len(), 1, "{}", brief(&found));
    assert_eq!(found[0]["message"], "the state has the signal ON, and .signals/ON.json is missing");
    let remedy = found[0]["remedy"].as_str().unwrap().split("   #").next().unwrap().to_owned();
    root.ok(remedy.strip_prefix("pipeline-state ").unwrap());
    assert_eq!(findings(&root, "recover doctor"), [] as [Value; 0]);
}
