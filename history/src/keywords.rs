//! Keywords: the words that several people of a room use. Pure: what was said and the time go in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::value::RawValue;
use switchboard_contract::limits::{KEYWORD_BYTES_MAX, KEYWORD_TEXT_BYTES_MAX, KEYWORD_WORDS_MAX, KEYWORDS_MAX};
use switchboard_contract::log::{self, Message};
use switchboard_contract::names::UserId;
use switchboard_contract::room::Keyword;
use switchboard_contract::wire::timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use unicode_segmentation::UnicodeSegmentation as _;

/// Words with fewer letters are none.
const LETTERS_MIN: usize = 3;
/// A keyword is used by at least so many people.
const USERS_MIN: usize = 2;
/// What one word of a message costs in memory beyond its text. Bytes.
const WORD_OVERHEAD: usize = 32;

/// Words that say nothing about what is talked about.
static STOP_WORDS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let of = |language| stop_words::lookup(language).unwrap_or_default().iter().copied();
    of("en").chain(of("de")).collect()
});

/// What one message adds to the keywords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Unix milliseconds.
    at: u64,
    user: UserId,
    /// Each once.
    words: Box<[Box<str>]>,
}

impl Heard {
    /// The words of a message (JSON of a [`Message`]), if somebody said it within `window` before `now`.
    pub fn of(message: &RawValue, now: u64, window: Duration) -> Option<Heard> {
        let message: Message<'_> = serde_json::from_str(message.get()).ok()?;
        let at = unix_ms(&message.at)?;
        let user = message.from?.user_id;
        if at.saturating_add(ms(window)) <= now {
            return None;
        }
        let words = words(&log::text(message.payload.get())?);
        (!words.is_empty()).then(|| Heard { at, user, words: words.into() })
    }

    pub(crate) fn cost(&self) -> usize {
        let words: usize = self.words.iter().map(|word| word.len() + WORD_OVERHEAD).sum();
        size_of::<Heard>() + self.user.as_str().len() + words
    }
}

/// A keyword, and when it goes: unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// In lower case.
    pub word: Box<str>,
    /// When fewer than two people have used it within the window, unless it is used again.
    pub expires: u64,
}

impl From<&Word> for Keyword {
    fn from(word: &Word) -> Keyword {
        let expires_at = timestamp(UNIX_EPOCH + Duration::from_millis(word.expires));
        Keyword { keyword: word.word.clone(), expires_at: expires_at.into() }
    }
}

/// The keywords at the time `now`: those that most people use first, then those used last. And until when this holds
/// if nothing more is said.
pub fn keywords<'a>(heard: impl Iterator<Item = &'a Heard>, now: u64, window: Duration) -> (Vec<Word>, u64) {
    let window = ms(window);
    let mut until = u64::MAX;
    // Of each word: who used it last when.
    let mut used: HashMap<&str, BTreeMap<&UserId, u64>> = HashMap::new();
    for heard in heard {
        let end = heard.at.saturating_add(window);
        if end <= now {
            continue;
        }
        until = until.min(end);
        for word in &heard.words {
            let last = used.entry(word).or_default().entry(&heard.user).or_default();
            *last = heard.at.max(*last);
        }
    }
    let mut words: Vec<(Reverse<usize>, Reverse<u64>, &str, u64)> = Vec::new();
    for (word, users) in used.into_iter().filter(|(_, users)| users.len() >= USERS_MIN) {
        let mut times: Vec<u64> = users.into_values().collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        words.push((Reverse(times.len()), Reverse(times[0]), word, times[USERS_MIN - 1].saturating_add(window)));
    }
    words.sort_unstable();
    words.truncate(KEYWORDS_MAX);
    (words.into_iter().map(|(_, _, word, expires)| Word { word: word.into(), expires }).collect(), until)
}

/// Whether those who know `told` have to be told `words`: other ones, or some that live a good deal longer.
pub fn differ(told: &[Word], words: &[Word], window: Duration) -> bool {
    let same = |(told, word): (&Word, &Word)| told.word == word.word && word.expires <= told.expires + ms(window) / 10;
    told.len() != words.len() || !told.iter().zip(words).all(same)
}

