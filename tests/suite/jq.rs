//! jq programs on the command line: their inputs, their limits, and a comparison with jq.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::process::Command;

use pipeline_state::document::query::{Filter, bounds};
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, installed};

const ENDLESS: &str = "def f: f; f";

#[test]
fn get_wait_and_watch_take_the_arguments_of_jq() {
    let root = Sandbox::initialized();
    root.ok("state set who=me");
    assert_eq!(root.ok("state get $a+.who --arg a x"), "xme");
    assert_eq!(root.ok("state get -c [$a,.who] --argjson a {\"b\":1}"), r#"[{"b":1},"me"]"#);
    assert_eq!(root.ok("state get -r --json .who"), "me");
    root.ok("state wait .who==$a --arg a me -r -c --timeout 1");
    root.run("state get .who --arg 1 x").expect(4);
    root.run("state get $a").expect(4);
}

#[test]
fn a_filter_that_takes_too_long_ends_with_9_and_leaves_the_lock_free() {
    let root = Sandbox::with_history();
    let before = fs::read(root.state()).unwrap();
    for command in ["update", "get", "wait", "watch"] {
        let ran = root.run_args(&["state", command, ENDLESS, "--filter-timeout", "0.1s"]).expect(9);
        assert!(ran.stderr.contains("ran out of time"), "{command}: {}", ran.stderr);
        assert_eq!(fs::read(root.state()).unwrap(), before, "{command}");
        root.ok("state validate");
    }
    root.ok("state set n:=9 --lock-timeout 1"); // nothing holds the lock
}

#[test]
fn a_filter_that_needs_too_much_ends_with_4_and_leaves_the_lock_free() {
    let root = Sandbox::with_history();
    let before = fs::read(root.state()).unwrap();
    for filter in
        ["def f: 1 + f; f", "reduce range(99) as $i (\"x\" * 9999; . + .)", "\"x\" * 1e12"]
    {
        for command in ["update", "get", "wait", "watch"] {
            root.run_args(&["state", command, filter]).expect(4);
            assert_eq!(fs::read(root.state()).unwrap(), before, "{command} {filter}");
        }
    }
    root.ok("state set n:=9 --lock-timeout 1");
}

#[test]
fn the_examples_of_the_documentation_are_true() {
    const DOCS: &str = include_str!("../../docs/jq.md");
    let block = DOCS.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let root = Sandbox::initialized();
    let mut examples: Vec<(&str, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ pipeline-state ") {
            Some(command) => examples.push((command, String::new())),
            None => writeln!(examples.last_mut().unwrap().1, "{line}").unwrap(),
        }
    }
    assert!(examples.len() > 4);
    for (command, shown) in examples {
        let line = format!("{} {command} 2>&1", crate::sandbox::BINARY);
        let output =
            Command::new("sh").args(["-c", &line]).current_dir(root.path()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.starts_with(&shown), "{command}\nshown: {shown}\ntold: {told}");
    }
}

/// Small pseudo-random numbers, the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n).unwrap()
    }

    fn of<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.below(list.len() as u64)]
    }

    fn path(&mut self) -> String {
        const STEPS: [&str; 14] = [
            ".a", ".b", ".obj", ".l", ".l[0]", ".l[-1]", ".l[1:]", ".l[:-1]", ".l[]", ".obj[]",
            ".obj.x", ".new.k", ".l[5]", ".[\"a\"]",
        ];
        match self.below(9) {
            0 => format!("({}, {})", self.of(&STEPS), self.of(&STEPS)),
            1 => format!("({} // {})", self.of(&STEPS), self.of(&STEPS)),
            2 => format!("(.l[] | select(. {} 2))", self.of(&[">", "<", "==", "!="])),
            3 => format!("first({})", self.of(&[".l[]", ".obj[]", ".a", "empty"])),
            4 => format!(
                "(.. | select(type == \"{}\"))",
                self.of(&["number", "string", "null", "boolean"])
            ),
            5 => format!("{}?", self.of(&[".l.a", ".a[]", ".obj[0]", ".l[0].x"])),
            6 => format!(
                "getpath([\"{}\", \"{}\"])",
                self.of(&["a", "obj", "n"]),
                self.of(&["x", "y"])
            ),
            _ => self.of(&STEPS).to_owned(),
        }
    }

    fn value(&mut self) -> &'static str {
        self.of(&[
            "1",
            "\"s\"",
            "null",
            "[9]",
            "{\"z\":1}",
            ".a",
            "(1, 2)",
            ".l",
            "(.a // 3)",
            "empty",
        ])
    }

    fn program(&mut self) -> String {
        let path = self.path();
        match self.below(8) {
            0 => format!("{path} = {}", self.value()),
            1 => format!(
                "{path} |= {}",
                self.of(&["1", ".", "empty", "[.]", "tostring", "(1, 2)", "type"])
            ),
            2 => format!("{path} {} {}", self.of(&["+=", "-=", "*=", "//=", "%="]), self.value()),
            3 => format!("del({path})"),
            4 => format!("[path({path})]"),
            5 => format!("delpaths([path({path}), path({})])", self.path()),
            6 => format!("{path} = {} | del({})", self.value(), self.path()),
            _ => format!("[paths({})]", self.of(&["type == \"number\"", ". == 1", "true"])),
        }
    }
}

