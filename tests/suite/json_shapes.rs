//! JSON output matches its description in `--help`: every named field, with its types, and no
//! other.
//!
//! The shapes are in the help of each command, below `JSON:`, and `docs/json.md` lists them; these
//! tests compare them with real output. A field with `?` may be missing; `|` is "or"; `{[name]: T}`
//! has any names; `TIME` and `OWNER` are as the page defines them; `the same` is the type of the
//! previous field, and "as `GROUP COMMAND`" that of another command.

mod shape;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use self::shape::{Reader, Shape};
use crate::owners::Owner;
use crate::sandbox::{Ran, Sandbox};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json.md");
const PAGE_HEAD: &str = "## What each command prints";

/// The shape of an owner, by the page of the documentation.
fn owner_shape(root: &Sandbox) -> Shape {
    let page = fs::read_to_string(PAGE).unwrap();
    let text = page.split("OWNER is ").nth(1).unwrap().split("```").next().unwrap().to_owned();
    Reader { text: &text, root }.shape(None)
}

/// The help of a command.
#[derive(Debug)]
struct Documented {
    text: String,
    plain: Option<Shape>,
    named: Option<Shape>,
    dry_run: Option<Shape>,
    abort: Option<Shape>,
    waiter: Option<Shape>,
}

#[track_caller]
fn documented(root: &Sandbox, command: &str) -> Documented {
    let help = root.ok(&format!("{command} --help"));
    let (before, text) =
        help.split_once("\nJSON:\n").unwrap_or_else(|| panic!("{command}: what of JSON? {help}"));
    let examples = before.split("Examples:\n").nth(1).unwrap_or_default();
    assert!(
        examples.contains(&format!("pipeline-state {command}")),
        "{command} has no example: {help}"
    );
    let read = |text: &str| {
        let mut reader = Reader { text, root };
        let shape = reader.shape(None);
        let rest = reader.text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(rest.is_empty() || rest.starts_with(", a line for each "), "{command}: {rest:?}");
        shape
    };
    let (text, waiter) = text
        .split_once("with --waiter:")
        .map_or((text, None), |(text, waiter)| (text, Some(read(waiter))));
    let (text, abort) = text
        .split_once("with --abort:")
        .map_or((text, None), |(text, abort)| (text, Some(read(abort))));
    let (now, dry_run) = text
        .split_once("with --dry-run:")
        .map_or((text, None), |(now, dry)| (now, Some(read(dry))));
    let (now, named) = now
        .split_once(", or with NAME:")
        .map_or((now, None), |(now, named)| (now, Some(read(named))));
    let is_words = ["nothing", "the "].iter().any(|word| now.trim_start().starts_with(word));
    Documented {
        text: text.trim().to_owned(),
        plain: (!is_words).then(|| read(now)),
        named,
        dry_run,
        abort,
        waiter,
    }
}

/// The commands of a group, as its help lists them.
fn commands(root: &Sandbox, group: &str) -> Vec<String> {
    let help = root.ok(&format!("{group} --help"));
    assert!(help.contains("Examples:\n"), "{help}");
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| format!("{group} {}", line.split_whitespace().next().unwrap())).collect()
}

/// Runs commands with `--json` and compares their output with their help.
struct Witness<'a> {
    root: &'a Sandbox,
    seen: BTreeSet<String>,
}

impl Witness<'_> {
    /// A command, split at spaces, and the exit codes it may end with.
    #[track_caller]
    fn run(&mut self, words: &str, codes: &[i32]) {
        let ran = self.root.run(&format!("--json {words}"));
        self.check(words, &ran, codes);
    }

    #[track_caller]
    fn check(&mut self, words: &str, ran: &Ran, codes: &[i32]) {
        assert!(codes.contains(&ran.code), "{words}: {ran:?}");
        let named = words.split(' ').take_while(|word| !word.starts_with('-'));
        let command = named.take(2).collect::<Vec<_>>().join(" ");
        let documented = documented(self.root, &command);
        let shape = match &documented {
            Documented { dry_run: Some(shape), .. } if words.ends_with("--dry-run") => Some(shape),
            Documented { abort: Some(shape), .. } if words.ends_with("--abort") => Some(shape),
            Documented { waiter: Some(shape), .. } if words.contains(" --waiter ") => Some(shape),
            Documented { named: Some(shape), .. } if words.split(' ').count() > 2 => Some(shape),
            Documented { plain, .. } => plain.as_ref(),
        };
        match shape {
            Some(shape) => {
                assert!(!ran.stdout.is_empty(), "{words} prints nothing: {}", ran.stderr);
                for line in ran.stdout.lines() {
                    let value = serde_json::from_str(line)
                        .unwrap_or_else(|error| panic!("{words}: {error}: {line}"));
                    shape
                        .check(&value, "")
                        .unwrap_or_else(|error| panic!("{words}: {error}\nin {line}"));
                }
            }
            None if documented.text.starts_with("nothing") => assert_eq!(ran.stdout, "", "{words}"),
            None => assert_eq!(
                ran.stdout,
                self.root.run(words).stdout,
                "{words} is the same without --json"
            ),
        }
        self.seen.insert(command);
    }
}

