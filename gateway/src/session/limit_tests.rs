//! Joins of one user, over all kinds of topics.

use std::num::NonZeroU32;

use governor::Quota;
use switchboard_contract::names::UserId;

use super::tests::Client;
use super::*;
use crate::auth::Verified;
use crate::auth::claims::Claims;
use crate::limiter::{Rates, Within};

/// Two joins at once and one a second; the second refusal is one too many.
fn rates() -> Rates {
    let number = |n| NonZeroU32::new(n).expect("not 0");
    Rates {
        joins: Some(Quota::per_second(number(1)).allow_burst(number(2))),
        refusals: Some(Within { count: 2, window: Duration::from_secs(10) }),
        ban: Duration::from_secs(10),
        ..Rates::default()
    }
}

fn verified(user: u64) -> Verified {
    let claims = Claims { user: UserId::from(user), role: None, rank: None, feeds: None, until: None };
    Verified { claims, expires: None }
}

fn join(client: &mut Client, reference: u32, topic: &str, payload: &str) -> Vec<String> {
    client.send(&format!(r#"["{reference}","{reference}","{topic}","phx_join",{payload}]"#))
}

#[test]
fn joins_of_one_user_are_counted_whatever_it_joins() {
    let mut client = Client::limited(Vsn::V2, Identity::Open(None), rates());
    assert!(join(&mut client, 1, "presence:teachers", r#"{"userId":5,"role":"teacher"}"#)[0].starts_with("lobby "));
    assert!(join(&mut client, 2, "chats:c", r#"{"userId":"5","role":"teacher"}"#)[0].starts_with("chat "));
    let refused = join(&mut client, 3, "presence:student:5", r#"{"userId":5,"role":"student"}"#);
    let response = r#"{"status":"error","response":{"reason":"rate_limited","retry_after_ms":1000}}"#;
    assert_eq!(refused, [format!(r#"["3","3","presence:student:5","phx_reply",{response}]"#)]);
    let other = join(&mut client, 4, "presence:student:6", r#"{"userId":6,"role":"student"}"#);
    assert!(other[0].starts_with("lobby "), "another user's, on the same socket: {other:?}");
    client.send(r#"["4","5","presence:student:6","phx_leave",{}]"#);

    let now = client.now;
    assert!(client.session.admitted(9, &UserId::from(7), None, now).is_ok(), "a room's");
    let refused = client.session.admitted(9, &UserId::from(5), None, now).expect_err("one more of user 5");
    assert!(refused.out && client.session.admitted(9, &UserId::from(5), None, now).is_err_and(|refused| !refused.out));
}

#[test]
fn who_joins_on_and_on_is_closed() {
    let mut client = Client::limited(Vsn::V2, Identity::Open(None), rates());
    let payload = r#"{"userId":5,"role":"student"}"#;
    for reference in 1..=3 {
        join(&mut client, reference, "presence:student:5", payload);
    }
    let frames = join(&mut client, 4, "presence:student:5", payload);
    assert!(frames.len() == 2 && frames[0].contains("rate_limited") && frames[1] == "close 1008", "{frames:?}");
    client.now += Duration::from_secs(4);
    let frames = join(&mut client, 5, "presence:student:5", payload);
    assert!(frames.len() == 1 && frames[0].contains(r#""retry_after_ms":6000"#), "{frames:?}");
}

#[test]
fn what_is_refused_because_too_much_waits_is_no_users_fault() {
    let mut client = Client::limited(Vsn::V2, Identity::Open(None), rates());
    join(&mut client, 1, "chats:c", r#"{"userId":5,"role":"student"}"#);
    assert_eq!(client.session.crowd(), 0);
    for n in 0..200 {
        let frames = client.send(&format!(r#"["1","{}","chats:c","student:send",{{"message":1}}]"#, n + 2));
        assert_eq!(frames.len(), usize::from(n >= 64), "{frames:?}");
    }
    assert_eq!(client.session.crowd(), 64);
    assert!(join(&mut client, 900, "presence:student:5", r#"{"userId":5,"role":"student"}"#)[0].starts_with("lobby "));
    client.send(r#"[null,"999","phoenix","heartbeat",{}]"#);
}

#[test]
fn a_secret_cannot_be_guessed_quickly() {
    for identity in [Identity::Open(None), Identity::Verified(verified(5).into())] {
        let verified = matches!(identity, Identity::Verified(_));
        let mut client = Client::limited(Vsn::V2, identity, rates());
        let frames = join(&mut client, 1, "feed:news", r#"{"secret":"a"}"#);
        assert!(frames.len() == 1 && frames[0].contains("unauthorized"), "{frames:?}");
        let frames = join(&mut client, 2, "feed:news", r#"{"secret":"b"}"#);
        assert!(frames.len() == 2 && frames[0].contains("unauthorized") && frames[1] == "close 1008", "{frames:?}");
        client.now += Duration::from_secs(4);
        for secret in ["c", "s3cret"] {
            let frames = join(&mut client, 3, "feed:news", &format!(r#"{{"secret":"{secret}"}}"#));
            let waits = r#""reason":"rate_limited","retry_after_ms":6000"#;
            assert!(frames.len() == 1 && frames[0].contains(waits), "{secret}: {frames:?}");
        }
        let frames = join(&mut client, 4, "feed:news", "{}");
        assert_eq!(
            frames[0].starts_with("feed "),
            !verified,
            "others of whom nothing is known are no worse off: {frames:?}"
        );
        client.now += Duration::from_secs(6);
        assert!(join(&mut client, 5, "feed:other", r#"{"secret":"s3cret"}"#)[0].ends_with("pass: Secret }"));
    }
}
