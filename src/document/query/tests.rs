#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;

use super::*;

const DIGITS: &str = "1635789123.456,9223372036854775808,1e400,1E2,1.0,-0";

fn run(filter: &str) -> Result<String, FilterError> {
    let number = |digits: &str| Number::from_string_unchecked(digits.to_owned());
    let mut doc = json!({"s": "build", "n": 1, "l": [3, 1, 2], "m": {"b": 1, "a": "x y"}});
    // `json!` would rewrite the exponents
    doc["d"] = DIGITS.split(',').map(number).map(Value::Number).collect();
    run_on(&doc, filter)
}

fn run_on(doc: &Value, filter: &str) -> Result<String, FilterError> {
    let vars = ["x", "y"].map(|name| (name.to_owned(), name.into()));
    let mut outputs = Vec::new();
    Filter::compile(filter, &vars)?.run_each(&doc.clone().into(), |value| {
        outputs.push(value.to_string());
        ControlFlow::Continue(())
    })?;
    Ok(outputs.join(" "))
}

fn check(cases: &str) {
    for (filter, expected) in cases.lines().filter_map(|case| case.split_once(" => ")) {
        let output = run(filter.trim()).unwrap_or_else(|error| match error.hint {
            Some(hint) => format!("! {} ({hint})", error.message),
            None => format!("! {error}"),
        });
        assert_eq!(output, expected, "{filter}");
    }
}

#[test]
fn unused_definitions_do_not_change_a_program() {
    let named: BTreeSet<(&str, usize)> =
        definitions().map(|def| (def.name, def.args.len())).collect();
    let natives: Vec<(&str, usize)> = natives().map(|native| (native.0, native.1.len())).collect();
    for native in &natives {
        assert!(!named.contains(native), "a definition has the name of the native {native:?}");
    }
}

#[test]
fn each_definition_compiles_with_those_that_it_names() {
    for part in definitions::parts() {
        for def in syntax::definitions(part) {
            let args = vec!["."; def.args.len()].join("; ");
            let call =
                if args.is_empty() { def.name.to_owned() } else { format!("{}({args})", def.name) };
            let named = definitions::named_in(&call);
            assert!(named.len() < 40, "{call}: {}", named.len());
            assert!(compiled(&call, &["$ENV"], named.into_iter()).is_ok(), "{call}");
        }
    }
}

