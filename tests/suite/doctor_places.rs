//! `recover doctor`: other files in places that belong to the program.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::doctor::{brief, findings, in_order};

/// A directory, pipe or link in a file's place is named, even if commands work without the file.
#[test]
fn an_entry_in_a_files_place_is_found_and_its_remedy_works() {
    for place in [
        ".locks/state.lock",
        ".locks/.gate",
        ".locks/.tokens",
        ".state-backups/mirror.json",
        ".signals/A.json",
    ] {
        let links: &[bool] = if place.contains("locks") { &[false, true] } else { &[false] };
        for link in links {
            let root = in_order();
            let path = root.file(place);
            let _ = fs::remove_file(&path);
            if *link {
                symlink("nowhere", &path).unwrap()
            } else {
                fs::create_dir(&path).unwrap()
            };
            if place.contains(".signals") {
                root.run("state signal A").expect(0);
            }
            let found = findings(&root, "recover doctor");
            let finding = &found[0];
            assert_eq!(
                (&finding["subject"], &finding["code"]),
                (&json!("files"), &json!(6)),
                "{}",
                brief(&found)
            );
            assert!(finding["message"].as_str().unwrap().starts_with(place), "{}", brief(&found));
            let remedy =
                finding["remedy"].as_str().unwrap().split("   #").next().unwrap().to_owned();
            assert_eq!(
                root.run("recover doctor --fix --json").code,
                6,
                "that is for a person: {place}"
            );
            root.bash(&remedy).expect(0);
            root.run("state set n=1").expect(0);
            root.run("lock run x -- true").expect(0);
            root.run("recover doctor --fix");
            assert_eq!(root.ok("recover doctor"), "No problems found", "{place}");
        }
    }
    for make in ["mkdir", "mkfifo"] {
        let root = in_order();
        fs::remove_file(root.file(".locks/state.lock")).unwrap();
        root.bash(&format!("{make} .locks/state.lock")).expect(0);
        root.run("state set n=1").expect(6).saying("state.lock");
    }
    // misplaced entries among backups or rules move, too, to where they block nothing
    for make in [
        "mkdir .state-backups/state-20200101-000001-r1-y.json",
        "mkfifo config/skill-rules.json",
        "rm .error-recovery.log; mkdir .error-recovery.log",
    ] {
        let root = in_order();
        root.bash(make);
        let found = findings(&root, "recover doctor");
        let remedies = found.iter().flat_map(|finding| finding["remedies"].as_array().unwrap());
        let mut away = remedies
            .filter_map(|remedy| remedy.as_str())
            .filter(|remedy| !remedy.starts_with("ls "));
        let remedy = away.next().unwrap().replace("rm -i", "rm");
        root.bash(&remedy).expect(0);
        assert_eq!(root.ok("recover doctor"), "No problems found", "{make}: {remedy}");
    }
}