/// The shapes of all commands, from their help, as the page lists them.
fn listed_shapes(root: &Sandbox) -> String {
    let mut text = format!("{PAGE_HEAD}\n\nThe same text is in each command's `--help`.\n");
    for command in all_commands(root) {
        let help = root.ok(&format!("{command} --help"));
        let shape = help.split("\nJSON:\n").nth(1).unwrap_or_else(|| panic!("{command}: {help}"));
        text.push_str(&format!("\n### {command}\n\n```text\n{}\n```\n", shape.trim_end()));
    }
    text
}

/// `UPDATE_DOCS=1 cargo test --test suite the_page_lists_the_shapes` writes it.
#[test]
fn the_page_lists_the_shapes_of_all_commands() {
    let page = fs::read_to_string(PAGE).unwrap();
    let (before, listed) = page.split_at(page.find(PAGE_HEAD).unwrap());
    let shapes = listed_shapes(&Sandbox::empty());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, format!("{before}{shapes}")).unwrap();
    } else if listed != shapes {
        panic!(
            "docs/json.md is out of date; \
             UPDATE_DOCS=1 cargo test --test suite the_page_lists_the_shapes writes it"
        );
    }
}

/// The program's own field names are snake_case: in every shape, and in the details of errors.
#[test]
fn field_names_are_snake_case() {
    let root = Sandbox::empty();
    let shapes = listed_shapes(&root);
    let names = shapes.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let sources = walkdir::WalkDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let sources: Vec<String> = sources
        .into_iter()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    let details = sources
        .iter()
        .flat_map(|text| text.split(".detail(\"").skip(1))
        .filter_map(|rest| rest.split('"').next());
    let is_camel = |name: &str| {
        name.chars().zip(name.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase())
    };
    let camel: Vec<&str> = names.chain(details).filter(|name| is_camel(name)).collect();
    assert!(camel.is_empty(), "{camel:?}");
}

/// Every command that has a shape.
fn all_commands(root: &Sandbox) -> Vec<String> {
    GROUPS
        .iter()
        .flat_map(|group| commands(root, group))
        .chain(["config", "report"].map(Into::into))
        .collect()
}

const GROUPS: [&str; 4] = ["state", "lock", "recover", "hook"];

#[test]
fn json_output_of_every_command_matches_its_help() {
    let root = Sandbox::empty();
    let mut witness = Witness { root: &root, seen: BTreeSet::new() };
    let owner = Owner::new();
    let me = owner.pid();
    the_state(&mut witness);
    the_locks(&mut witness, me);
    recovery(&mut witness);
    hooks(&mut witness);
    witness.run("config", &[0]);
    witness.run("report -o report.html", &[0]);
    let all: BTreeSet<String> = all_commands(&root).into_iter().collect();
    assert!(all.len() >= 45, "{all:?}");
    assert_eq!(witness.seen, all, "every command is held against its help");
}

