//! The contents that users put into a document: everything but the seal.

use serde_json::{Map, Value};

use super::schema::OWN_FIELDS;

/// The document without the seal's fields: the contents that its users put into it.
pub fn without_seal(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in OWN_FIELDS {
            metadata.shift_remove(field);
        }
        // Sealing makes the object; an empty one has no contents of the user.
        if metadata.is_empty()
            && let Some(document) = value.as_object_mut()
        {
            document.shift_remove("metadata");
        }
    }
    value
}

/// Returns whether two documents are the same except for the seal's fields; compared in place,
/// since they may be large.
pub fn are_same_without_seal(one: &Value, other: &Value) -> bool {
    let (Value::Object(these), Value::Object(those)) = (one, other) else { return one == other };
    let users = |document: &Map<String, Value>| match document.get("metadata") {
        None => Some(Map::new()),
        Some(Value::Object(metadata)) => {
            let users = metadata.iter().filter(|(key, _)| !OWN_FIELDS.contains(&key.as_str()));
            Some(users.map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        Some(_) => None,
    };
    let are_same_metadata = match (users(these), users(those)) {
        (Some(these), Some(those)) => these == those,
        (None, None) => these.get("metadata") == those.get("metadata"),
        _ => false,
    };
    let count = |document: &Map<String, Value>| {
        document.len() - usize::from(document.contains_key("metadata"))
    };
    are_same_metadata
        && count(these) == count(those)
        && these.iter().all(|(key, value)| key == "metadata" || those.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn comparison_ignores_the_seal() {
        let documents = [
            json!({"a": 1}),
            json!({"a": 2}),
            json!({"a": 1, "metadata": {}}),
            json!({"a": 1, "metadata": {"revision": 3, "digest": "x"}}),
            json!({"a": 1, "metadata": {"revision": 4, "note": "y"}}),
            json!({"metadata": {"note": "y", "created": "z"}, "a": 1}),
            json!({"a": 1, "metadata": null}),
            json!({"a": 1, "metadata": [1]}),
            json!({"a": 1, "b": 1}),
            json!({"b": 1}),
            json!([1]),
        ];
        for one in &documents {
            for other in &documents {
                let are_same = without_seal(one) == without_seal(other);
                assert_eq!(are_same_without_seal(one, other), are_same, "{one} {other}");
            }
        }
    }
}
