//! What a verified token allows on a socket, how long, and how it is renewed.

use super::tests::Client;
use super::*;
use crate::mailbox::Event;

use switchboard_contract::lobby::Role;
use switchboard_contract::names::UserId;

use crate::auth::claims::Claims;
use crate::auth::{Renewed, Verified};

/// A token of this user that counts for so many seconds from now.
fn token(user: u64, role: Option<Role>, now: Instant, seconds: Option<u64>) -> Identity {
    let role = role.map(|role| match role {
        Role::Teacher => "teacher".into(),
        Role::Student => "student".into(),
    });
    let claims = Claims { user: UserId::from(user), role, rank: None, feeds: None, until: None };
    Identity::Verified(Verified { claims, expires: seconds.map(|s| now + Duration::from_secs(s)) }.into())
}

fn client(role: Option<Role>, seconds: Option<u64>) -> Client {
    Client::who_is(Vsn::V2, token(5, role, Instant::now(), seconds))
}

/// Joined as student 5 on chan 1, with a token for 50 s.
fn student() -> Client {
    let mut client = client(None, Some(50));
    client.send(r#"["1","1","presence:student:5","phx_join",{"userId":"5","role":"student"}]"#);
    assert_eq!(client.ok(1, 1).len(), 1);
    client
}

/// Sends `access_token` as the request `serial`; what comes back once it was verified as this.
fn renew(client: &mut Client, serial: u32, identity: Result<Identity, Reason>) -> Vec<String> {
    let sent = client.send(&format!(r#"["1","{serial}","presence:student:5","access_token",{{"token":"a.b.c"}}]"#));
    assert_eq!(sent, [format!("verify 1 {serial}")]);
    let renewed = identity.map(Renewed::User).map_err(Refusal::from);
    client.event(Event::Renewed { chan: 1, serial, renewed })
}

fn answer(serial: u32, status: &str, response: &str) -> [String; 1] {
    let reply = format!(r#"{{"status":"{status}","response":{response}}}"#);
    [format!(r#"["1","{serial}","presence:student:5","phx_reply",{reply}]"#)]
}

fn refused(serial: u32, reason: &str) -> [String; 1] {
    answer(serial, "error", &format!(r#"{{"reason":"{reason}"}}"#))
}

#[test]
fn a_join_is_for_the_user_and_the_role_of_the_token() {
    for (role, topic, payload, allowed) in [
        (None, "presence:student:5", r#"{"userId":"5","role":"student"}"#, true),
        (None, "presence:teachers", r#"{"userId":5,"role":"teacher"}"#, true),
        (Some(Role::Teacher), "presence:teachers", r#"{"userId":5,"role":"teacher"}"#, true),
        (Some(Role::Teacher), "chats:c", r#"{"userId":5,"role":"teacher"}"#, true),
        (None, "presence:student:6", r#"{"userId":6,"role":"student"}"#, false),
        (None, "presence:teachers", r#"{"userId":6,"role":"teacher"}"#, false),
        (None, "chats:c", r#"{"userId":6,"role":"student"}"#, false),
        (Some(Role::Student), "presence:teachers", r#"{"userId":5,"role":"teacher"}"#, false),
        (Some(Role::Teacher), "presence:student:5", r#"{"userId":5,"role":"student"}"#, false),
        (Some(Role::Student), "chats:c", r#"{"userId":5,"role":"teacher"}"#, false),
    ] {
        let frames = client(role, None).send(&format!(r#"["1","1","{topic}","phx_join",{payload}]"#));
        let refused = frames[0].contains(r#"{"reason":"unauthorized"}"#);
        assert_eq!((frames.len(), refused), (1, !allowed), "{role:?} {topic} {payload} {frames:?}");
    }
}

#[test]
fn an_expired_token_closes_its_socket_in_time_and_a_renewed_one_does_not() {
    let mut client = student();
    let expires = client.session.wake();
    assert!(expires < client.now + Duration::from_secs(51), "it wakes up for the token, and not for the silence");
    assert!(client.after(Duration::from_secs(49)).is_empty());
    let renewed = token(5, None, client.now, Some(100));
    assert_eq!(renew(&mut client, 2, Ok(renewed)), answer(2, "ok", "{}"));
    client.now += Duration::from_secs(55);
    client.session.heard(client.now);
    assert!(client.after(Duration::ZERO).is_empty(), "the first token is over");
    assert_eq!(client.session.wake(), client.now + Duration::from_secs(45), "earlier than the silence counts");
    assert!(client.after(Duration::from_secs(44)).is_empty());
    assert_eq!(client.after(Duration::from_secs(1)), ["close 1008"]);

    // One that ends sooner takes effect, too.
    let mut client = student();
    let sooner = token(5, None, client.now, Some(10));
    renew(&mut client, 2, Ok(sooner));
    assert!(client.session.wake() <= client.now + Duration::from_secs(10));
    assert_eq!(client.after(Duration::from_secs(10)), ["close 1008"]);
}

#[test]
fn a_token_that_does_not_count_renews_nothing() {
    let mut client = student();
    let now = client.now;
    assert_eq!(renew(&mut client, 2, Err(Reason::TokenExpired)), refused(2, "token_expired"));
    assert_eq!(renew(&mut client, 3, Err(Reason::Unauthorized)), refused(3, "unauthorized"));
    assert_eq!(renew(&mut client, 4, Ok(token(6, None, now, None))), refused(4, "unauthorized"));
    let teacher = token(5, Some(Role::Teacher), now, None);
    assert_eq!(renew(&mut client, 5, Ok(teacher)), refused(5, "unauthorized"), "a student is joined");
    for payload in ["{}", r#"{"token":5}"#, "[]"] {
        let frames = client.send(&format!(r#"["1","9","presence:student:5","access_token",{payload}]"#));
        assert!(frames.len() == 1 && frames[0].contains("invalid_payload"), "{frames:?}");
    }
    let frames = client.send(r#"["1","9","chats:x","access_token",{"token":"a.b.c"}]"#);
    assert!(frames[0].contains("unmatched topic"), "{frames:?}");
    assert!(client.after(Duration::from_secs(49)).is_empty());
    assert_eq!(client.after(Duration::from_secs(2)), ["close 1008"], "the first token counts as it did");
}

#[test]
fn where_nothing_is_verified_a_token_is_taken_without_a_look() {
    let mut client = Client::who_is(Vsn::V2, Identity::Open(None));
    client.send(r#"["1","1","presence:student:5","phx_join",{"userId":"6","role":"student"}]"#);
    client.send(r#"["1","1","presence:student:5","phx_join",{"userId":"5","role":"student"}]"#);
    client.ok(1, 2);
    client.ok(2, 2);
    let frames = client.send(r#"["1","2","presence:student:5","access_token",{"token":"anything"}]"#);
    assert_eq!(frames, answer(2, "ok", "{}"));
    let frames = client.send(r#"["1","3","presence:student:5","access_token",{}]"#);
    assert!(frames[0].contains("invalid_payload"), "{frames:?}");
}

#[test]
fn a_disconnect_is_for_whom_the_token_names_whatever_a_room_is_joined_as() {
    let mut client = client(None, None);
    client.send(r#"["1","1","room:r","phx_join",{"userId":6}]"#);
    assert_eq!(client.event(Event::Disconnect(UserId::from(6))), [""; 0]);
    assert_eq!(client.event(Event::Disconnect(UserId::from(5))), ["close 1001"]);
}

/// User 5 in room `r` on chan 1, its token ending in so many seconds, and in the lobby on chan 2.
fn in_room(vsn: Vsn, seconds: Option<u64>) -> Client {
    let mut client = Client::who_is(vsn, token(5, None, Instant::now(), None));
    for (reference, topic, payload) in
        [("1", "room:r", "{}"), ("2", "presence:student:5", r#"{"userId":5,"role":"student"}"#)]
    {
        let event = "phx_join";
        client.send(&match vsn {
            Vsn::V1 => format!(r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":"{reference}"}}"#),
            Vsn::V2 => format!(r#"["{reference}","{reference}","{topic}","{event}",{payload}]"#),
        });
    }
    let until = seconds.map(|seconds| client.now + Duration::from_secs(seconds));
    client.session.admitted(1, &UserId::from(5), until, client.now).expect("no limit");
    client.ok(1, 1);
    client.ok(2, 2);
    client
}

const CLOSE_V2: &str = r#"["1","1","room:r","phx_close",{}]"#;
const LEAVE: &str = "room r Leave { chan: 1, lost: false }";

#[test]
fn a_rooms_token_that_is_over_ends_its_channel_alone() {
    let close_v1 = r#"{"topic":"room:r","event":"phx_close","payload":{},"ref":"1"}"#;
    for (vsn, close) in [(Vsn::V1, close_v1), (Vsn::V2, CLOSE_V2)] {
        let mut client = in_room(vsn, Some(50));
        assert!(client.after(Duration::from_secs(49)).is_empty());
        assert_eq!(client.session.wake(), client.now + Duration::from_secs(1), "it wakes up for it");
        assert_eq!(client.after(Duration::from_secs(1)), [close, LEAVE]);
        assert!(client.after(Duration::from_secs(1)).is_empty(), "once");
    }
    let mut client = in_room(Vsn::V2, Some(50));
    client.after(Duration::from_secs(50));
    let frames = client.send(r#"["1","3","room:r","typing",{}]"#);
    assert!(frames[0].contains("unmatched topic"), "{frames:?}");
    let frames = client.send(r#"["2","4","presence:student:5","student:ready",{}]"#);
    assert!(frames[0].starts_with("lobby "), "the socket lives on: {frames:?}");
    let mut client = in_room(Vsn::V2, None);
    assert!(client.after(Duration::from_secs(55)).is_empty(), "a token without an end");
}

#[test]
fn what_a_rooms_channel_has_not_answered_is_answered_at_its_end() {
    let mut client = in_room(Vsn::V2, Some(2));
    for frame in [
        r#"["1","3","room:r","new_message",{"body":1}]"#,
        r#"["1","4","room:r","typing",{}]"#,
        r#"["1","5","room:r","phx_leave",{}]"#,
    ] {
        client.send(frame);
    }
    let reply = |reference, reply| format!(r#"["1","{reference}","room:r","phx_reply",{reply}]"#);
    assert_eq!(
        client.after(Duration::from_secs(2)),
        [
            reply(3, r#"{"status":"error","response":{"reason":"unavailable"}}"#),
            reply(4, r#"{"status":"error","response":{"reason":"token_expired"}}"#),
            reply(5, r#"{"status":"ok","response":{}}"#),
            CLOSE_V2.to_owned(),
            LEAVE.to_owned(),
        ]
    );
    assert!(client.ok(1, 3).is_empty(), "too late");

    // Before the join was answered.
    let mut client = Client::who_is(Vsn::V2, token(5, None, Instant::now(), None));
    client.send(r#"["1","1","room:r","phx_join",{}]"#);
    let until = Some(client.now + Duration::from_secs(1));
    client.session.admitted(1, &UserId::from(5), until, client.now).expect("no limit");
    let refused = reply(1, r#"{"status":"error","response":{"reason":"token_expired"}}"#);
    assert_eq!(client.after(Duration::from_secs(1)), [refused, LEAVE.to_owned()]);
}

#[test]
fn a_rooms_token_renews_its_channel_and_a_users_the_socket() {
    let mut client = in_room(Vsn::V2, Some(50));
    let renew = |client: &mut Client, serial, renewed: Result<Renewed, Reason>| {
        let sent = client.send(&format!(r#"["1","{serial}","room:r","access_token",{{"token":"a.b.c"}}]"#));
        assert_eq!(sent, [format!("verify 1 {serial} of r")]);
        let frames = client.event(Event::Renewed { chan: 1, serial, renewed: renewed.map_err(Refusal::from) });
        frames[0].contains(r#""status":"ok""#)
    };
    let later = client.now + Duration::from_secs(58);
    assert!(!renew(&mut client, 3, Err(Reason::TokenExpired)));
    assert!(renew(&mut client, 4, Ok(Renewed::Room(Some(later)))));
    let user = token(5, None, client.now, Some(59));
    assert!(renew(&mut client, 5, Ok(Renewed::User(user))));
    assert!(client.after(Duration::from_secs(57)).is_empty(), "the first one is over");
    client.session.heard(client.now);
    assert_eq!(client.after(Duration::from_secs(1)), [CLOSE_V2, LEAVE]);
    assert_eq!(client.after(Duration::from_secs(1)), ["close 1008"], "the user's counts for the socket");

    // What is refused changes nothing; what ends sooner counts.
    let mut client = in_room(Vsn::V2, Some(50));
    let sooner = client.now + Duration::from_secs(10);
    assert!(!renew(&mut client, 3, Err(Reason::Unauthorized)));
    assert!(client.after(Duration::from_secs(9)).is_empty());
    assert!(renew(&mut client, 4, Ok(Renewed::Room(Some(sooner)))));
    assert_eq!(client.session.wake(), sooner);
    assert_eq!(client.after(Duration::from_secs(1)), [CLOSE_V2, LEAVE]);
}

#[test]
fn whose_a_socket_is() {
    let (five, six) = (UserId::from(5), UserId::text("6").expect("an id"));
    assert!(client(None, None).session.is(&five) && !client(None, None).session.is(&six));
    for (topic, payload) in [
        ("presence:teachers", r#"{"userId":5,"role":"teacher"}"#),
        ("presence:student:5", r#"{"userId":"5","role":"student"}"#),
        ("chats:c", r#"{"userId":5,"role":"student"}"#),
        ("room:r", "{}"),
    ] {
        let mut client = Client::who_is(Vsn::V2, Identity::Open(None));
        assert!(!client.session.is(&five));
        client.send(&format!(r#"["1","1","{topic}","phx_join",{payload}]"#));
        client.session.admitted(1, &five, None, client.now).expect("no limit");
        client.ok(1, 1);
        assert!(client.session.is(&five) && !client.session.is(&six), "{topic}");
        client.send(&format!(r#"["1","2","{topic}","phx_leave",{{}}]"#));
        assert!(!client.session.is(&five), "{topic}");
    }
}