fn the_state(witness: &mut Witness<'_>) {
    let root = witness.root;
    // They need a store; `tests/etcd` holds them against their help.
    witness.seen.extend(["state push", "state pull"].map(str::to_owned));
    for words in [
        "state init",
        "state init",
        "state set n:=1",
        "state set n:=1",
        "state update .n=2",
        "state unset none",
        "state undo --dry-run",
        "state undo",
        "state phase build",
    ] {
        witness.run(words, &[0]);
    }
    for words in [
        "state read",
        "state get .",
        "state get .phase",
        "state get .nothing --default x",
        "state phase",
    ] {
        witness.run(words, &[0]);
    }
    for words in [
        "state set n:=7",
        "state update .n=7",
        "state phase late",
        "state complete a",
        "state signal S",
    ] {
        witness.run(&format!("{words} --dry-run"), &[0]);
    }
    for words in
        ["state complete a", "state signal S", "state signal S --clear", "state wait .phase"]
    {
        witness.run(words, &[0]);
    }
    fs::write(
        root.file("new.json"),
        r#"{"phase":"p","completedTasks":[],"signals":{},"lastActivation":""}"#,
    )
    .unwrap();
    fs::write(root.file("bad.json"), r#"{"phase":[1]}"#).unwrap();
    witness.run("state write new.json", &[0]);
    witness.run("state validate", &[0]);
    witness.run("state validate bad.json", &[4]);
    witness.run("state backup mine", &[0]);
    fs::write(root.file(".state-backups/state-20200101-000000-r1-bad.json"), "{").unwrap();
    for words in [
        "state backups",
        "state history",
        "state diff",
        "state diff mine",
        "state recover mine --dry-run",
    ] {
        witness.run(words, &[0]);
    }
    for words in [
        "state recover",
        "state recover --dry-run",
        "state recover mine",
        "state migrate",
        "state migrate --dry-run",
    ] {
        witness.run(words, &[0]);
    }
    let mut edit = root.command();
    let edit = edit
        .env("EDITOR", "true")
        .env_remove("VISUAL")
        .args(["--json", "state", "edit"])
        .output()
        .unwrap();
    witness.check("state edit", &Ran::of(edit), &[0]);
    witness.run("state status", &[0]);
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"p\"", "\"q\""));
    witness.run("state status", &[3]);
    witness.run("recover status", &[0]);
    witness.run("recover doctor", &[3]);
    witness.run("state adopt --dry-run", &[0]);
    witness.run("state adopt", &[0]);
    witness.check("state watch", &first_line(root, "--json state watch"), &[137]);
}

fn the_locks(witness: &mut Witness<'_>, me: u32) {
    let root = witness.root;
    witness.run("lock status", &[0]);
    witness.run("lock check deploy", &[1]);
    witness
        .run(&format!("lock acquire a,b 0 {{\"for\":\"test\"}} --ttl 1h --owner-pid {me}"), &[0]);
    witness.run(&format!("lock acquire c 0 shared --owner-pid {me}"), &[0]);
    root.ok("lock run dead -- true");
    let other = Owner::new();
    let waiting = crate::owners::Waiting::in_queue(root, "a", &other);
    for words in ["lock list", "lock check a", "lock status", "state status"] {
        witness.run(words, &[0]);
    }
    let third = Owner::new();
    let doomed = crate::owners::Waiting::in_queue(root, "a", &third);
    let list = root.run("lock list json").json();
    let is_doomed = |entry: &&Value| entry["owner"]["pid"] == third.pid();
    let id = list.as_array().unwrap().iter().find(is_doomed).unwrap()["waiter"]
        .as_str()
        .unwrap()
        .to_owned();
    witness.check("lock status", &first_line(root, "--json lock status --watch"), &[137]);
    witness.run(&format!("lock renew a --owner-pid {me}"), &[0]);
    witness.run("lock break b --force", &[0]);
    witness.run(&format!("lock break --waiter {id}"), &[0]);
    doomed.ended().expect_json_error("broken");
    witness.run(&format!("lock release a,c --owner-pid {me}"), &[0]);
    waiting.ended().expect(0);
    witness.run("lock run d -- true", &[0]);
    witness.run("lock clean", &[0]);
}

fn recovery(witness: &mut Witness<'_>) {
    let root = witness.root;
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/a"), "a").unwrap();
    std::os::unix::fs::symlink("a", root.file("config/link")).unwrap();
    witness.run("recover checkpoint op early {\"a\":1}", &[0]);
    let id = root.run("recover list --json").json()[0]["id"].as_str().unwrap().to_owned();
    for words in [
        "recover list",
        "recover verify",
        "recover restore --latest op",
        "recover cleanup",
        "recover cleanup --dry-run",
        "recover metrics",
    ] {
        witness.run(words, &[0]);
    }
    for words in [format!("recover show {id}"), format!("recover verify {id}")] {
        witness.run(&words, &[0]);
    }
    root.ok("state set n:=99");
    fs::write(root.file("config/a"), "b").unwrap();
    witness.run("recover restore --latest op --dry-run", &[0]);
    witness.run("recover restore --abort", &[0]);
    for words in
        ["recover guard op -- true", "recover retry -- true", "recover handle 8 --operation fetch"]
    {
        witness.run(words, &[0]);
    }
    witness.run("recover degraded", &[1]);
    witness.run("recover degrade no-mail mail --dry-run", &[0]);
    witness.run("recover degrade no-mail mail", &[0]);
    witness.run("recover degraded mail", &[0]);
    witness.run("recover status", &[0]);
    witness.run("recover recover-mode --dry-run", &[0]);
    witness.run("recover recover-mode", &[0]);
    fs::write(root.file(".checkpoints").join(&id).join("state.json"), "{}").unwrap();
    fs::remove_file(root.file(".checkpoints").join(&id).join("metadata.json")).unwrap();
    witness.run("recover list", &[0]);
    witness.run("recover verify", &[3]);
    witness.run("recover doctor", &[3]);
    witness.run("recover metrics", &[0]);
    witness.run(&format!("recover remove {id}"), &[0]);
}

