//! A JSON object of which nothing but the keys at its top is looked at: the rest stays the text that it was. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::frame::push_json_string;

/// An object, still as it came.
pub(crate) struct Object<'a> {
    json: &'a str,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn read(json: &'a str) -> Result<Self, serde_json::Error> {
        let Fields(fields) = serde_json::from_str(json)?;
        Ok(Object { json, fields })
    }

    /// The value of a key; of two, the later one.
    pub(crate) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.fields.iter().rev().find(|(name, _)| name == key).map(|(_, raw)| *raw)
    }

    /// The object without these keys: to the letter, if it has none of them.
    pub(crate) fn without(&self, keys: &[&str]) -> Box<str> {
        let goes = |key: &str| keys.contains(&key);
        if !self.fields.iter().any(|(key, _)| goes(key)) {
            return self.json.into();
        }
        let mut object = String::with_capacity(self.json.len());
        for (key, raw) in self.fields.iter().filter(|(key, _)| !goes(key)) {
            object.push(if object.is_empty() { '{' } else { ',' });
            push_json_string(&mut object, key);
            object.push(':');
            object.push_str(raw.get());
        }
        object.push_str(if object.is_empty() { "{}" } else { "}" });
        object.into()
    }
}

/// An object with more fields at its end, written as they stand between the braces.
pub(crate) fn with(object: &str, fields: &str) -> String {
    let open = object.trim_end().strip_suffix('}').unwrap_or(object);
    let separator = if open.trim_end().ends_with('{') { "" } else { "," };
    format!("{open}{separator}{fields}}}")
}

struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    fields.push((key, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_and_come() {
        let object = Object::read(r#"{"a": 1,"s\u0065q":[2],"seq":3 }"#).expect("an object");
        assert_eq!(object.get("seq").map(RawValue::get), Some("3"));
        assert_eq!(&*object.without(&["x"]), r#"{"a": 1,"s\u0065q":[2],"seq":3 }"#, "to the letter");
        assert_eq!(&*object.without(&["seq"]), r#"{"a":1}"#);
        assert_eq!(&*object.without(&["a", "seq"]), "{}");
        assert_eq!(with("{ }", r#""b":1"#), r#"{ "b":1}"#);
        assert_eq!(with(r#"{"a":1}"#, r#""b":1"#), r#"{"a":1,"b":1}"#);
        assert!(Object::read("[1]").is_err());
    }
}
