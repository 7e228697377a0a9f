//! Properties of every generated document and path.

use pipeline_state::document::contents::are_same_without_seal;
use pipeline_state::document::diff::diff;
use pipeline_state::document::lazy::LazyDocument;
use pipeline_state::document::new_document::NewDocument;
use pipeline_state::document::path::{DocPath, PathStep};
use pipeline_state::document::query::{Filter, FilterError};
use pipeline_state::document::seal::{Lineage, Revision, seal, to_bytes};
use pipeline_state::document::{Reading, inspect, json as text, migrate, rules};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::corpus::oracles;

// ---- generators ----

/// JSON texts without white space and needless escapes: reading and writing one yields the same
/// text.
fn json() -> impl Strategy<Value = String> {
    let string =
        |pattern: &'static str| pattern.prop_map(|text: String| Value::from(text).to_string());
    let key = prop_oneof![
        4 => string("[a-d]"),
        1 => string("\\PC{0,4}"),
        1 => Just("\"$serde_json::private::Number\"".to_owned()),
    ];
    let leaf = prop_oneof![
        "null|true|false",
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
        string("[\"\\\\a\n\u{7f}é-]{0,5}"),
        string("[0-9a-f]{64}"),
    ];
    leaf.prop_recursive(4, 48, 5, move |inner| {
        let array = vec(inner.clone(), 0..5).prop_map(|values| format!("[{}]", values.join(",")));
        let object = vec((key.clone(), inner), 0..5).prop_map(|pairs| {
            let mut seen = Vec::new();
            let is_new = |(key, _): &(String, String)| {
                !seen.contains(key) && (seen.push(key.clone()), true).1
            };
            let fields = pairs.into_iter().filter(is_new);
            let fields: Vec<String> = fields.map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", fields.join(","))
        });
        prop_oneof![array, object]
    })
}

fn parsed(json: &str) -> Value {
    text::parse(json.as_bytes()).unwrap()
}

pub fn value() -> impl Strategy<Value = Value> {
    json().prop_map(|json| parsed(&json))
}

/// A document like those of old scripts: some of the known fields, of any type.
fn legacy() -> impl Strategy<Value = Value> {
    let version = prop_oneof![
        3 => Just("\"1.0\"".to_owned()),
        1 => "\"0\\.[0-9]\"|\"1\\.[0-9]\"|\"[a-z]{0,3}\"|0\\.9|1|1\\.0|null",
    ];
    let odd = prop_oneof![2 => "null|\"x\"|1\\.50|7", 1 => json()];
    let field = |name: &'static str, good: &'static str, odd: BoxedStrategy<String>| {
        option::weighted(0.8, prop_oneof![3 => Just(good.to_owned()), 1 => odd])
            .prop_map(move |value| value.map(|value| (name.to_owned(), parsed(&value))))
    };
    let odd = || odd.clone().boxed();
    let known = (
        option::of(version.prop_map(|version| ("schemaVersion".to_owned(), parsed(&version)))),
        field("phase", "\"build\"", odd()),
        field("completedTasks", "[\"a\"]", odd()),
        field("signals", "{\"A\":1635789123.456,\"B\":null}", odd()),
        field("lastActivation", "\"\"", odd()),
        field("metadata", "{\"created\":\"2022\",\"own\":[1.0]}", odd()),
        field("degradedMode", "{\"enabled\":false}", odd()),
        field("created", "\"2023\"", odd()),
        field("lastModified", "\"2024\"", odd()),
        field("extra", "{\"b\":1,\"a\":1E5}", odd()),
    );
    known.prop_map(|(a, b, c, d, e, f, g, h, i, j)| {
        Value::Object([a, b, c, d, e, f, g, h, i, j].into_iter().flatten().collect::<Map<_, _>>())
    })
}

/// Documents that mostly have the same fields.
fn document() -> impl Strategy<Value = Value> {
    (legacy(), json()).prop_map(|(mut document, json)| {
        document["of its user"] = parsed(&json);
        document
    })
}

