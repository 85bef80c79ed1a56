//! The secret of the HTTP API.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

/// A secret that is compared without telling how much of it was right, and shown nowhere. It is not empty.
#[derive(Clone)]
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

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Secret(text.as_bytes().into()))
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
        assert!(secret.configured().is_some());
        let empty: Secret = "".parse().unwrap();
        assert!(empty.configured().is_none());
    }
}
