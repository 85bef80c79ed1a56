//! Feeds on a socket: which may be joined, and what each channel is shown.

use super::tests::{Client, error, reply};
use super::*;

use switchboard_contract::names::UserId;

use crate::auth::claims::Claims;
use crate::auth::{Pass, Renewed, Verified};
use crate::mailbox::{Broadcast, Event};

fn open() -> Client {
    Client::who_is(Vsn::V2, Identity::Open(None))
}

fn token(feeds: Option<&[&str]>) -> Identity {
    let feeds = feeds.map(|feeds| feeds.iter().map(|feed| (*feed).to_owned()).collect());
    let claims = Claims { user: UserId::from(5), role: None, rank: None, feeds, until: None };
    Identity::Verified(Verified { claims, expires: None }.into())
}

fn join(client: &mut Client, topic: &str) -> Vec<String> {
    client.send(&format!(r#"["1","1","{topic}","phx_join",{{}}]"#))
}

#[test]
fn a_feed_is_joined_and_takes_no_events() {
    let mut client = open();
    assert_eq!(join(&mut client, "feed:news:a:b"), ["feed news:a:b Join { chan: 1, serial: 1, pass: Token }"]);
    assert_eq!(client.ok(1, 1), [reply("\"1\"", "\"1\"", "feed:news:a:b", "{}")]);
    for event in ["update", "history", "new_msg", "claim:student"] {
        let frames = client.send(&format!(r#"["1","2","feed:news:a:b","{event}",{{}}]"#));
        assert_eq!(frames, [error("\"1\"", "\"2\"", "feed:news:a:b", "unmatched event")]);
    }
    let frames = client.send(r#"["1","3","feed:news:a:b","phx_leave",{}]"#);
    assert_eq!(frames[0], reply("\"1\"", "\"3\"", "feed:news:a:b", "{}"));
    assert_eq!(frames[2], "feed news:a:b Leave { chan: 1 }");
}

#[test]
fn topics_that_are_no_feed() {
    for topic in ["feed:", "feed::a", "feed:ne.ws", "feed: ", "feed"] {
        assert_eq!(join(&mut open(), topic), [error("\"1\"", "\"1\"", topic, "unmatched topic")]);
    }
    let frames = open().send(r#"["1","1","feed:news","phx_join",[]]"#);
    assert!(frames.len() == 1 && frames[0].contains("invalid_payload"), "{frames:?}");
}

#[test]
fn a_join_of_a_feed_that_nobody_answers() {
    let mut client = open();
    join(&mut client, "feed:news");
    let frames = client.after(Duration::from_secs(5));
    assert_eq!(frames, [error("\"1\"", "\"1\"", "feed:news", "unavailable"), "feed news Leave { chan: 1 }".into()]);
}

/// A feed may know the channel that replaces another one for a moment before it knows that the other one is gone.
#[test]
fn a_channel_is_shown_each_event_of_a_feed_once() {
    let mut client = open();
    let shown = |client: &mut Client, version| {
        let broadcast = Broadcast::new("feed:news", "update", "{}");
        client.event(Event::Once { version, broadcast }).len()
    };
    join(&mut client, "feed:news");
    assert_eq!(shown(&mut client, 1), 0, "before the reply");
    client.ok(1, 1);
    assert_eq!([2, 2, 3, 2].map(|version| shown(&mut client, version)), [1, 0, 1, 0]);
    assert_eq!(client.send(r#"["2","2","feed:news","phx_join",{}]"#).len(), 3);
    assert_eq!(shown(&mut client, 4), 0, "before the reply");
    client.ok(2, 2);
    assert_eq!([5, 5, 6].map(|version| shown(&mut client, version)), [1, 0, 1]);
}

#[test]
fn a_token_with_feeds_is_for_these_and_another_one_for_those_that_ask_for_none() {
    for (feeds, topic, expected) in [
        (Some(&["news", "x"][..]), "feed:news", Some(Pass::Token)),
        (Some(&["news"]), "feed:news:a", Some(Pass::Token)),
        (Some(&["news:a"]), "feed:news:a", None),
        (Some(&["x"]), "feed:news", None),
        (Some(&[]), "feed:news", None),
        (None, "feed:news", Some(Pass::Nothing)),
    ] {
        let frames = join(&mut Client::who_is(Vsn::V2, token(feeds)), topic);
        match expected {
            Some(pass) => assert!(frames[0].ends_with(&format!("pass: {pass:?} }}")), "{feeds:?} {topic} {frames:?}"),
            None => assert_eq!(frames, [error("\"1\"", "\"1\"", topic, "unauthorized")], "{feeds:?}"),
        }
    }
}

#[test]
fn a_token_that_does_not_name_what_is_joined_renews_nothing() {
    for (joined, renewed, allowed) in [
        (Some(&["news"][..]), Some(&["x", "news"][..]), true),
        (Some(&["news"]), Some(&["x"]), false),
        (Some(&["news"]), None, false),
        (None, None, true),
        (None, Some(&["x"]), false),
    ] {
        let mut client = Client::who_is(Vsn::V2, token(joined));
        join(&mut client, "feed:news");
        client.ok(1, 1);
        assert_eq!(client.send(r#"["1","2","feed:news","access_token",{"token":"a.b.c"}]"#), ["verify 1 2"]);
        let renewed = Ok(Renewed::User(token(renewed)));
        let frames = client.event(Event::Renewed { chan: 1, serial: 2, renewed });
        let ok = frames[0].contains(r#""status":"ok""#);
        assert!(frames.len() == 1 && ok == allowed, "{joined:?} {frames:?}");
    }
}

fn join_with(client: &mut Client, reference: u32, payload: &str) -> Vec<String> {
    client.send(&format!(r#"["{reference}","{reference}","feed:news","phx_join",{payload}]"#))
}

#[test]
fn the_secret_is_as_good_as_a_token_that_names_the_feed() {
    for identity in [Identity::Open(None), token(None), token(Some(&["x"])), token(Some(&["news"]))] {
        let mut client = Client::who_is(Vsn::V2, identity);
        for wrong in [r#"{"secret":"s3cre"}"#, r#"{"secret":""}"#, r#"{"secret":"S3cret"}"#] {
            let refused = [error("\"1\"", "\"1\"", "feed:news", "unauthorized")];
            assert_eq!(join_with(&mut client, 1, wrong), refused, "{wrong}");
        }
        let frames = join_with(&mut client, 1, r#"{"secret":5}"#);
        assert!(frames.len() == 1 && frames[0].contains("invalid_payload"), "{frames:?}");
        let frames = join_with(&mut client, 1, r#"{"secret":"s3cret"}"#);
        assert!(frames.len() == 1 && frames[0].ends_with("pass: Secret }"), "{frames:?}");
    }
    for none in ["{}", r#"{"secret":null}"#] {
        assert!(join_with(&mut open(), 1, none)[0].ends_with("pass: Token }"), "nothing is verified");
    }
}

#[test]
fn who_has_shown_the_secret_needs_no_token_for_the_feed_later_either() {
    let mut client = Client::who_is(Vsn::V2, token(None));
    join_with(&mut client, 1, r#"{"secret":"s3cret"}"#);
    client.ok(1, 1);
    for feeds in [Some(&["x"][..]), None] {
        client.send(r#"["1","2","feed:news","access_token",{"token":"a.b.c"}]"#);
        let serial = if feeds.is_some() { 2 } else { 3 };
        let renewed = Ok(Renewed::User(token(feeds)));
        let frames = client.event(Event::Renewed { chan: 1, serial, renewed });
        assert!(frames.len() == 1 && frames[0].contains(r#""status":"ok""#), "{frames:?}");
    }
}
