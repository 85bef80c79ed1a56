//! A gateway as a feed's owner sees it, whose answers a test decides one by one.

use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::names::FeedId;
use switchboard_contract::nats::Nats;
use switchboard_contract::testing::{DEADLINE, NatsServer, eventually};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::listener::{Counter, want};

/// Subscribed to a feed.
pub(crate) struct Puppet {
    nats: Nats,
    pub(crate) feed: FeedId,
    heard: Subscriber,
    /// Client libraries do not send what only servers say.
    raw: BufReader<TcpStream>,
}

impl Puppet {
    /// Subscribes, and asks until the feed is there.
    pub(crate) async fn joined(server: &NatsServer, nats: &Nats, feed: &str) -> Puppet {
        let feed = FeedId::new(feed).expect("a feed");
        let heard = nats.client.subscribe(feed.out_subject()).await.expect("a subscription");
        nats.round_trip(REQUEST_TIMEOUT).await.expect("it is live");
        let address = server.url().replace("nats://", "");
        let mut raw = BufReader::new(TcpStream::connect(address).await.expect("a connection"));
        let mut info = String::new();
        raw.read_line(&mut info).await.expect("a server");
        raw.write_all(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n").await.expect("sent");
        eventually("the feed is there", async || want(nats, &feed).await.is_some_and(|wanted| wanted.feed.is_some()))
            .await;
        Puppet { nats: nats.clone(), feed, heard, raw }
    }

    /// The next request of the feed's owner. Whatever comes is dropped that was not asked.
    pub(crate) async fn asked(&mut self) -> Message {
        let asked = async {
            loop {
                let message = self.heard.next().await.expect("a subscription");
                if message.reply.is_some() {
                    return message;
                }
            }
        };
        tokio::time::timeout(DEADLINE, asked).await.expect("the owner asks whether anybody is here")
    }

    /// Somebody is here.
    pub(crate) async fn here(&self, asked: Message) {
        self.nats.publish(asked.reply.expect("a request").into_string(), "".into()).await;
    }

    /// As a server would say it: nobody is subscribed.
    pub(crate) async fn nobody(&mut self, asked: Message) {
        let reply = asked.reply.expect("a request");
        let said = format!("HPUB {reply} 16 16\r\nNATS/1.0 503\r\n\r\n\r\n");
        self.raw.write_all(said.as_bytes()).await.expect("sent");
        self.raw.flush().await.expect("sent");
    }

    /// Answers until the source was asked so often.
    pub(crate) async fn polled(&mut self, counter: &Counter, polls: u64) {
        while counter.polls() < polls {
            let asked = self.asked().await;
            self.here(asked).await;
            let _ = tokio::time::timeout(Duration::from_millis(50), counter.reaches(polls)).await;
        }
    }
}
