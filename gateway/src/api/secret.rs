//! The secret of the HTTP API, which some feeds want too.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use subtle::ConstantTimeEq as _;

/// A secret that is compared without telling how much of it was right, and shown nowhere. It is not empty.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Whether this is it. How long the comparison takes says no more than whether the length is right.
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }

    /// None, if it is empty: who sets a variable to nothing has configured none.
    pub fn configured(self) -> Option<Secret> {
        (!self.0.is_empty()).then_some(self)
    }
}

/// As [`Secret::is`].
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text.into_bytes().into())
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.to_owned().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_itself_and_not_shown_and_nothing_is_none() {
        let secret: Secret = "s3cret".parse().unwrap();
        assert!(secret.is(b"s3cret"));
        for other in [&b""[..], b"s3cre", b"s3creT", b"s3cret "] {
            assert!(!secret.is(other), "{other:?}");
        }
        assert_eq!(format!("{:?}", Some(&secret)), "Some(Secret(…))");
        let given = |json: &str| serde_json::from_str::<Secret>(json).unwrap();
        assert!(secret == given(r#""s3cret""#) && secret != given(r#""s3cre""#) && secret != given(r#""""#));
        assert!(secret.configured().is_some());
        let empty: Secret = "".parse().unwrap();
        assert!(empty.configured().is_none());
    }
}
