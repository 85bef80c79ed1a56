//! The names of feeds.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{FEEDS_BUCKET, IdError, bucket_key, feed_out, id_of_key};
use crate::limits::{FEED_BYTES_MAX, FEED_NAME_BYTES_MAX};

/// A feed, as clients name it behind `feed:`: `<name>`, or `<name>:<argument>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FeedId(Box<str>);

impl FeedId {
    /// A feed from text: a name of 1 to 64 bytes `[A-Za-z0-9_-]`, and perhaps a `:` with any argument; together at
    /// most 250 bytes.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let (name, _) = text.split_once(':').unwrap_or((text, ""));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match name.len() {
            0 => Err(IdError::Empty),
            n if n > FEED_NAME_BYTES_MAX || text.len() > FEED_BYTES_MAX => Err(IdError::TooLong),
            _ if !name.bytes().all(plain) => Err(IdError::Type),
            _ => Ok(FeedId(text.into())),
        }
    }

    /// Name and argument as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which feed of the configuration.
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(name, _)| name)
    }

    /// What stands behind the name. An empty one is one.
    pub fn argument(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, argument)| argument)
    }

    /// Where members' gateways hear of it. To be subscribed to it is interest.
    pub fn out_subject(&self) -> String {
        feed_out(&self.0)
    }

    /// Where its record is written, a key of [`FEEDS_BUCKET`].
    pub fn record_subject(&self) -> String {
        bucket_key(FEEDS_BUCKET, &self.0)
    }

    /// The feed whose record has this subject.
    pub fn of_record(subject: &str) -> Option<Self> {
        FeedId::new(&id_of_key(FEEDS_BUCKET, subject)?).ok()
    }
}

impl<'de> Deserialize<'de> for FeedId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        FeedId::new(&text).map_err(D::Error::custom)
    }
}

impl fmt::Display for FeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_has_a_plain_name_and_any_argument() {
        for text in ["news", "news:", "news:a.b *>\n:c", "N-1_x:ä"] {
            let feed = FeedId::new(text).expect(text);
            assert_eq!(FeedId::of_record(&feed.record_subject()), Some(feed.clone()));
            assert_eq!(feed.out_subject().split('.').count(), 4, "one token: {feed}");
        }
        let feed = FeedId::new("news:a:b").expect("a feed");
        assert_eq!((feed.name(), feed.argument()), ("news", Some("a:b")));
        assert_eq!(FeedId::new("news").expect("a feed").argument(), None);
        for text in ["", ":a", "ne.ws", "ä", &"n".repeat(65), &format!("n:{}", "a".repeat(249))] {
            assert!(FeedId::new(text).is_err(), "{text}");
        }
    }
}
