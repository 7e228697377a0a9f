//! Reads JSON without losing anything.
//!
//! serde_json keeps the order of keys, but accepts duplicate keys in one object silently, and keeps
//! the digits of a number by way of a copy and a private key. This parser takes tokens as they are
//! written ([`lexer`]) and builds the tree itself. Every document is parsed here, into a [`Value`]
//! or whatever a `Make` builds. A few other texts are not: jq's `fromjson`, the quoted keys of a
//! path, and the sealed records of locks. serde_json words the errors of syntax.

pub mod lexer;
mod tree;

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use self::lexer::Lexer;
pub(super) use self::tree::Make;
use super::text::without_mark;

/// The deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 128;

/// The reason why a text is not JSON that can be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Only white space.
    #[error("it is empty")]
    Empty,
    /// Only NUL bytes, as after a power cut in a file with unsynced data.
    #[error("it holds only NUL bytes ({0} of them)")]
    Nuls(usize),
    /// Not UTF-8.
    #[error("it is not UTF-8: byte {0} begins no character")]
    Utf8(usize),
    /// Any other syntax error, with line and column.
    #[error("{0}")]
    Syntax(String),
}

/// Parses one JSON text, refusing duplicate keys in one object and nesting over [`MAX_DEPTH`].
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    make(bytes, tree::Plain::Whole)
}

/// Checks a text as [`parse`] does, and builds only the fields of `whole` at its top. Of the others
/// only the type is right: their arrays, objects and strings are empty.
pub fn skeleton(bytes: &[u8], whole: &'static [&'static str]) -> Result<Value, JsonError> {
    make(bytes, tree::Plain::Top(whole))
}

/// Parses a text into the nodes that `maker` builds.
pub(super) fn make<'t, M: Make<'t>>(bytes: &'t [u8], maker: M) -> Result<M::Node, JsonError> {
    let bytes = without_mark(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(JsonError::Empty);
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(JsonError::Nuls(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::Utf8(error.valid_up_to()))?;
    let mut reader = Reader { lexer: Lexer::new(text) };
    reader.document(maker).map_err(|fault| JsonError::Syntax(reader.explained(text, fault)))
}

/// Returns whether a tree is nested deeper than [`MAX_DEPTH`].
pub fn is_nested_too_deep(value: &Value) -> bool {
    fn exceeds(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(array) => left == 0 || array.iter().any(|value| exceeds(value, left - 1)),
            Value::Object(map) => left == 0 || map.values().any(|value| exceeds(value, left - 1)),
            _ => false,
        }
    }
    exceeds(value, MAX_DEPTH)
}

/// The reason why a text cannot be read, found at the place of the reader.
enum Fault {
    Syntax,
    Depth,
    HalfCharacter,
    Duplicate(String),
}

struct Reader<'t> {
    lexer: Lexer<'t>,
}

