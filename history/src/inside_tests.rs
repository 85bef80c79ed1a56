//! What operators are shown, and that it is one value of a feed whatever is in it.

use serde_json::json;
use switchboard_contract::limits::{FEED_BYTES_MAX, ID_BYTES_MAX, PAYLOAD_BYTES_MAX};
use switchboard_contract::names::{ChatId, UserId};
use switchboard_contract::wire::V1;

use super::*;

const THEN: &str = "2026-11-21T19:04:22.720Z";

fn name(name: &str) -> Incarnation {
    Incarnation::named(name).expect("a name")
}

fn lobby(queue: Vec<Waiting>, chats: Vec<Talk>, counts: u64) -> LobbyInside {
    let status = Status { epoch: counts, teachers: counts, waiting: counts, chatting: counts, ..Status::default() };
    LobbyInside { v: V1, leader: name("m"), since: THEN.into(), status, queue, chats }
}

fn gateway(gateway: &str, connections: u64) -> GatewayRecord {
    GatewayRecord {
        v: V1,
        gateway: name(gateway),
        address: "10.0.0.7:4000".into(),
        version: "0.1.0".into(),
        connections,
        since: THEN.into(),
    }
}

fn feed(feed: &str) -> FeedRecord {
    let record = json!({"v": 1, "feed": feed, "owner": "h", "epoch": 3, "asked": 1});
    serde_json::from_value(record).expect("a record")
}

fn json(of: &impl Serialize) -> serde_json::Value {
    serde_json::from_slice(&encode(of)).expect("JSON")
}

#[test]
fn all_that_fits_is_named_and_the_others_are_counted() {
    let names = ["a", "bb", "ccc"];
    assert_eq!(cut(names, 3, 1_000), (names.to_vec(), 0));
    assert_eq!(cut(names, 2, 1_000), (vec!["a", "bb"], 1));
    // With quotes and a comma each.
    assert_eq!(cut(names, 3, 4 + 5 + 6), (names.to_vec(), 0));
    assert_eq!(cut(names, 3, 4 + 5 + 5), (vec!["a", "bb"], 1));
    assert_eq!(cut(["ccc", "a"], 3, 5), (vec![], 2), "what is behind it does not take its place");
}

#[test]
fn a_gateway_that_does_not_answer_is_shown_as_its_record_has_it() {
    let answer = GatewayInside { v: V1, gateway: name("a"), connections: 9, draining: true, joins: 5, messages: 7 };
    let stranger = GatewayInside { gateway: name("c"), ..answer.clone() };
    let answers = [answer, stranger].map(|answer| (answer.gateway.clone(), answer)).into();
    let list = List::of_gateways(vec![gateway("b", 3), gateway("a", 2)], &answers);
    let expected = json!({
        "all": [
            {"name": "a", "version": "0.1.0", "connections": 9, "draining": true, "since": THEN, "joins": 5,
                "messages": 7},
            {"name": "b", "version": "0.1.0", "connections": 3, "draining": null, "since": THEN, "joins": null,
                "messages": null},
        ],
        "left_out": 0,
    });
    assert_eq!(json(&list), expected);
}

#[test]
fn feeds_say_how_often_they_were_asked_and_whether_they_are_stale() {
    let mut asked = feed("b:1");
    asked.polled = serde_json::from_value(json!({"at": THEN, "polls": 10, "failed": 2})).expect("polled");
    asked.stale = Some(Stale { since: THEN.into(), reason: "no answer in time".into() });
    let expected = json!({
        "all": [
            {"name": "a", "owner": "h", "polls": 0, "failed": 0, "stale": null},
            {"name": "b:1", "owner": "h", "polls": 10, "failed": 2,
                "stale": {"since": THEN, "reason": "no answer in time"}},
        ],
        "left_out": 4,
    });
    assert_eq!(json(&List::of_feeds(vec![asked, feed("a")], 4)), expected);
}

