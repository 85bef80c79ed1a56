//! Keywords: in reads, and told when they change.

use std::time::Duration;

use futures_util::StreamExt as _;
use switchboard_contract::limits::KEYWORD_WINDOW;
use switchboard_contract::room::{Keyword, Live, RANK_MEMBER};
use switchboard_contract::testing::{DEADLINE, NatsServer};

use crate::rooms::Room;
use crate::service::Service;

const LINGER: Duration = Duration::from_secs(60);

fn words(keywords: &[Keyword]) -> Vec<&str> {
    keywords.iter().map(|keyword| &*keyword.keyword).collect()
}

#[tokio::test]
async fn members_are_told_when_keywords_come_and_when_they_go() {
    let Some(server) = NatsServer::start().await else { return };
    let service = Service::start_with(&server, LINGER, Duration::from_secs(3)).await;
    let (room, _) = Room::begun(&server, "r").await;
    let member = room.nats.client.subscribe(room.log.out_subject()).await.expect("a subscription");
    room.nats.round_trip(LINGER).await.expect("it is live");
    let mut told = member.filter_map(async |message| serde_json::from_slice::<Live>(&message.payload).ok()).boxed();
    let mut next = async || {
        let live = tokio::time::timeout(DEADLINE, told.next()).await.expect("in time").expect("the connection");
        let Live::Keywords { keywords, .. } = live;
        keywords
    };
    room.say("Which tram goes there?", 1, RANK_MEMBER).await;
    room.say("THE TRAM", 2, RANK_MEMBER).await;
    let keywords = next().await;
    assert_eq!(words(&keywords), ["tram"]);
    assert_eq!(room.read().await.room.expect("a room").keywords, keywords);
    assert_eq!(next().await, [], "it went by itself");
    assert_eq!(room.read().await.room.expect("a room").keywords, []);
    service.stop().await;
}

#[tokio::test]
async fn every_replica_has_the_same_keywords() {
    let Some(server) = NatsServer::start().await else { return };
    let first = Service::start_with(&server, LINGER, KEYWORD_WINDOW).await;
    let (room, _) = Room::begun(&server, "r").await;
    for n in 0..150 {
        room.say(&format!("word{} bicycle word{} ferry", n % 7, n % 13), n % 5, RANK_MEMBER).await;
    }
    let before = room.read().await.room.expect("a room").keywords;
    assert_eq!((before.len(), &words(&before)[..2]), (15, &["bicycle", "ferry"][..]));
    let second = Service::start_with(&server, LINGER, KEYWORD_WINDOW).await;
    first.stop().await;
    assert_eq!(room.read().await.room.expect("a room").keywords, before);
    second.stop().await;
}
