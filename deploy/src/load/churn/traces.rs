//! What a system holds for rooms: asked of NATS, and of its processes' admin ports.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use serde::{Deserialize, Serialize};
use switchboard_contract::admin;
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::names::{FEEDS_BUCKET, LOBBY_BUCKET, ROOMS_BUCKET, ROOMS_STREAM, bucket_stream};
use tokio::time::{Instant, sleep};

use crate::runfile::{Process, RunFile};

/// So many looks in turn have to find the same before the first round,
const REST_LOOKS: u32 = 3;
/// unless that takes longer than this.
const REST_WITHIN: Duration = Duration::from_secs(20);

/// What is held, or was held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::load) struct Traces {
    /// Messages in the stream of KV `rooms`: records, and markers of deleted ones.
    pub(in crate::load) records: u64,
    /// Messages in stream `ROOMS`.
    pub(in crate::load) entries: u64,
    /// Subscriptions that all NATS servers know.
    pub(in crate::load) subscriptions: u64,
    /// Chats and rooms that gateways follow.
    pub(in crate::load) topics: u64,
    /// Rooms whose presence gateways follow.
    pub(in crate::load) presence: u64,
    /// Logs that history keeps.
    pub(in crate::load) logs: u64,
    /// Messages in the stream of KV `lobby`.
    pub(in crate::load) lobby: u64,
    /// Messages in the stream of KV `feeds`.
    pub(in crate::load) feeds: u64,
    /// Sockets of clients.
    pub(in crate::load) connections: u64,
}

/// What is held, each with its name.
type Named = [(&'static str, u64); 9];

impl Traces {
    pub(in crate::load) fn named(&self) -> Named {
        let Traces { records, entries, subscriptions, topics, presence, logs, lobby, feeds, connections } = *self;
        [
            ("records", records),
            ("entries", entries),
            ("subscriptions", subscriptions),
            ("topics", topics),
            ("presence", presence),
            ("logs", logs),
            ("records of the lobby", lobby),
            ("records of feeds", feeds),
            ("connections", connections),
        ]
    }

    /// What there is more of than before; `None`: nothing.
    pub(in crate::load) fn more_than(&self, before: &Traces) -> Option<String> {
        let pairs = self.named().into_iter().zip(before.named());
        let more: Vec<String> = pairs
            .filter(|((_, now), (_, before))| now > before)
            .map(|((what, now), (_, before))| format!("{now} {what}, {before} before"))
            .collect();
        (!more.is_empty()).then(|| more.join("; "))
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.named().iter().map(|(what, n)| format!("{n} {what}")).collect();
        f.write_str(&all.join(", "))
    }
}

/// Asks.
pub(in crate::load) struct Look {
    folder: PathBuf,
    context: jetstream::Context,
}

impl Look {
    /// Connects to the NATS of what runs here.
    pub(in crate::load) async fn new(folder: &Path) -> anyhow::Result<Look> {
        let run = RunFile::read(folder)?.context("nothing runs here: churn looks into its processes")?;
        let context = jetstream::new(run.connect("switchboard-load").await?);
        let look = Look { folder: folder.to_owned(), context };
        // The first request brings a subscription for answers, which is not to be found later.
        look.messages(ROOMS_STREAM).await?;
        Ok(look)
    }

    /// The age at which the log drops its entries.
    pub(in crate::load) async fn log_max_age(&self) -> anyhow::Result<Duration> {
        Ok(self.context.get_stream(ROOMS_STREAM).await?.cached_info().config.max_age)
    }

    pub(in crate::load) async fn look(&self) -> anyhow::Result<Traces> {
        let mut traces = Traces {
            records: self.messages(&bucket_stream(ROOMS_BUCKET)).await?,
            entries: self.messages(ROOMS_STREAM).await?,
            lobby: self.messages(&bucket_stream(LOBBY_BUCKET)).await?,
            feeds: self.messages(&bucket_stream(FEEDS_BUCKET)).await?,
            ..Traces::default()
        };
        for process in RunFile::read(&self.folder)?.unwrap_or_default().processes {
            match process.kind() {
                "nats" => traces.subscriptions += subscriptions(&ask(&process, "/varz").await?)?,
                "gateway" => {
                    let metrics = ask(&process, "/metrics").await?;
                    traces.topics += sum(&metrics, "switchboard_gateway_topics");
                    traces.connections += sum(&metrics, "switchboard_gateway_connections");
                    traces.presence += sum(&metrics, "switchboard_gateway_presence_rooms");
                }
                "history" => traces.logs += sum(&ask(&process, "/metrics").await?, "switchboard_history_logs_kept"),
                _ => {}
            }
        }
        Ok(traces)
    }

    /// What is held once nothing changes any more: a system that has just started still has requests on their way.
    pub(in crate::load) async fn at_rest(&self) -> anyhow::Result<Traces> {
        let until = Instant::now() + REST_WITHIN;
        let (mut last, mut same) = (self.look().await?, 0);
        while same < REST_LOOKS && Instant::now() < until {
            sleep(super::LOOK_EVERY).await;
            let now = self.look().await?;
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    async fn messages(&self, stream: &str) -> anyhow::Result<u64> {
        let stream = self.context.get_stream(stream).await.with_context(|| format!("stream {stream}"))?;
        Ok(stream.cached_info().state.messages)
    }
}

async fn ask(process: &Process, path: &str) -> anyhow::Result<String> {
    let name = &process.name;
    let admin = process.admin.with_context(|| format!("{name} has no admin port"))?;
    let (_, body) = admin::ask(admin, path, REQUEST_TIMEOUT).await.with_context(|| format!("{name} is silent"))?;
    Ok(body)
}

fn subscriptions(varz: &str) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Varz {
        subscriptions: u64,
    }
    Ok(serde_json::from_str::<Varz>(varz).context("NATS does not say how many subscriptions it has")?.subscriptions)
}

/// The sum of a metric over all its labels; 0 before it was first set.
pub(in crate::load) fn sum(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix('{').map_or(rest.strip_prefix(' '), |labels| Some(labels.rsplit_once(' ')?.1));
        value?.parse::<u64>().ok()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let metrics = "# TYPE topics gauge\ntopics{kind=\"chat\"} 2\ntopics{kind=\"room\"} 3\ntopics_max 9\nlogs 4\n";
        assert_eq!((sum(metrics, "topics"), sum(metrics, "logs"), sum(metrics, "none")), (5, 4, 0));
    }

    #[test]
    fn only_what_is_more_than_before_is_told() {
        let before = Traces { records: 1, entries: 5, ..Traces::default() };
        assert_eq!(Traces { records: 1, entries: 0, ..before }.more_than(&before), None);
        let more = Traces { records: 2, logs: 1, ..before }.more_than(&before).unwrap_or_default();
        assert_eq!(more, "2 records, 1 before; 1 logs, 0 before");
        assert!(subscriptions(r#"{"subscriptions":7,"x":1}"#).is_ok_and(|n| n == 7) && subscriptions("{}").is_err());
    }
}
