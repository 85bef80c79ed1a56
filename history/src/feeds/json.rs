//! JSON as sources send it, made comparable: the same text without the spaces between.

use serde_json::value::RawValue;

/// The value without spaces, and otherwise as it was: numbers keep their digits. `None`: no JSON.
pub fn compact(json: &[u8]) -> Option<Box<RawValue>> {
    let value: &RawValue = serde_json::from_slice(json).ok()?;
    let mut text = String::with_capacity(value.get().len());
    let (mut in_string, mut escaped) = (false, false);
    for char in value.get().chars() {
        if in_string {
            in_string = escaped || char != '"';
            escaped = char == '\\' && !escaped;
        } else if char.is_ascii_whitespace() {
            continue;
        } else {
            in_string = char == '"';
        }
        text.push(char);
    }
    RawValue::from_string(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_go_and_the_rest_stays() {
        for (json, compacted) in [
            (" { \"a b\" : [ 1.50 , 1e400,\n\tnull ] } ", "{\"a b\":[1.50,1e400,null]}"),
            (r#"[" \" ", "\\", " x "]"#, r#"[" \" ","\\"," x "]"#),
            (r#" "ä \\\" " "#, r#""ä \\\" ""#),
            ("7", "7"),
        ] {
            assert_eq!(compact(json.as_bytes()).expect(json).get(), compacted);
        }
        for none in ["", "{", "1 2", "<html>", "\"a", "NaN"] {
            assert!(compact(none.as_bytes()).is_none(), "{none}");
        }
        assert!(compact(b"\"\xff\"").is_none());
    }
}