/// The words of a text that may become keywords.
fn words(text: &str) -> Vec<Box<str>> {
    let mut end = text.len().min(KEYWORD_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text[..end].replace('\u{2019}', "'").to_lowercase();
    let may = |word: &&str| {
        word.len() <= KEYWORD_BYTES_MAX
            && word.chars().filter(|c| c.is_alphabetic()).nth(LETTERS_MIN - 1).is_some()
            && !STOP_WORDS.contains(word)
    };
    let mut words: BTreeSet<&str> = BTreeSet::new();
    for word in text.unicode_words().filter(may) {
        if words.len() == KEYWORD_WORDS_MAX {
            break;
        }
        words.insert(word);
    }
    words.into_iter().map(Into::into).collect()
}

/// Unix milliseconds of an RFC 3339 time.
fn unix_ms(at: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(at, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(1_000);

    fn heard(user: u64, at: u64, text: &str) -> Heard {
        Heard { at, user: UserId::from(user), words: words(text).into() }
    }

    fn list(heard: &[Heard], now: u64) -> Vec<(String, u64)> {
        keywords(heard.iter(), now, WINDOW).0.into_iter().map(|word| (word.word.into(), word.expires)).collect()
    }

    #[test]
    fn words_are_lower_case_and_without_what_says_nothing() {
        let text = "The WEBSOCKET and the Gateway: das ist größer, don’t ab 12345 gateway 日本";
        assert_eq!(words(text), ["gateway", "größer", "websocket"].map(Box::from));
        assert!(words(&"x".repeat(KEYWORD_BYTES_MAX + 1)).is_empty());
        let many: String = (0..200).map(|n| format!("word{n} ")).collect();
        assert_eq!(words(&many).len(), KEYWORD_WORDS_MAX);
        let late = format!("{}gateway", "é ".repeat(KEYWORD_TEXT_BYTES_MAX));
        assert!(words(&late).is_empty(), "beyond what is looked at");
    }

    #[test]
    fn a_message_is_heard_with_its_time_and_its_author() {
        let message = |from: &str, at: &str| {
            let json =
                format!(r#"{{"seq":1,"id":"k","at":"{at}","event":"new_msg","payload":{{"body":"Gateway"}}{from}}}"#);
            Heard::of(&RawValue::from_string(json).expect("JSON"), 1_700_000_000_050, WINDOW)
        };
        let from = r#","from":{"user_id":5}"#;
        let heard = message(from, "2023-11-14T22:13:20.050Z").expect("words");
        assert_eq!((heard.at, &*heard.words), (1_700_000_000_050, &[Box::from("gateway")][..]));
        assert_eq!(message("", "2023-11-14T22:13:20.050Z"), None, "nobody said it");
        assert_eq!(message(from, "2023-11-14T22:13:19.050Z"), None, "too old");
        assert_eq!(message(from, "yesterday"), None);
    }

    #[test]
    fn two_people_make_a_keyword_and_each_ends_by_itself() {
        let said = [heard(1, 0, "tram gateway"), heard(1, 100, "gateway"), heard(2, 300, "gateway")];
        assert_eq!(list(&said, 300), [("gateway".to_owned(), 1_100)]);
        assert_eq!(list(&said, 1_099).len(), 1);
        assert_eq!(list(&said, 1_100), []);
        assert_eq!(keywords(said.iter(), 300, WINDOW).1, 1_000, "then the first message is too old");
    }

    #[test]
    fn most_people_come_first_and_then_who_spoke_last() {
        let mut said = vec![heard(1, 10, "tram ferry bicycle"), heard(2, 20, "tram bicycle"), heard(3, 30, "bicycle")];
        said.push(heard(2, 15, "ferry"));
        let words: Vec<String> = list(&said, 100).into_iter().map(|(word, _)| word).collect();
        assert_eq!(words, ["bicycle", "tram", "ferry"]);
    }

    #[test]
    fn who_is_told_again() {
        let word = |word: &str, expires| Word { word: word.into(), expires };
        let told = [word("tram", 1_000)];
        assert!(!differ(&told, &[word("tram", 1_100)], WINDOW) && differ(&told, &[word("tram", 1_101)], WINDOW));
        assert!(differ(&told, &[word("ferry", 1_000)], WINDOW) && differ(&told, &[], WINDOW));
    }

    proptest! {
        #[test]
        fn they_hold_until_the_time_they_say(
            said in proptest::collection::vec((0..4u64, 0..2_000u64, "[a-c]{3} [a-c]{3}"), 0..30),
            now in 0..3_000u64,
            later in 0..1_000u64,
        ) {
            let said: Vec<Heard> = said.iter().map(|(user, at, text)| heard(*user, *at, text)).collect();
            let (words, until) = keywords(said.iter(), now, WINDOW);
            prop_assert!(words.len() <= KEYWORDS_MAX);
            prop_assert!(words.iter().all(|word| word.expires > now));
            let later = (now + later).min(until - 1);
            prop_assert_eq!(&keywords(said.iter(), later, WINDOW).0, &words);
            let mut shuffled = said.clone();
            shuffled.reverse();
            prop_assert_eq!(&keywords(shuffled.iter(), now, WINDOW).0, &words);
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,2000}") {
            prop_assert!(words(&text).len() <= KEYWORD_WORDS_MAX);
        }
    }
}
