//! The examples of README and docs, run unchanged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::sandbox::{BINARY, Ran, Sandbox, installed};

/// A page: its path in the repository, and its text.
struct Page {
    path: String,
    text: String,
}

/// README and docs.
fn pages() -> Vec<Page> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let docs = docs.map(|name| format!("docs/{}", name.to_str().unwrap()));
    let mut paths: Vec<String> = docs.filter(|path| path.ends_with(".md")).collect();
    paths.sort();
    paths.insert(0, "README.md".into());
    let page = |path: String| Page { text: fs::read_to_string(root.join(&path)).unwrap(), path };
    paths.into_iter().map(page).collect()
}

impl Page {
    /// The blocks of a language, in order.
    fn blocks(&self, language: &str) -> Vec<String> {
        let opening = format!("```{language}\n");
        let after = self.text.split(opening.as_str()).skip(1);
        after.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
    }
}

/// The first script with this text.
#[track_caller]
fn script(with: &str) -> String {
    let mut scripts = pages().into_iter().flat_map(|page| page.blocks("bash"));
    scripts.find(|script| script.contains(with)).unwrap_or_else(|| panic!("no script has {with}"))
}

/// A program in `bin/`, which comes first in the path.
fn program(sandbox: &Sandbox, path: &str, text: &str) {
    let path = sandbox.file(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A root in which the program is called by its name.
fn with_program_on_path(sandbox: &Sandbox, script: &str) -> Ran {
    let bin = sandbox.file("bin");
    fs::create_dir_all(&bin).unwrap();
    if !bin.join("pipeline-state").exists() {
        std::os::unix::fs::symlink(BINARY, bin.join("pipeline-state")).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    Ran::of(sandbox.program("bash").env("PATH", path).arg("-c").arg(script).output().unwrap())
}

/// True if a line matches the README's, where `…` stands for anything.
fn is_shown(shown: &str, line: &str) -> bool {
    let mut rest = line;
    for (place, part) in shown.split('…').enumerate() {
        match rest.find(part) {
            Some(0) => rest = &rest[part.len()..],
            Some(at) if place > 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || shown.ends_with('…')
}

#[test]
fn the_sessions_go_as_they_are_shown() {
    let mut seen = 0;
    for page in pages().into_iter().filter(|page| page.path != "docs/jq.md") {
        for session in page.blocks("console") {
            let sandbox = Sandbox::empty();
            if let Some(rules) = page.blocks("json").iter().find(|text| text.contains("skills")) {
                fs::create_dir(sandbox.file("config")).unwrap();
                fs::write(sandbox.file("config/skill-rules.json"), rules).unwrap();
            }
            let root = format!("{}/", sandbox.path().display());
            let mut steps: Vec<(&str, Vec<&str>)> = Vec::new();
            for line in session.lines() {
                match line.strip_prefix("$ ") {
                    Some(command) => steps.push((command, Vec::new())),
                    None => steps.last_mut().unwrap().1.push(line),
                }
            }
            seen += steps.len();
            for (command, shown) in steps {
                // both streams as a terminal shows them, with paths relative to the root
                let ran = with_program_on_path(&sandbox, &format!("{{ {command}\n}} 2>&1"));
                let printed = ran.stdout.replace(&root, "");
                let printed: Vec<&str> = printed.lines().collect();
                let same = printed.len() == shown.len()
                    && shown.iter().zip(&printed).all(|(shown, line)| is_shown(shown, line));
                let path = &page.path;
                assert!(same, "{path}: {command}\nshown: {shown:#?}\nprinted: {printed:#?}");
            }
        }
    }
    assert!(seen >= 8, "{seen} commands in sessions");
}

/// Each script ends with 0, in a root with a state and with the programs that it names.
#[test]
fn every_script_runs() {
    if !installed("jq") {
        return;
    }
    let mut seen = 0;
    for page in pages() {
        for script in page.blocks("bash") {
            let sandbox = Sandbox::initialized();
            for stub in ["deploy.sh", "step.sh", "bin/risky_command", "bin/make"] {
                program(&sandbox, stub, "#!/bin/sh\nexit 0\n");
            }
            let ran = with_program_on_path(&sandbox, &script);
            assert_eq!(ran.code, 0, "{}: {script}\n{ran:?}", page.path);
            seen += 1;
        }
    }
    assert!(seen >= 12, "{seen} scripts");
}

/// The commands of a pipeline's steps: `run: |` blocks, and lines of `script:`. Steps that load
/// something are left out.
fn steps(yaml: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut lines = yaml.lines().peekable();
    while let Some(line) = lines.next() {
        let depth = |line: &str| line.len() - line.trim_start().len();
        if line.trim() == "run: |" {
            let mut step = String::new();
            while let Some(next) = lines.next_if(|next| depth(next) > depth(line)) {
                step += &format!("{}\n", next.trim());
            }
            steps.push(step);
        } else if let Some(command) = line.trim().strip_prefix("- pipeline-state ") {
            steps.push(format!("pipeline-state {command}\n"));
        } else if let Some(command) = line.trim().strip_prefix("entry: ") {
            steps.push(format!("{command}\n"));
        }
    }
    steps.retain(|step| !step.contains("curl"));
    steps
}

/// In order, in one root for each pipeline, each step in a shell of its own.
#[test]
fn every_step_of_a_pipeline_runs() {
    let mut seen = 0;
    for page in pages() {
        for pipeline in page.blocks("yaml") {
            let sandbox = Sandbox::initialized();
            program(&sandbox, "step.sh", "#!/bin/sh\nexit 0\n");
            for step in steps(&pipeline) {
                let variables = "export GITHUB_OUTPUT=output GITHUB_STEP_SUMMARY=summary";
                let script = format!("{variables}; set -e\n{step}");
                let ran = with_program_on_path(&sandbox, &script);
                assert_eq!(ran.code, 0, "{}: {step}\n{ran:?}", page.path);
                seen += 1;
            }
        }
    }
    assert!(seen >= 7, "{seen} steps");
}

#[test]
fn the_scripts_work_as_documented() {
    if !installed("jq") {
        return;
    }
    let sandbox = Sandbox::initialized();
    let run = |with: &str| with_program_on_path(&sandbox, &script(with));
    assert!(run("completedTasks").expect(0).stdout.contains("State updated: revision 2\n"));
    assert!(run("completedTasks").expect(0).stdout.contains("lint was done before\n"));
    let several = format!("for i in 1 2 3 4; do ( {} ) & done; wait", script("until").trim());
    assert_eq!(
        with_program_on_path(&sandbox, &several).code,
        0,
        "lost races are reported, and repeated"
    );
    assert_eq!(sandbox.ok("state get .count"), "4");
    let locked = run("if ! pipeline-state lock acquire deploy").expect(0).stdout;
    assert!(
        locked.starts_with("Lock acquired: deploy (token ")
            && locked.ends_with("Lock released: deploy\n"),
        "{locked}"
    );
    assert_eq!(sandbox.ok("state phase"), "deploying");
    let fails = "#!/bin/sh\necho attempt\npipeline-state state phase half-done -q\nexit 4\n";
    program(&sandbox, "deploy.sh", fails);
    let recovered = run("recover checkpoint deployment").expect(0).stdout;
    assert_eq!(recovered.matches("attempt\n").count(), 3, "{recovered}");
    assert!(
        recovered.ends_with("-deployment\n") && recovered.contains("Checkpoint restored: "),
        "{recovered}"
    );
    assert_eq!(sandbox.ok("state phase"), "deploying");
    let checked = run("sha256sum").expect(0).stdout;
    let lines: Vec<&str> = checked.lines().collect();
    assert_eq!(lines[0].split(' ').next().unwrap(), lines[1], "{checked}");
}

#[test]
fn every_command_that_is_named_exists() {
    let sandbox = Sandbox::empty();
    for group in ["state", "lock", "recover", "hook"] {
        let help = sandbox.run(&format!("{group} --help")).expect(0).stdout;
        // The tables of the contract leave the group out.
        for page in pages().into_iter().filter(|page| page.path != "docs/contract.md") {
            let prose: String = page.text.split("```").step_by(2).collect();
            for code in prose.split('`').skip(1).step_by(2) {
                let code = code.strip_prefix("pipeline-state ").unwrap_or(code);
                let rest = code.strip_prefix(group).and_then(|rest| rest.strip_prefix(' '));
                let command = rest.and_then(|rest| rest.split([' ', ',', '\n']).next());
                if let Some(command) = command.filter(|command| !command.starts_with('-')) {
                    let is_listed = help.contains(&format!("\n  {command} "));
                    assert!(is_listed, "{}: `{code}` is not a command", page.path);
                }
            }
        }
    }
}

#[test]
fn the_scripts_with_functions_work_as_documented() {
    if !installed("jq") {
        return;
    }
    let sandbox = Sandbox::initialized();
    let ran = with_program_on_path(&sandbox, &script("lock_state 30")).expect(0);
    assert_eq!(ran.stdout, "State updated successfully\n");
    assert_eq!(sandbox.ok("state phase"), "new-phase");
    let text = "#!/bin/sh\n[ \"$1 $2\" = 'arg1 arg2' ] && pipeline-state state phase half-done -q\n\
                exit 4\n";
    program(&sandbox, "bin/risky_command", text); // 4 is final
    let ran = with_program_on_path(&sandbox, &script("create_checkpoint"));
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "Operation failed, restoring checkpoint\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(sandbox.ok("state phase"), "new-phase");
}

#[test]
fn the_hooks_are_set_up_as_it_is_shown() {
    let sandbox = Sandbox::empty();
    let page = pages().into_iter().find(|page| page.path == "docs/hooks.md").unwrap();
    let script = page.blocks("bash").into_iter().find(|block| block.contains("hook init-rules"));
    let printed = with_program_on_path(&sandbox, &script.unwrap()).expect(0).stdout;
    let printed: serde_json::Value =
        serde_json::from_str(&printed[printed.find("{\n").unwrap()..]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&page.blocks("json")[0]).unwrap();
    let called = printed["hooks"]["PostToolUse"][0]["hooks"][0]["command"].as_str().unwrap();
    let program = called.strip_suffix(" hook post-tool-use-tracker").unwrap();
    let printed = printed.to_string().replace(&program.replace('"', "\\\""), "pipeline-state");
    assert_eq!(printed, shown.to_string());
}

#[test]
fn links_lead_to_pages_that_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in pages() {
        let place = root.join(&page.path);
        let targets =
            page.text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap());
        for target in targets.filter(|target| !target.is_empty() && !target.starts_with("http")) {
            assert!(place.parent().unwrap().join(target).exists(), "{}: {target}", page.path);
        }
    }
}

/// README is read whole before anything else.
#[test]
fn the_readme_is_short() {
    let words = pages()[0].text.split_whitespace().count();
    assert!(words <= 1400, "{words} words");
}