#[test]
fn usual_idioms_deliver_every_output() {
    let cases = r#"
.l[], empty, (.n = (.n // 0) + 1).n, (.zz = (.zz // 0) + 1).zz => 3 1 2 2 1
.l |= map(select(. > 1)) | .l += [9] | .l => [3,2,9]
.m | to_entries[0], with_entries(.value |= tostring) => {"key":"b","value":1} {"b":"1","a":"x y"}
.s | test("^B"; "i"), [splits("i")], @base64, @sh => true ["bu","ld"] "YnVpbGQ=" "'build'"
[limit(2; .l[])], first(.l[]), getpath(["m","a"]), [.m | paths] => [3,1] 3 "x y" [["b"],["a"]]
(setpath(["m","b"]; 2).m | walk(if . == 2 then 3 end)).b => 3
0 | todate, (now | type), input_line_number => "1970-01-01T00:00:00Z" "number" 0
$x + $y, ($ENV == env), [inputs], (debug | stderr | .n) => "xy" true [] 1
[.l | @tsv, @csv, IN([3,1,2])] => ["3\t1\t2","3,1,2",true]
.m | @csv "\([.a,1,null])" => "\"x y\",1,"
"#;
    check(cases);
}

#[test]
fn digits_are_kept_and_integers_have_no_fraction() {
    check(&format!(".d => [{DIGITS}]"));
    check(".d[1] + 1, 6/2, 7/2, .d[4] + 1 => 9223372036854775809 3 3.5 2");
}

#[test]
fn what_json_cannot_hold_is_refused() {
    let cases = r#"
nan => ! the filter produced NaN, which JSON cannot hold
"+1.5" | fromjson => ! expected value at line 1 column 1 (while parsing "+1.5")
{(1): 2} => ! object keys must be strings: the program does not compile
reduce range(128) as $i (null; [.]) | length => 1
reduce range(129) as $i (null; [.]) => ! the filter produced a value nested more than 128 deep
reduce range(10000) as $i (null; [.]) => ! the filter produced a value nested more than 128 deep
[nan, reduce range(1e4) as $i (1; [.])] => ! the filter produced a value nested more than 128 deep
"#;
    check(cases);
}

#[test]
fn errors_say_what_and_where_in_jqs_words() {
    let cases = r#"
.s.b => ! Cannot index string with string ("b")
{"a": ("x" * 80)} | -. => ! object ({"a":"xxxxxxxxxxxxxxxxxxx...}) cannot be negated
1, error("no such phase"), 2 => ! no such phase
.s.r = 1 => ! Cannot index string with string ("r")
.q | .[] | . == 1 => ! Cannot iterate over null (null)
m.a => ! undefined function "m"/0 at column 1 (did you mean `.m.a`?)
.s | => ! syntax error at column 5: expected term, found the end
halt => ! `halt` cannot end the process here
"bye" | halt_error => ! bye
"#;
    check(cases);
    check(
        "import \"x\" as x; . => ! syntax error at column 1: \
         expected a filter without modules, found `import \"x\" as x; .`",
    );
    let error = run("1 |\n f(2)").unwrap_err().message;
    assert_eq!(error, r#"undefined function "f"/1 at line 2, column 2"#);
}

#[test]
fn programs_compute_what_jq_computes() {
    on_a_stack(|| {
        let mut wrong = Vec::new();
        for case in
            include_str!("cases.tsv").lines().map(|case| case.split('\t').collect::<Vec<_>>())
        {
            let [filter, input, expected, source] = case[..] else { panic!("{case:?}") };
            let output =
                run_on(&input_of(input), filter).unwrap_or_else(|error| format!("! {error}"));
            let values = |text: &str| {
                let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
                values.map(|value| value.map_err(|_| text.to_owned())).collect::<Vec<_>>()
            };
            if values(&output).iter().ne(values(expected).iter()) {
                wrong
                    .push(format!("{input} | {filter}\n  is {output}\n not {expected} ({source})"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// Parses a text as a document, which keeps digits.
fn input_of(text: &str) -> Value {
    crate::document::json::parse(text.as_bytes()).unwrap()
}

fn on_a_stack(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().stack_size(bounds::STACK).spawn_scoped(scope, test);
        thread.unwrap().join().unwrap();
    });
}

/// Runs a program under the watcher of the command line.
fn watched(filter: &str, time: Time) -> Option<Excess> {
    watched_within(bounds::MEMORY, filter, time)
}

fn watched_within(memory: u64, filter: &str, time: Time) -> Option<Excess> {
    let work = || {
        let filter = Filter::compile(filter, &[]).unwrap().within(time);
        let outcome = filter.run_each(&json!({}).into(), |_| ControlFlow::Continue(()));
        outcome.err().and_then(|error| error.excess)
    };
    bounds::watched_within(memory, work, |excess| panic!("left behind: {excess:?}"))
}

#[test]
fn a_program_without_an_end_is_stopped() {
    let moment = Time::from(std::time::Duration::from_millis(100));
    // One after the other: usage is counted per process, and there is only one.
    for program in [
        "def f: 1 + f; f",
        "def f: [f]; f",
        "def f: try f catch f; f",
        "reduce range(infinite) as $i (null; [.]) | 1",
    ] {
        assert_eq!(
            watched(program, std::time::Duration::from_secs(60).into()),
            Some(Excess::Depth),
            "{program}"
        );
    }
    let programs = [
        ("def f: f; f", Excess::Time),
        ("last(repeat(1))", Excess::Time),
        ("last(range(0; infinite))", Excess::Time),
        ("0 | until(false; . + 1)", Excess::Time),
        ("last(0 | while(true; . + 1))", Excess::Time),
        ("[range(300)] | last(.[] as $a | .[] as $b | .[] as $c | .[] as $d | $a)", Excess::Time),
        ("[limit(40; repeat(0, 1))] | last(combinations(20))", Excess::Time),
    ];
    for (program, excess) in programs {
        assert_eq!(watched(program, moment), Some(excess), "{program}");
    }
    let minutes = Time::from(std::time::Duration::from_secs(300));
    assert_eq!(watched_within(32 << 20, "[range(0; infinite)]", minutes), Some(Excess::Memory));
    assert_eq!(
        watched("def f($n): if $n == 0 then 0 else 1 + f($n - 1) end; f(5000)", minutes),
        None
    );
}

#[test]
fn only_plain_programs_are_not_watched() {
    for plain in
        [".", ".n = 7", ".a.b[0] |= . + 1", ".n += 1 | .log = []", "if .a then .b else empty end"]
    {
        assert!(!is_heavy(plain), "{plain}");
    }
    let heavy =
        [".a.b[]", ". * 9", ".. | .", "def f: f; f", "range(9)", ".a |= map(.)", "last(.[])"];
    for heavy in heavy.into_iter().chain(["[.,.] | [.,.] | [.,.] | [.,.] | [.,.] | [.,.]"]) {
        assert!(is_heavy(heavy), "{heavy}");
    }
}

#[test]
fn a_long_loop_of_assignments_ends() {
    let output =
        run("reduce range(20000) as $i (.; .log += [$i] | .m[\"k\\($i)\"] = $i) | .log | length");
    assert_eq!(output.unwrap(), "20000");
}

#[test]
fn a_source_that_would_overflow_the_stack_is_refused() {
    on_a_stack(sources_are_refused_in_time);
}

fn sources_are_refused_in_time() {
    let deep = |open: &str, n: usize, close: &str| open.repeat(n) + "." + &close.repeat(n);
    let shapes = [
        ("(", ")"),
        ("[", "]"),
        ("{a:", "}"),
        ("-", ""),
        ("1+", ""),
        ("1|", ""),
        ("1 as $x|", ""),
        ("try ", ""),
        ("if 1 then ", " end"),
        ("def f: ", "; f"),
        ("\"\\(", ")\""),
        (".a[", "]"),
        ("label $x|", ""),
        ("reduce 1 as $x(0;", ")"),
        ("1,", ""),
        (".a=", ""),
        (".a+=", ""),
        ("1//", ""),
        ("1 and ", ""),
        ("def f: 1; ", ""),
        ("", ".a"),
        ("", "[0]"),
        ("", "?"),
        ("{a:1,b:", "}"),
        ("[", "][0]"),
        (". as [", "] | ."),
        ("limit(1;", ")"),
    ];
    for (open, close) in shapes {
        for n in [10, 190, 400, 3_900, 20_000] {
            let source = deep(open, n, close);
            let outcome = run(&source);
            if n == 20_000 && !matches!(open, "" | "1,") {
                let message = outcome.unwrap_err().message;
                assert!(message.starts_with("the filter "), "{open}: {message}");
            }
        }
    }
}

#[test]
fn long_literals_are_welcome() {
    let numbers = (0..5000).map(|n| format!("-{n}")).collect::<Vec<_>>().join(",");
    assert_eq!(run(&format!("[{numbers}] | length, .[4999]")).unwrap(), "5000 -4999");
    let pairs = (0..3000).map(|n| format!("k{n}: {n}")).collect::<Vec<_>>().join(",");
    assert_eq!(run(&format!("{{{pairs}}} | length, .k7")).unwrap(), "3000 7");
    let text = "line\\n".repeat(3000);
    assert_eq!(run(&format!("\"{text}\" | length")).unwrap(), "15000");
}