#[test]
fn ids_are_shown_in_the_type_in_which_they_came_and_what_is_cut_is_counted() {
    let waiting = |student: UserId| Waiting { student, since: THEN.into() };
    let two = vec![waiting(UserId::from(7)), waiting(UserId::text("7").expect("an id"))];
    let talk = Talk {
        id: ChatId::new("c-1").expect("an id"),
        teacher: UserId::from(1),
        student: UserId::text("ada").expect("an id"),
        since: THEN.into(),
    };
    let lobby = lobby(two, vec![talk], 5);
    let first = json!([{"student": 7, "since": THEN}, {"student": "7", "since": THEN}]);
    assert_eq!(json(&Queue::of(&lobby)), json!({"first": first, "left_out": 3}));
    let newest = json!([{"id": "c-1", "teacher": 1, "student": "ada", "since": THEN}]);
    assert_eq!(json(&Chats::of(&lobby)), json!({"newest": newest, "left_out": 4}));
    let standbys = ["y", "x"].map(name).into();
    let expected = json!({"leader": "m", "epoch": 5, "since": THEN, "standbys": ["x", "y"], "left_out": 0});
    assert_eq!(json(&Matchers::of(Some(&lobby), standbys)), expected);
    let nobody = json!({"leader": null, "epoch": null, "since": null, "standbys": [], "left_out": 0});
    assert_eq!(json(&Matchers::of(None, BTreeSet::new())), nobody);
}

/// The system with as much of everything as can be, and these ids: all of `id`, but for a number at their end.
fn crowded(id: &str) -> System {
    let numbered = |n: usize, most: usize| format!("{}{n:04}", &id[..id.len().min(most) - 4]);
    let user = |n| UserId::text(&numbered(n, ID_BYTES_MAX)).expect("an id");
    let named = |n| name(&numbered(n, ID_BYTES_MAX));
    let queue = (0..OPERATOR_QUEUE_MAX).map(|n| Waiting { student: user(n), since: THEN.into() });
    let chats = (0..OPERATOR_CHATS_MAX).map(|n| Talk {
        id: ChatId::new(&numbered(n, ID_BYTES_MAX)).expect("an id"),
        teacher: user(n),
        student: user(n),
        since: THEN.into(),
    });
    let mut lobby = lobby(queue.collect(), chats.collect(), u64::MAX);
    lobby.leader = named(0);
    let records = (0..1_000).map(|n| GatewayRecord { version: "9".repeat(40), ..gateway(named(n).as_str(), u64::MAX) });
    let answers = (0..1_000).map(|n| GatewayInside {
        v: V1,
        gateway: named(n),
        connections: u64::MAX,
        draining: false,
        joins: u64::MAX,
        messages: u64::MAX,
    });
    let answers = answers.map(|answer| (answer.gateway.clone(), answer)).collect();
    let feeds = (0..OPERATOR_FEEDS_MAX).map(|n| {
        let mut feed = feed(&format!("n:{}", numbered(n, FEED_BYTES_MAX - 2)));
        feed.owner = named(n);
        feed.stale = Some(Stale { since: THEN.into(), reason: "the source cannot be reached".into() });
        feed
    });
    let histories = cut((0..100).map(named), OPERATOR_NAMES_MAX, OPERATOR_NAMES_BYTES_MAX);
    System {
        at: THEN.into(),
        matcher: Matchers::of(Some(&lobby), (0..STANDBYS_MAX).map(named).collect()),
        lobby: Some(Counts::of(&Status { finished: u64::MAX, ..lobby.status })),
        queue: Some(Queue::of(&lobby)),
        chats: Some(Chats::of(&lobby)),
        gateways: Some(List::of_gateways(records.collect(), &answers)),
        histories: Some(histories.0),
        histories_left_out: usize::MAX,
        feeds: Some(List::of_feeds(feeds.collect(), usize::MAX / 2)),
    }
}

#[test]
fn it_is_one_value_of_a_feed_whatever_ids_are_in_it() {
    // The longest ids, of which each byte is six in JSON; and those that there are.
    for (id, least) in [("\u{1}".repeat(FEED_BYTES_MAX), [8, 3, 7, 3]), ("x".repeat(24), [80, 40, 25, 30])] {
        let system = crowded(&id);
        let size = encode(&system).len();
        assert!(size > PAYLOAD_BYTES_MAX / 2 && size <= PAYLOAD_BYTES_MAX, "{size} bytes");
        let json = json(&system);
        let lists = [("queue", "first"), ("chats", "newest"), ("gateways", "all"), ("feeds", "all")];
        let shown = lists.map(|(part, list)| json[part][list].as_array().expect("a list").len());
        assert!(shown.iter().zip(least).all(|(shown, least)| *shown >= least), "{shown:?}");
        assert_eq!(json["gateways"]["left_out"], 1_000 - shown[2]);
        assert_eq!(json["queue"]["left_out"], u64::MAX - shown[0] as u64);
        assert!(!json["histories"].as_array().expect("a list").is_empty());
    }
}