impl<'t> Reader<'t> {
    fn document<M: Make<'t>>(&mut self, maker: M) -> Result<M::Node, Fault> {
        let node = self.value(maker, 0)?;
        self.lexer.space();
        if self.lexer.peek().is_some() { Err(Fault::Syntax) } else { Ok(node) }
    }

    fn value<M: Make<'t>>(&mut self, maker: M, depth: usize) -> Result<M::Node, Fault> {
        self.lexer.space();
        match self.lexer.peek() {
            Some(b'"') => Ok(maker.string(self.string()?)),
            Some(b'{') => self.object(maker, depth),
            Some(b'[') => self.array(maker, depth),
            Some(b't') => self.word("true").map(|()| maker.bool(true)),
            Some(b'f') => self.word("false").map(|()| maker.bool(false)),
            Some(b'n') => self.word("null").map(|()| maker.null()),
            _ => self.lexer.number().map(|digits| maker.number(digits)).ok_or(Fault::Syntax),
        }
    }

    fn array<M: Make<'t>>(&mut self, maker: M, depth: usize) -> Result<M::Node, Fault> {
        let inner = maker.inside(None);
        let mut array = Vec::new();
        let mut goes_on = self.opens(b']', depth)?;
        while goes_on {
            let element = self.value(inner, depth + 1)?;
            if maker.keeps_elements() {
                array.push(element);
            }
            goes_on = self.goes_on(b']')?;
        }
        Ok(maker.array(array))
    }

    fn object<M: Make<'t>>(&mut self, maker: M, depth: usize) -> Result<M::Node, Fault> {
        let mut object = M::Object::default();
        let mut goes_on = self.opens(b'}', depth)?;
        while goes_on {
            self.lexer.space();
            let name = self.string()?;
            self.lexer.space();
            self.lexer.eat(b':').ok_or(Fault::Syntax)?;
            let value = self.value(maker.inside(Some(&name)), depth + 1)?;
            maker
                .insert(&mut object, name, value)
                .map_err(|name| Fault::Duplicate(name.into_owned()))?;
            goes_on = self.goes_on(b'}')?;
        }
        Ok(maker.object(object))
    }

    /// Passes a bracket; returns whether anything is in it.
    fn opens(&mut self, close: u8, depth: usize) -> Result<bool, Fault> {
        if depth == MAX_DEPTH {
            return Err(Fault::Depth);
        }
        let open = self.lexer.peek().unwrap_or_default();
        self.lexer.eat(open).ok_or(Fault::Syntax)?;
        self.lexer.space();
        Ok(self.lexer.eat(close).is_none())
    }

    /// Passes a comma, or the closing bracket, after which nothing goes on.
    fn goes_on(&mut self, close: u8) -> Result<bool, Fault> {
        self.lexer.space();
        let comma = self.lexer.eat(b',').map(|()| true);
        comma.or_else(|| self.lexer.eat(close).map(|()| false)).ok_or(Fault::Syntax)
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        self.lexer.word(word).ok_or(Fault::Syntax)
    }

    fn string(&mut self) -> Result<Cow<'t, str>, Fault> {
        self.lexer.string().ok_or(Fault::Syntax)?.text().ok_or(Fault::HalfCharacter)
    }

    /// A fault in words, with its line and column.
    fn explained(&self, text: &str, fault: Fault) -> String {
        let what = match fault {
            Fault::Syntax => match words_of_serde(text) {
                Some(words) => return words,
                None => "it is not valid JSON".to_owned(),
            },
            Fault::Depth => format!("nested deeper than {MAX_DEPTH} levels"),
            Fault::HalfCharacter => "an escape is half a character".to_owned(),
            Fault::Duplicate(name) => format!("the key {name:?} is used twice in one object"),
        };
        let before = text.get(..self.lexer.at()).unwrap_or_default();
        let column = before.len() - before.rfind('\n').map_or(0, |line| line + 1);
        format!("{what} at line {} column {column}", before.matches('\n').count() + 1)
    }
}