/// A deliberate difference: before 1.7 an update to nothing left every other element. Four of these
/// programs.
fn is_known(program: &str) -> bool {
    program.contains("|= empty")
}

#[test]
fn random_assignments_deletions_and_paths_are_those_of_jq() {
    if !installed("jq") {
        return;
    }
    let documents = [
        json!({"a": 1, "b": null, "obj": {"x": 1, "y": false}, "l": [1, 2, 3]}),
        json!({"a": "s", "b": [1], "obj": {"x": null}, "l": [null, 3, {"x": 2}, false]}),
        json!({"a": {"x": 1}, "obj": {}, "l": []}),
    ];
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let programs: Vec<(usize, String)> =
        (0..1500).map(|n| (n % documents.len(), chance.program())).collect();
    let outcomes = std::thread::scope(|scope| {
        let ours = || {
            programs.iter().map(|(of, program)| ours(&documents[*of], program)).collect::<Vec<_>>()
        };
        let thread =
            std::thread::Builder::new().stack_size(bounds::STACK).spawn_scoped(scope, ours);
        thread.unwrap().join().unwrap()
    });
    let mut theirs = BTreeMap::new();
    for (of, document) in documents.iter().enumerate() {
        let here: Vec<(usize, &String)> = programs
            .iter()
            .enumerate()
            .filter(|(_, p)| p.0 == of)
            .map(|(n, p)| (n, &p.1))
            .collect();
        for part in here.chunks(50) {
            let each = part.iter().map(|(_, program)| format!("[try ({program}) catch \"!\"]"));
            let whole = format!("[{}]", each.collect::<Vec<_>>().join(", "));
            let input = document.to_string();
            let filter = format!("$d | {whole}");
            let output = Command::new("jq")
                .args(["-nc", "--argjson", "d", &input, &filter])
                .output()
                .unwrap();
            let list: Vec<Value> = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|_| panic!("{whole}: {}", String::from_utf8_lossy(&output.stderr)));
            theirs.extend(part.iter().map(|(n, _)| *n).zip(list));
        }
    }
    let mut differences = Vec::new();
    for (n, (of, program)) in programs.iter().enumerate() {
        let (ours, theirs) = (outcomes[n].to_string(), theirs[&n].to_string());
        if !alike(&outcomes[n], &serde_json::from_str(&theirs).unwrap()) && !is_known(program) {
            differences
                .push(format!("{} | {program}\n  jq   {theirs}\n  ours {ours}", documents[*of]));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// All outputs of a program; the last is "!" if it fails.
fn ours(document: &Value, program: &str) -> Value {
    let mut outputs = Vec::new();
    let program = format!("try ({program}) catch \"!\"");
    let filter =
        Filter::compile(&program, &[]).unwrap_or_else(|error| panic!("{program}: {error}"));
    filter
        .run_each(&document.clone().into(), |output| {
            outputs.push(output);
            ControlFlow::Continue(())
        })
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    outputs.into()
}

/// True if two values are equal as JSON, where `1` and `1.0` are one number.
fn alike(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(ours), Value::Number(theirs)) => ours.as_f64() == theirs.as_f64(),
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(ours, theirs)| alike(ours, theirs))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            let same = |(key, ours): (&String, &Value)| {
                theirs.get(key).is_some_and(|theirs| alike(ours, theirs))
            };
            ours.len() == theirs.len() && ours.iter().all(same)
        }
        _ => ours == theirs,
    }
}

