//! What all sessions of a gateway count: joins that have come about, and messages that were taken.

use std::sync::atomic::Ordering;

use super::tests::Client;
use super::*;
use crate::mailbox::Event;

/// Joins, and messages, so far.
fn counted(client: &Client) -> (u64, u64) {
    let totals = &client.session.totals;
    (totals.joins.load(Ordering::Relaxed), totals.messages.load(Ordering::Relaxed))
}

fn refuse(client: &mut Client, chan: u64, serial: u32) {
    let outcome = Outcome::Refused(Reason::Unavailable.into());
    client.event(Event::Done { chan, serial, outcome });
}

#[test]
fn joins_count_when_they_have_come_about() {
    let mut client = Client::who_is(Vsn::V2, Identity::Open(None));
    for (topic, payload) in [
        ("presence:student:5", r#"{"userId":5,"role":"student"}"#),
        ("chats:c", r#"{"userId":5,"role":"student"}"#),
        ("feed:news", "{}"),
    ] {
        let (joins, _) = counted(&client);
        let serial = u32::try_from(joins).expect("few") * 2 + 1;
        client.send(&format!(r#"["1","1","{topic}","phx_join",{payload}]"#));
        refuse(&mut client, u64::from(serial), serial);
        assert_eq!(counted(&client).0, joins, "refused: {topic}");
        client.send(&format!(r#"["1","1","{topic}","phx_join",{payload}]"#));
        assert_eq!(counted(&client).0, joins, "not answered: {topic}");
        client.ok(u64::from(serial) + 1, serial + 1);
        assert_eq!(counted(&client), (joins + 1, 0), "{topic}");
    }
    client.after(limits::ANSWER_TIMEOUT);
    assert_eq!(counted(&client), (3, 0));
}

#[test]
fn messages_count_when_they_are_taken_and_nothing_else_does() {
    let say = r#"{"message":1,"broadcast":true,"body":"b"}"#;
    for (topic, join, pushes) in [
        (
            "chats:c",
            r#"{"userId":5,"role":"teacher"}"#,
            [("teacher:joined", say, 0), ("history", "{}", 0), ("chat:terminate", "{}", 0), ("teacher:send", say, 1)]
                .as_slice(),
        ),
        (
            "room:r",
            r#"{"userId":5}"#,
            &[
                ("new_msg", say, 1),
                ("new_msg", r#"{"to":[{"userId":6}]}"#, 1),
                ("new_message", say, 1),
                ("typing", "{}", 0),
                ("room:update", r#"{"title":"t"}"#, 0),
                ("history", "{}", 0),
            ],
        ),
        ("presence:student:5", r#"{"userId":5,"role":"student"}"#, &[("student:ready", "{}", 0)]),
    ] {
        let mut client = Client::who_is(Vsn::V2, Identity::Open(None));
        client.send(&format!(r#"["1","1","{topic}","phx_join",{join}]"#));
        client.ok(1, 1);
        let (mut serial, mut taken) = (1, 0);
        for (event, payload, counts) in pushes {
            for refused in [true, false] {
                serial += 1;
                let frames = client.send(&format!(r#"["1","{serial}","{topic}","{event}",{payload}]"#));
                assert!(
                    frames.len() == 1 && frames[0].contains("Push") || frames[0].starts_with("lobby"),
                    "{frames:?}"
                );
                assert_eq!(counted(&client), (1, taken), "not answered: {event}");
                if refused {
                    refuse(&mut client, 1, serial);
                } else {
                    client.ok(1, serial);
                    taken += counts;
                }
                assert_eq!(counted(&client), (1, taken), "{event}");
            }
        }
    }
}
