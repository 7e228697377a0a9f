//! Contract, §4: documents changed by jq programs.

use crate::sandbox::Sandbox;

#[test]
fn jq_programs_assign_and_delete_as_in_jq() {
    let sandbox = Sandbox::initialized();
    sandbox.ok("state complete a b c d");
    let update = |program: &str| sandbox.run_args(&["state", "update", program]).expect(0);
    update("del(.completedTasks[0,1])");
    assert_eq!(sandbox.ok("state get .completedTasks"), r#"["c","d"]"#);
    update(
        ".metrics.build.time = 3 | .metrics.runs += 1 | .list[2] = \"x\" | \
         .metrics.build |= with_entries(.value += 1)",
    );
    assert_eq!(sandbox.ok("state get .metrics"), r#"{"build":{"time":4},"runs":1}"#);
    assert_eq!(sandbox.ok("state get .list"), r#"[null,null,"x"]"#);
    update(
        "del(.metrics.nothing.here, .list[0,2]) | .completedTasks[.completedTasks | \
         length] = \"e\"",
    );
    assert_eq!(sandbox.ok("state get .list"), "[null]");
    assert_eq!(sandbox.ok("state get .completedTasks[-1]"), "e");
}

#[test]
fn programs_that_jq_refuses_are_refused_and_write_nothing() {
    let sandbox = Sandbox::initialized();
    sandbox.run_args(&["state", "set", "n:=4", "bad:={\"a\":\"\",\"b\":\"1 2\"}"]).expect(0);
    let before = sandbox.snapshot();
    for program in [
        ".a = .b = 3",
        ".bad.a |= tonumber",
        ".bad |= map_values(tonumber)",
        ".y = (\"1 2\" | fromjson)",
    ] {
        sandbox.run_args(&["state", "update", program]).expect(4);
        assert_eq!(sandbox.snapshot(), before, "{program}");
    }
    for (program, result) in [
        ("(.n + 1) as $x | $x * 2", "10"),
        (".n + 1 as $x | $x * 2", "10"), // jq 1.8; 1.6 binds only the last operand
        (". as {n: $n} | -$n", "-4"),
        ("reduce (1, 2) as $x (0; . + $x) | . as $y | $y + 1", "4"),
        ("if .n > 3 then .n as $x | $x else 0 end", "4"),
        ("def f: .n as $x | $x + 1; f * 2", "10"),
        ("[\"7\", 8, \"1.50\"] | map(tonumber) | tojson", "[7,8,1.50]"),
        ("\"[1e400]\" | fromjson", "[1e400]"),
        ("[\"\", \"3\", \"4 5\"] | map(tonumber? // \"bad\") | tojson", "[\"bad\",3,\"bad\"]"),
    ] {
        assert_eq!(
            sandbox.run_args(&["state", "get", program]).expect(0).stdout.trim_end(),
            result,
            "{program}"
        );
    }
}

#[test]
fn a_program_too_long_for_the_stack_is_refused_and_not_died_of() {
    let sandbox = Sandbox::initialized();
    let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let long = format!("{}1", "1+".repeat(30_000));
    for program in [deep, long] {
        sandbox.run_args(&["state", "get", &program]).expect(4);
        sandbox.run_args(&["state", "update", &program]).expect(4);
    }
    let stages: Vec<String> = (0..900).map(|n| format!(".k{n} = {n}")).collect();
    sandbox.run_args(&["state", "update", &stages.join(" | ")]).expect(0);
    assert_eq!(sandbox.ok("state get .k899"), "899");
}