/// A case of jq's own suites.
struct Case {
    place: String,
    program: String,
    /// `None` if the program must not compile.
    input: Option<String>,
    outputs: Vec<String>,
}

fn cases(name: &str, text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')).peekable();
    while let Some((at, line)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let fails = line.starts_with("%%FAIL");
        let (at, program) = if fails { lines.next().unwrap_or((at, "")) } else { (at, line) };
        let input = if fails { None } else { lines.next().map(|(_, line)| line.to_owned()) };
        let outputs = std::iter::from_fn(|| {
            lines.next_if(|(_, line)| !line.is_empty()).map(|(_, line)| line.to_owned())
        });
        let outputs = outputs.collect();
        cases.push(Case {
            place: format!("{name}:{}", at + 1),
            program: program.to_owned(),
            input,
            outputs,
        });
    }
    cases
}

/// True if a case passes on the command line; exit codes follow the table.
fn passes(root: &Sandbox, case: &Case) -> Result<(), String> {
    let run = |program: &str| {
        let input = case.input.as_deref().unwrap_or("null");
        let is_json = pipeline_state::document::json::parse(input.as_bytes()).is_ok();
        let (option, before) =
            if is_json { ("--argjson", "$in") } else { ("--arg", "$in | fromjson") };
        let filter = format!("{before} | ({program}\n)");
        let ran = root.run_args(&["state", "get", "--json", &filter, option, "in", input]);
        assert!(
            [0, 1, 4, 9, 64].contains(&ran.code),
            "{}: {} ends with {}",
            case.place,
            case.program,
            ran.code
        );
        ran
    };
    let values = |text: &str| {
        text.lines().map(|line| serde_json::from_str(line).ok()).collect::<Vec<Option<Value>>>()
    };
    let expected = values(&case.outputs.join("\n"));
    let is_right = |told: &str| {
        let told = values(told);
        told.len() == expected.len()
            && told
                .iter()
                .zip(&expected)
                .all(|pair| matches!(pair, (Some(ours), Some(theirs)) if alike(ours, theirs)))
    };
    let ran = run(&case.program);
    let right = match (&case.input, ran.code) {
        (None, code) => code == 4 && !ran.stderr.contains("(not a string)"),
        // only nulls means the answer no; a late failure keeps earlier outputs
        (Some(_), 1) => {
            let list = run(&format!("[{}\n]", case.program)).stdout;
            let list: Vec<Value> = serde_json::from_str(&list).unwrap_or_default();
            is_right(&list.iter().map(|value| format!("{value}\n")).collect::<String>())
        }
        (Some(_), 4) => is_right(&run(&format!("try ({}\n) catch empty", case.program)).stdout),
        (Some(_), _) => is_right(&ran.stdout),
    };
    if right {
        Ok(())
    } else {
        Err(format!("{} {}{}", case.place, ran.stdout.trim(), ran.stderr.trim()))
    }
}

/// Run by `tests/jq-suites.sh DIR`.
#[test]
fn the_suites_of_jq() {
    let Some(directory) = std::env::var_os("JQ_SUITES") else {
        eprintln!(
            "JQ_SUITES names no directory: jq's own suites, no part of this project, are not run"
        );
        return;
    };
    let mut files: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "test"));
    files.sort();
    let root = Sandbox::initialized();
    let (mut count, mut failed) = (0, Vec::new());
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        for case in cases(&name, &String::from_utf8_lossy(&fs::read(&file).unwrap())) {
            count += 1;
            failed.extend(
                passes(&root, &case).err().map(|told| format!("{}\n    {told}", case.program)),
            );
        }
    }
    println!("{}\n{} of {count} pass", failed.join("\n"), count - failed.len());
    assert!(failed.len() * 20 <= count, "fewer than 95 of a hundred");
}