/// The draft that a program makes of a document; the program can use `$new`.
fn made(old: &Value, program: &str, new: &Value) -> Result<NewDocument, FilterError> {
    let filter = Filter::compile(program, &[("new".to_owned(), new.clone())])?;
    let mut drafts = Vec::new();
    let text = LazyDocument::of_text(old.to_string().into()).unwrap();
    filter.make_each(&text, |draft| {
        drafts.push(draft);
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(drafts.remove(0))
}

/// Changes a field outside the skeleton, and keeps its type.
const OTHER_CONTENTS: &str = concat!(
    r#"."of its user" |= if type == "array" then . + [1] "#,
    r#"elif type == "object" then .x = 1 else . end"#
);

/// The result as a value, computed with values.
fn result(old: &Value, program: &str, new: &Value) -> Value {
    let filter = Filter::compile(program, &[("new".to_owned(), new.clone())]).unwrap();
    let mut results = Vec::new();
    let each = |result| {
        results.push(result);
        std::ops::ControlFlow::Continue(())
    };
    filter.run_each(&old.clone().into(), each).unwrap();
    results.remove(0)
}

/// Large enough for the next text to share parts with this one. Some strings have escapes, some
/// numbers odd digits, and some parts are not in canonical form.
fn large() -> Value {
    let rows = (0..4000).map(|n| match n % 1000 {
        7 => r#"{"path":"a\\b","quote":"\"\n","zero":-0,"far":1E400,"long":9223372036854775808}"#
            .to_owned(),
        8 => r#"["",[],{},{"":""},null,true,1.50]"#.to_owned(),
        9 => r#"{"b":1,"a":[{"b":1,"a":2}]}"#.to_owned(),
        n if n < 500 => format!(
            "\"row {n} of a document, with some words in it: {}\"",
            "lorem ipsum ".repeat(5)
        ),
        n => (n * n).to_string(),
    });
    let rows: Vec<String> = rows.collect();
    parsed(&format!(
        "{{\"phase\":\"x\",\"rows\":[{}],\"n\":1,\"metadata\":{{}},\"last\":\"row\"}}",
        rows.join(",")
    ))
}

// ---- documents ----

#[test]
fn shared_text_of_a_large_document_changes_no_output() {
    let old = large();
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
    let compact = old.to_string();
    for program in [
        ".n = 2",
        ".rows[3] = .rows[2]",
        ".rows[2000:2100] |= map({a: ., b: .})",
        ".rows |= reverse",
        ".rows |= map(strings | .[4:] + \"!\")",
        "del(.rows[7].zero, .rows[1009].a[0].b)",
        ".rows |= map(strings | .[4:])",
        ".copy = .rows",
        ".rows[100] = \"a\\\"b\" | .rows[1008] = []",
        "del(.phase)",
    ] {
        let expected = result(&old, program, &Value::Null);
        for text in [pretty(&old), compact.clone()] {
            let filter = Filter::compile(program, &[]).unwrap();
            let body = LazyDocument::of_text(text.into()).unwrap();
            let each = |draft: NewDocument| {
                let text = draft.to_text().unwrap();
                let value = parsed(std::str::from_utf8(&text.whole()).unwrap());
                assert_eq!(value, expected, "{program}");
                assert!(
                    text.are(pretty(&value).as_bytes()),
                    "{program} is written in another form"
                );
                std::ops::ControlFlow::Continue(())
            };
            filter.make_each(&body, each).unwrap();
        }
    }
    let body = LazyDocument::of_text(pretty(&old).into()).unwrap();
    for field in ["phase", "n", "last", "new"] {
        let mut draft = NewDocument::edit(&body, [field]);
        assert!(draft.is_same_as(&body) && draft.to_text().unwrap().are(pretty(&old).as_bytes()));
        draft.root_mut()[field] = "y".into();
        let mut changed = old.clone();
        changed[field] = "y".into();
        assert!(
            !draft.is_same_as(&body) && draft.to_text().unwrap().are(pretty(&changed).as_bytes()),
            "{field}"
        );
        assert!(draft.to_text().unwrap().iter().count() > 1, "nothing was shared");
    }
    let mut draft = NewDocument::edit(&body, ["rows"]);
    assert!(draft.is_same_as(&body) && draft.to_text().unwrap().are(pretty(&old).as_bytes()));
    draft.root_mut()["rows"][1] = "y".into();
    assert!(!draft.is_same_as(&body));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_document_that_is_read_and_written_is_the_same_to_the_digit(json in json()) {
        prop_assert_eq!(parsed(&json).to_string(), json.clone());
        oracles::document::check(json.as_bytes());
    }

    #[test]
    fn any_byte_of_a_sealed_document_that_is_changed_is_noticed(
        json in json(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        marker in any::<[u8; 32]>(),
    ) {
        let document = Value::Object(Map::from_iter([("of its user".to_owned(), parsed(&json))]));
        let (revision, lineage) = (Revision::new(3).unwrap(), Lineage::from_bytes([1; 16]));
        let sealed = seal(document, revision, &lineage, "then", "now", marker).unwrap();
        prop_assert!(matches!(inspect(&sealed.text.whole()), Reading::Sealed(_)));
        let mut changed = sealed.text.whole().to_vec();
        let place = place.index(changed.len());
        changed[place] = byte;
        prop_assert_eq!(matches!(inspect(&changed), Reading::Sealed(_)), sealed.text.are(&changed));
    }

    #[test]
    fn a_migration_is_idempotent_and_loses_nothing(document in legacy()) {
        let Ok(migrated) = migrate::to_current(&document) else { return Ok(()) };
        let again = migrate::to_current(&migrated.value).unwrap();
        if rules::check(&migrated.value).is_empty() {
            prop_assert_eq!(&again.from, &None, "{}", document);
            prop_assert_eq!(again.value.to_string(), migrated.value.to_string());
        }
        // a removed field was null, or a time that moved; a changed one was null, a number for a
        // name, or metadata
        let fields = document.as_object().unwrap();
        for (name, old) in fields.iter().filter(|_| migrated.from.is_some()) {
            let new = migrated.value.get(name);
            let in_metadata = migrated.value["metadata"].get(name);
            let is_kept = new == Some(old);
            let digits = old.is_number().then(|| old.to_string());
            let is_named = digits.is_some() && new.and_then(Value::as_str) == digits.as_deref();
            let may_move = ["created", "lastModified"].contains(&name.as_str());
            let has_moved = may_move && in_metadata == Some(old);
            let may_change = old.is_null() || name == "schemaVersion";
            let holds_all = name == "metadata" && old.as_object().is_some_and(|fields| {
                let mut own = fields.iter().filter(|(name, _)| !name.starts_with("migrated"));
                own.all(|(name, old)| new.unwrap().get(name) == Some(old))
            });
            let is_fine = is_kept || is_named || has_moved || may_change || holds_all;
            prop_assert!(is_fine, "{name} of {document}");
        }
        let has_phase = migrated.value.get("phase").is_some();
        prop_assert_eq!(has_phase, fields.contains_key("phase"), "a phase is never invented");
    }
}

proptest! {
    // fewer, since compiling a program takes time
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn jq_output_is_written_like_any_value_and_compared_correctly(
        old in document(),
        new in document(),
    ) {
        for (program, new) in [
            ("$new", &new),
            (".", &old),
            (".a = .a", &old),
            (OTHER_CONTENTS, &old),
            ("if false then . else $new end", &old),
        ] {
            let draft = made(&old, program, new).unwrap();
            prop_assert_eq!(&draft.to_value(), &result(&old, program, new));
            let whole = serde_json::to_string_pretty(&draft.to_value()).unwrap() + "\n";
            prop_assert_eq!(draft.to_text().unwrap().whole(), whole.as_bytes());
            prop_assert_eq!(to_bytes(&draft.to_value()).unwrap(), whole.as_bytes());
            let text = LazyDocument::of_text(old.to_string().into()).unwrap();
            let is_same = are_same_without_seal(&draft.to_value(), &old);
            prop_assert_eq!(draft.is_same_as(&text), is_same, "{} {}", program, old);
            prop_assert_eq!(rules::check(draft.skeleton()), rules::check(&draft.to_value()));
            prop_assert_eq!(rules::check(text.skeleton()), rules::check(&old));
        }
    }

    #[test]
    fn keys_keep_their_order_and_nothing_else_changes(old in value(), new in value()) {
        let ordered = made(&old, "$new", &new).unwrap().to_value();
        prop_assert_eq!(&ordered, &new);
        let objects = (old.as_object(), ordered.as_object(), new.as_object());
        if let (Some(old), Some(ordered), Some(new)) = objects {
            let of_old = old.keys().filter(|key| new.contains_key(*key));
            let others = new.keys().filter(|key| !old.contains_key(*key));
            prop_assert!(ordered.keys().eq(of_old.chain(others)));
        }
    }
}

// ---- paths ----

/// A path that probably exists in the generated documents.
fn path() -> impl Strategy<Value = DocPath> {
    let key = prop_oneof![4 => "[a-d]", 1 => "\\PC{0,3}"].prop_map(PathStep::Key);
    let index = prop_oneof![4 => -3_i64..4, 1 => any::<i64>()].prop_map(PathStep::Index);
    vec(prop_oneof![3 => key, 2 => index], 1..4).prop_map(DocPath)
}

/// True if one of two paths leads to or through the place of the other.
fn meet(one: &DocPath, other: &DocPath) -> bool {
    one.0.iter().zip(&other.0).all(|(one, other)| one == other)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn set_changes_its_path_and_nothing_else(document in value(), path in path(), new in value()) {
        let mut changed = document.clone();
        match path.set(&mut changed, new.clone()) {
            Ok(()) => {
                prop_assert_eq!(path.get(&changed).unwrap(), Some(&new));
                let is_negative = |step: &PathStep| matches!(step, PathStep::Index(..0));
                let from_the_end = path.0.iter().any(is_negative);
                for change in diff(&document, &changed).iter().filter(|_| !from_the_end) {
                    let place = DocPath::parse_filter(&change.path).unwrap();
                    prop_assert!(meet(&place, &path), "{} is not on the way to {}", place, path);
                }
                let mut again = changed.clone();
                path.set(&mut again, new).unwrap();
                prop_assert_eq!(again.to_string(), changed.to_string());
            }
            Err(_) => prop_assert_eq!(changed.to_string(), document.to_string(), "refused"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn get_and_set_agree_with_jq(document in value(), path in path(), new in value()) {
        let run = |program: &str| {
            let filter = Filter::compile(program, &[("new".to_owned(), new.clone())]).unwrap();
            let mut results = Vec::new();
            filter.run_each(&document.clone().into(), |result| {
                results.push(result);
                std::ops::ControlFlow::Continue(())
            }).map(|()| results.remove(0))
        };
        match (path.get(&document), run(&path.to_string())) {
            (Ok(found), Ok(jqs)) => {
                prop_assert_eq!(found.unwrap_or(&Value::Null).to_string(), jqs.to_string());
            }
            (Err(_), Err(_)) => {}
            // jaq allows a number as an object's index, and jq does not
            (Err(_), Ok(Value::Null)) => {}
            (ours, jqs) => prop_assert!(false, "{path} of {document}: {ours:?}, and jq: {jqs:?}"),
        }
        let mut changed = document.clone();
        match (path.set(&mut changed, new.clone()), run(&format!("{path} = $new"))) {
            (Ok(()), Ok(jqs)) => {
                prop_assert_eq!(&jqs, &changed);
                // a program keeps the order of the document's keys; a set value has its own
                let written = made(&document, &format!("{path} = $new"), &new).unwrap().to_value();
                let in_old_order = made(&document, "$new", &changed).unwrap().to_value();
                prop_assert_eq!(written.to_string(), in_old_order.to_string());
            },
            (Err(_), _) => {} // jq fills arrays up with null
            (Ok(()), Err(error)) => prop_assert!(false, "{path} of {document}: jq refuses: \
                {error}"),
        }
    }
}
