//! Reads JSON without losing anything.
//!
//! serde_json keeps the order of keys and the digits of numbers, but accepts duplicate keys in one
//! object silently, and its method of keeping digits misreads an object with its private token as
//! the only key. This parser builds the tree itself to detect both. Every document is parsed here,
//! into a [`Value`] or whatever a `Make` builds. A few other texts are not: jq's `fromjson`, the
//! quoted keys of a path, and the sealed records of locks.

mod tree;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

pub(super) use self::tree::Make;
use super::text::without_mark;

/// The deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 128;

/// The key under which serde_json passes a number's text to a visitor (its `arbitrary_precision`
/// feature).
const NUMBER_TOKEN: &str = "$serde_json::private::Number";

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
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit(); // MAX_DEPTH is exact: serde_json's limit is one less
    let source = Source::new(text);
    let seed = Tree { depth: 0, source: &source, maker };
    let value = seed
        .deserialize(&mut deserializer)
        .map_err(|error| JsonError::Syntax(error.to_string()))?;
    deserializer.end().map_err(|error| JsonError::Syntax(error.to_string()))?;
    Ok(value)
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

/// The text that is parsed, and the state that the visitors share.
struct Source<'a> {
    text: &'a str,
    number_follows: Cell<bool>,
    exponents: OnceCell<RefCell<std::vec::IntoIter<&'a str>>>,
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, number_follows: Cell::new(false), exponents: OnceCell::new() }
    }

    /// A number as written in the text. serde_json keeps all digits but writes `1E5` as `1e+5`, so
    /// numbers with an exponent are looked up in the text, where they occur in the same order.
    fn number(&self, digits: String) -> Cow<'a, str> {
        let original = digits.contains('e').then(|| {
            let exponents = self
                .exponents
                .get_or_init(|| RefCell::new(numbers_with_exponent(self.text).into_iter()));
            exponents.borrow_mut().next()
        });
        original.flatten().map_or(Cow::Owned(digits), Cow::Borrowed)
    }
}

/// The numbers with an exponent in a JSON text, in order.
fn numbers_with_exponent(text: &str) -> Vec<&str> {
    let mut numbers = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        let (_, token) = rest.split_at(at);
        let length = if token.starts_with('"') {
            let mut escaped = false;
            let end = token.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map_or(token.len(), |(end, _)| end + 1)
        } else {
            let length = token
                .find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c))
                .unwrap_or(token.len());
            let (number, _) = token.split_at(length);
            if number.contains(['e', 'E']) {
                numbers.push(number);
            }
            length
        };
        (_, rest) = token.split_at(length);
    }
    numbers
}

#[derive(Clone, Copy)]
struct Tree<'a, M> {
    depth: usize,
    source: &'a Source<'a>,
    maker: M,
}

impl<'t, M: Make<'t>> Tree<'_, M> {
    /// The builder for values in an array, or under a key of an object.
    fn inner<E: de::Error>(self, key: Option<&str>) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1, maker: self.maker.inside(key), ..self })
    }
}

impl<'de, M: Make<'de>> DeserializeSeed<'de> for Tree<'_, M> {
    type Value = M::Node;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<M::Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, M: Make<'de>> Visitor<'de> for Tree<'_, M> {
    type Value = M::Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<M::Node, E> {
        Ok(self.maker.null())
    }

    fn visit_bool<E>(self, value: bool) -> Result<M::Node, E> {
        Ok(self.maker.bool(value))
    }

    // Integers that fit arrive as such; any other number as its text, see `visit_map`.
    fn visit_u64<E>(self, value: u64) -> Result<M::Node, E> {
        Ok(self.maker.unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<M::Node, E> {
        Ok(self.maker.signed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<M::Node, E> {
        Ok(self.maker.string(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<M::Node, E> {
        Ok(self.maker.string(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<M::Node, A::Error> {
        let inner = self.inner(None)?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            if self.maker.keeps_elements() {
                array.push(element);
            }
        }
        Ok(self.maker.array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<M::Node, A::Error> {
        let mut object = M::Object::default();
        let key = Key { source: self.source };
        while let Some(name) = entries.next_key_seed(key)? {
            if self.source.number_follows.take() {
                return Ok(self.maker.number(&self.source.number(entries.next_value()?)));
            }
            let value = entries.next_value_seed(self.inner(Some(&name))?)?;
            self.maker.insert(&mut object, name, value).map_err(|name| {
                de::Error::custom(format_args!("the key {name:?} is used twice in one object"))
            })?;
        }
        self.inner::<A::Error>(None)?; // an empty object is a level, too
        Ok(self.maker.object(object))
    }
}

#[derive(Clone, Copy)]
struct Key<'a> {
    source: &'a Source<'a>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned())) // a key with escapes, so it comes from the document
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        // The token that announces a number is a constant of serde_json; the same text as a
        // document's key lies within the text that is parsed.
        let own = self.source.text.as_bytes().as_ptr_range().contains(&key.as_ptr());
        self.source.number_follows.set(!own && key == NUMBER_TOKEN);
        Ok(Cow::Borrowed(key))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
        let text = r#"{"a":[1,{"b":"x"}],"phase":{"b":["x",1E5]},"s":"x","n":1E5,"o":{"b":1},"z":null,"t":true}"#;
        let expected =
            r#"{"a":[],"phase":{"b":["x",1E5]},"s":"","n":1E5,"o":{},"z":null,"t":true}"#;
        assert_eq!(skeleton(text.as_bytes(), &["phase"]).unwrap().to_string(), expected);
    }

    #[test]
    fn digits_and_order_are_kept() {
        let text = r#"{"z":1635789123.456,"a":9223372036854775808,"m":[1e400,1.0,-0,1E+5,0.10],"1e5":"\"2e3 \\","n":[-0.5E-07,1e+2,7]}"#;
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