fn hooks(witness: &mut Witness<'_>) {
    let root = witness.root;
    witness.run("hook init-rules", &[0]);
    witness.run("hook check", &[0]);
    witness.run("hook settings", &[0]);
    witness.run("hook test --tool Write", &[0]);
    witness.run("hook install --dry-run", &[0]);
    witness.run("hook install", &[0]);
    witness.run("hook uninstall", &[0]);
    for event in
        ["hook session-start", "hook skill-activation-prompt", "hook post-tool-use-tracker"]
    {
        let input = br#"{"prompt":"write a spec","tool_name":"Read","tool_input":{}}"#;
        let (with, without) =
            (root.feed(&format!("{event} --json"), input), root.feed(event, input));
        assert_eq!((with.code, &with.stdout), (0, &without.stdout), "{event}");
        assert!(documented(root, event).text.starts_with("the answer to the editor"));
        witness.seen.insert(event.to_owned());
    }
    fs::write(root.file("config/skill-rules.json"), r#"{"tool_rules":[{"tool":1}],"skils":[]}"#)
        .unwrap();
    witness.run("hook check", &[4]);
}

/// The first line of a command that keeps running; the command is killed then.
fn first_line(root: &Sandbox, words: &str) -> Ran {
    let mut child = root.command().args(words.split(' ')).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut stdout).unwrap();
    child.kill().unwrap();
    Ran { stdout, ..Ran::of(child.wait_with_output().unwrap()) }
}

#[test]
fn every_line_of_standard_error_is_json_of_one_kind() {
    let root = Sandbox::with_history();
    let mut holder = root.holder("deploy");
    let retried = root.run("recover retry -n 2 --base-delay 0.001 --json -- false");
    let waited = root.run("lock run deploy --timeout 1 --json -- true");
    root.overwrite("damaged");
    let healed = root.run("state set a=1 --json");
    let field = |line: &str| -> String {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let (name, inner) = value.as_object().and_then(|object| object.iter().next()).unwrap();
        let said = if name == "waiting" { "for" } else { "message" };
        assert!(inner[said].is_string() && value.as_object().unwrap().len() == 1, "{line}");
        name.clone()
    };
    let kinds = |ran: &Ran| ran.stderr.lines().map(field).collect::<Vec<_>>();
    assert_eq!(kinds(&retried).first().map(String::as_str), Some("progress"), "{}", retried.stderr);
    assert_eq!(kinds(&waited), ["waiting", "error"]);
    assert_eq!(kinds(&healed).first().map(String::as_str), Some("warning"), "{}", healed.stderr);
    holder.go();
}

#[test]
fn a_shape_finds_missing_unknown_and_mistyped_fields() {
    let root = Sandbox::empty();
    let shape =
        Reader { text: "{a: number|null, b?: [{c: string}], d: {[x]: boolean}}", root: &root }
            .shape(None);
    let check = |json: &str| {
        shape.check(&serde_json::from_str(json).unwrap(), "").err().unwrap_or_default()
    };
    assert_eq!(check(r#"{"a":null,"d":{}}"#), "");
    assert_eq!(check(r#"{"a":1,"b":[{"c":""}],"d":{"y":true}}"#), "");
    assert_eq!(check(r#"{"a":1}"#), ".d is missing");
    assert_eq!(check(r#"{"a":1,"d":{},"e":1}"#), ".e is not documented");
    assert!(check(r#"{"a":"","d":{}}"#).starts_with(".a is"));
    assert!(check(r#"{"a":1,"b":[{"c":1}],"d":{}}"#).starts_with(".b[0].c is"));
    assert!(check(r#"{"a":1,"d":{"y":1}}"#).starts_with(".d.y is"));
}