/// What serde_json says of the syntax of a text.
fn words_of_serde(text: &str) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    let skipped = IgnoredAny::deserialize(&mut reader).and_then(|_| reader.end());
    skipped.err().map(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_text_is_read_as_serde_json_reads_it(
            text in concat!(
                r#"([\[\]{},: \n]|"a"|"b":|-?(0|1|20)(\.|\.5)?(e\+05?)?|t?false|true|null|"#,
                r#"nul|"(abcdefghijklmno|\\u00e|\\u00e9|\\ud83d|\\n|\\\\|\\"|\\/|\\x|é|"#,
                r#"\t){0,3}"){0,9}"#,
            ),
        ) {
            let theirs: Result<Value, _> = serde_json::from_str(&text);
            match parse(text.as_bytes()) {
                Ok(ours) => prop_assert_eq!(ours, theirs.unwrap()),
                Err(JsonError::Syntax(why)) if why.contains("twice") => {}
                Err(JsonError::Empty) => prop_assert!(text.trim().is_empty()),
                Err(_) => prop_assert!(theirs.is_err()),
            }
        }
    }

    fn error(text: &str) -> String {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(
            skeleton(text.as_bytes(), &["phase"]).unwrap_err(),
            error,
            "the skeleton hides it"
        );
        error.to_string()
    }

    #[test]
    fn an_outline_keeps_the_type_of_other_fields() {
        let text = concat!(
            r#"{"a":[1,{"b":"x"}],"phase":{"b":["x",1E5]},"s":"x","n":1E5,"o":{"b":1},"#,
            r#""z":null,"t":true}"#
        );
        let expected =
            r#"{"a":[],"phase":{"b":["x",1E5]},"s":"","n":1E5,"o":{},"z":null,"t":true}"#;
        assert_eq!(skeleton(text.as_bytes(), &["phase"]).unwrap().to_string(), expected);
    }

    #[test]
    fn digits_and_order_are_kept() {
        let text = concat!(
            r#"{"z":1635789123.456,"a":9223372036854775808,"m":[1e400,1.0,-0,1E+5,0.10],"#,
            r#""1e5":"\"2e3 \\","n":[-0.5E-07,1e+2,7]}"#
        );
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
    }

    #[test]
    fn duplicate_keys_are_found_at_any_depth() {
        assert!(error(r#"{"a":1,"a":2}"#).contains("\"a\" is used twice"));
        assert!(error(r#"{"x":[{"a":1,"b":0,"\u0061":2}]}"#).contains("\"a\" is used twice"));
        let many: String = (0..40).map(|n| format!("\"k{n}\":0,")).collect();
        for twice in [0, 5, 20, 39] {
            assert!(
                error(&format!("{{\"x\":{{{many}\"k{twice}\":1}}}}"))
                    .contains(&format!("\"k{twice}\" is used twice"))
            );
        }
    }

    #[test]
    fn nesting_ends_at_128() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
            parse(nested(128).as_bytes()).unwrap();
            assert!(error(&nested(129)).contains("128 levels"));
            assert!(error(&nested(10_000)).contains("128 levels"));
        }
        let empties = format!("{}{{}}{}", "[".repeat(128), "]".repeat(128));
        assert!(error(&empties).contains("128 levels"));
    }

    #[test]
    fn serdes_private_key_is_an_ordinary_key() {
        for text in [
            r#"{"$serde_json::private::Number":"12"}"#,
            r#"{"a":1,"$serde_json::private::Number":{"b":2}}"#,
            r#"{"$serde_json::private::RawValue":"[]"}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
        }
        let escaped = r#"{"\u0024serde_json::private::Number":"12"}"#;
        assert_eq!(
            parse(escaped.as_bytes()).unwrap().to_string(),
            r#"{"$serde_json::private::Number":"12"}"#
        );
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(parse("\u{feff}{\"a\":1e5}".as_bytes()).unwrap().to_string(), "{\"a\":1e5}");
        assert_eq!(parse("\u{feff}".as_bytes()).unwrap_err(), JsonError::Empty);
    }

    #[test]
    fn invalid_json_has_distinct_errors() {
        assert_eq!(parse(b"").unwrap_err(), JsonError::Empty);
        assert_eq!(parse(b" \n").unwrap_err(), JsonError::Empty);
        assert_eq!(parse(&[0; 4096]).unwrap_err(), JsonError::Nuls(4096));
        assert_eq!(parse(b"{\"a\":\"\xff\"}").unwrap_err(), JsonError::Utf8(6));
        for text in [
            "{\"a\":1",
            "garbage",
            "NaN",
            "[1,]",
            "{} {}",
            "\"\\ud800\"",
            "01",
            "+1",
            "\u{feff}\u{feff}{}",
            "Infinity",
        ] {
            assert!(matches!(parse(text.as_bytes()), Err(JsonError::Syntax(_))), "{text}");
        }
    }
}
