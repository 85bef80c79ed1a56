//! What a verified token allows on a socket, how long, and how it is renewed.

use super::tests::Client;
use super::*;

use switchboard_contract::lobby::Role;
use switchboard_contract::names::UserId;

use crate::auth::Verified;
use crate::auth::claims::Claims;

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
    client.event(Event::Renewed { chan: 1, serial, identity: identity.map_err(Refusal::from) })
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
