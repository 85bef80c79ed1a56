//! `switchboard status`: who leads, the gateways with their connections, the lobby's counts, and the feeds that are
//! polled.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use async_nats::{Client, jetstream};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use switchboard_contract::feed::{FeedRecord, Polled, Stale};
use switchboard_contract::limits::REQUEST_TIMEOUT;
use switchboard_contract::lobby::{GatewayRecord, Leader};
use switchboard_contract::names::{FEEDS_BUCKET, FeedId, GATEWAYS_BUCKET, Incarnation, MatcherVerb};
use switchboard_contract::process::EXIT_FAILURE;
use switchboard_contract::wire;

use crate::matchers;
use crate::runfile::{self, FOLDER, Process, RunFile};

/// What NATS knows it by.
const NAME: &str = "switchboard-status";
/// Feeds that are shown; the others are counted.
const FEEDS_SHOWN: usize = 100;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NATS servers, separated by commas. Without it: those of the local runner.
    #[arg(long, env = "SWITCHBOARD_NATS_URL")]
    nats_url: Option<String>,
    /// File with what NATS knows you by: credentials (.creds), or the seed of an nkey alone.
    #[arg(long, env = "SWITCHBOARD_NATS_CREDS", value_name = "FILE", requires = "nats_url")]
    nats_creds: Option<PathBuf>,
    /// File with the CA of the NATS servers' certificates (PEM). With it TLS is required.
    #[arg(long, env = "SWITCHBOARD_NATS_CA", value_name = "FILE", requires = "nats_url")]
    nats_ca: Option<PathBuf>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// The folder of everything that this tool keeps.
    #[arg(long, env = "SWITCHBOARD_FOLDER", default_value = FOLDER)]
    folder: PathBuf,
}

/// What is seen of a running system.
#[derive(Debug, Serialize)]
struct Seen {
    /// `None`: no matcher answers.
    matcher: Option<Leader>,
    /// The leader's name in run.json, of a system that runs here.
    process: Option<String>,
    /// Sorted by address.
    gateways: Vec<GatewayRecord>,
    /// The first [`FEEDS_SHOWN`] by name.
    feeds: Vec<FeedSeen>,
    /// How many feeds there are.
    feed_count: usize,
}

/// A feed that somebody listens to.
#[derive(Debug, Serialize)]
struct FeedSeen {
    feed: FeedId,
    owner: Incarnation,
    epoch: u64,
    /// How old its value is, in seconds; `None`: there is none yet.
    age: Option<u64>,
    /// How long ago its owner asked the source, in seconds, as far as it has said so; `None`: not yet.
    polled: Option<u64>,
    /// How often it did since its epoch began.
    polls: u64,
    /// How many of those brought no value.
    errors: u64,
    stale: Option<Stale>,
}

/// Shows it.
///
/// # Errors
/// If nothing runs, or NATS does not answer.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(look(&args))?;
    let shown = if args.json { serde_json::to_string_pretty(&seen)? + "\n" } else { table(&seen) };
    print(&shown);
    Ok(if seen.matcher.is_some() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

/// The answer of this command, on standard output.
#[allow(clippy::print_stdout)]
fn print(text: &str) {
    print!("{text}");
}

async fn look(args: &Args) -> anyhow::Result<Seen> {
    let (client, processes): (Client, Vec<Process>) = match &args.nats_url {
        Some(url) => {
            let (creds, ca) = (args.nats_creds.as_deref(), args.nats_ca.as_deref());
            (runfile::connect(url, creds, ca, NAME).await?, Vec::new())
        }
        None => {
            let run = local(args)?;
            (run.connect(NAME).await?, run.processes)
        }
    };
    let asked = client.request(MatcherVerb::Status.subject(), Bytes::new());
    let matcher = match tokio::time::timeout(REQUEST_TIMEOUT, asked).await {
        Ok(Ok(answer)) => Some(wire::decode("leader", &answer.payload)?),
        Ok(Err(_)) | Err(_) => None,
    };
    let mut gateways: Vec<GatewayRecord> =
        tokio::time::timeout(REQUEST_TIMEOUT, records(&client, GATEWAYS_BUCKET, usize::MAX))
            .await
            .context("JetStream is silent")??
            .0;
    gateways.sort_by(|a, b| a.address.cmp(&b.address));
    let process = matchers::leader(&matchers::ask(&processes).await).map(|leader| leader.name.clone());
    let records = tokio::time::timeout(REQUEST_TIMEOUT, records(&client, FEEDS_BUCKET, FEEDS_SHOWN));
    let (feeds, feed_count) = records.await.context("JetStream is silent")??;
    let feeds = feeds.into_iter().map(|record| seen_feed(record, SystemTime::now())).collect();
    Ok(Seen { matcher, process, gateways, feeds, feed_count })
}

fn local(args: &Args) -> anyhow::Result<RunFile> {
    let run_file = RunFile::read(&args.folder)?;
    match run_file.filter(|run_file| run_file.runner.is_some_and(|runner| runner.is_alive())) {
        Some(run_file) => Ok(run_file),
        None => bail!("nothing runs here: start it with `make run`, or name a system with --nats-url"),
    }
}

/// The first records of a bucket by key, at most so many, and how many there are.
async fn records<R: for<'de> Deserialize<'de>>(
    client: &async_nats::Client,
    bucket: &str,
    most: usize,
) -> anyhow::Result<(Vec<R>, usize)> {
    let context = jetstream::new(client.clone());
    // Services make the buckets; where none has run there are no records either.
    let Ok(bucket) = context.get_key_value(bucket).await else { return Ok((Vec::new(), 0)) };
    let mut keys: Vec<String> = bucket.keys().await?.try_collect().await?;
    keys.sort();
    let mut records = Vec::new();
    for key in keys.iter().take(most) {
        if let Some(json) = bucket.get(key).await? {
            records.push(wire::decode("record", &json)?);
        }
    }
    Ok((records, keys.len()))
}

fn seen_feed(record: FeedRecord, now: SystemTime) -> FeedSeen {
    use time::format_description::well_known::Rfc3339;
    let FeedRecord { feed, owner, epoch, last, stale, polled, .. } = record;
    let age = |at: &str| {
        let at = time::OffsetDateTime::parse(at, &Rfc3339).ok()?;
        Some(now.duration_since(at.into()).unwrap_or_default().as_secs())
    };
    let age_of_value = last.and_then(|last| age(&last.at));
    let Polled { at, polls, failed } = polled.unwrap_or_default();
    FeedSeen { feed, owner, epoch, age: age_of_value, polled: age(&at), polls, errors: failed, stale }
}

fn table(seen: &Seen) -> String {
    let mut text = String::new();
    let process = seen.process.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let lines = match &seen.matcher {
        Some(Leader { leader, status, .. }) => [
            format!("matcher   {leader}{process} leads, epoch {}", status.epoch),
            format!("teachers  {}", status.teachers),
            format!(
                "students  {} (waiting {}, chatting {}, finished {})",
                status.students(),
                status.waiting,
                status.chatting,
                status.finished
            ),
        ]
        .join("\n"),
        None => "matcher   none answers".to_owned(),
    };
    let _ = writeln!(text, "{lines}\n");
    let width = seen.gateways.iter().map(|gateway| gateway.gateway.as_str().len()).max().unwrap_or(0).max(7);
    let versions = seen.gateways.iter().map(|gateway| gateway.version.len()).max().unwrap_or(0).max(10);
    let _ =
        writeln!(text, "{:width$}  {:21}  {:>11}  {:versions$}  since", "gateway", "address", "connections", "version");
    for gateway in &seen.gateways {
        let GatewayRecord { gateway, address, version, connections, since, .. } = gateway;
        let gateway = gateway.as_str();
        let _ = writeln!(text, "{gateway:width$}  {address:21}  {connections:>11}  {version:versions$}  {since}");
    }
    if seen.feed_count == 0 {
        return text;
    }
    let width = seen.feeds.iter().map(|feed| feed.feed.as_str().len()).max().unwrap_or(0).max(4);
    let owners = seen.feeds.iter().map(|feed| feed.owner.as_str().len()).max().unwrap_or(0).max(5);
    let (feed, owner) = ("feed", "owner");
    let _ = writeln!(text, "\n{feed:width$}  {owner:owners$}  value age  last poll      polls     errors  stale");
    for FeedSeen { feed, owner, age, polled, polls, errors, stale, .. } in &seen.feeds {
        let ago = |age: &Option<u64>| age.map_or("none yet".to_owned(), |age| format!("{age} s"));
        let (feed, owner, age, polled) = (feed.as_str(), owner.as_str(), ago(age), ago(polled));
        let stale = stale.as_ref().map_or(String::new(), |stale| format!("  {} since {}", stale.reason, stale.since));
        let _ = writeln!(text, "{feed:width$}  {owner:owners$}  {age:>9}  {polled:>9}  {polls:>9}  {errors:>9}{stale}");
    }
    if seen.feed_count > seen.feeds.len() {
        let _ = writeln!(text, "and {} more", seen.feed_count - seen.feeds.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use switchboard_contract::lobby::Status;
    use switchboard_contract::names::Incarnation;
    use switchboard_contract::wire::V1;

    #[test]
    fn the_table_has_a_row_for_each_gateway() {
        let name = |name| Incarnation::named(name).expect("a name");
        let gateway = |n: u16| GatewayRecord {
            v: V1,
            gateway: name("host-abc123"),
            address: format!("127.0.0.1:400{n}"),
            version: "0.1.0".into(),
            connections: 7,
            since: "2023-11-14T22:13:20.050Z".into(),
        };
        let status = Status { epoch: 3, waiting: 5, chatting: 2, finished: 1, teachers: 4, ..Status::default() };
        let matcher = Some(Leader { v: V1, leader: name("host-def456"), status, waiting_since: None });
        assert_eq!(
            table(&Seen {
                matcher,
                process: Some("matcher-2".into()),
                gateways: vec![gateway(0), gateway(1)],
                feeds: vec![],
                feed_count: 0
            }),
            "matcher   host-def456 (matcher-2) leads, epoch 3\n\
             teachers  4\n\
             students  8 (waiting 5, chatting 2, finished 1)\n\
             \n\
             gateway      address                connections  version     since\n\
             host-abc123  127.0.0.1:4000                   7  0.1.0       2023-11-14T22:13:20.050Z\n\
             host-abc123  127.0.0.1:4001                   7  0.1.0       2023-11-14T22:13:20.050Z\n"
        );
        let none = Seen { matcher: None, process: None, gateways: vec![], feeds: vec![], feed_count: 0 };
        assert!(table(&none).contains("none answers"));
    }

    #[test]
    fn the_table_has_a_row_for_each_feed() {
        let owner = Incarnation::named("host-abc123").expect("a name");
        let record = |text: &str| serde_json::from_str(text).expect("a record");
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_050);
        let last = r#"{"value":7,"version":[3,1],"at":"2023-11-14T22:13:10.000Z"}"#;
        let stale = r#"{"since":"2023-11-14T22:13:12.000Z","reason":"no answer in time"}"#;
        let new = record(&format!(r#"{{"v":1,"feed":"orders:a","owner":"{owner}","epoch":3,"asked":1}}"#));
        let polled = r#"{"at":"2023-11-14T22:13:19.000Z","polls":700,"failed":8}"#;
        let said = format!(r#""last":{last},"stale":{stale},"polled":{polled}"#);
        let old = format!(r#"{{"v":1,"feed":"n","owner":"{owner}","epoch":3,"asked":1,{said}}}"#);
        let feeds = vec![seen_feed(record(&old), now), seen_feed(new, now)];
        let text = table(&Seen { matcher: None, process: None, gateways: vec![], feeds, feed_count: 5 });
        let feeds = text.split("since\n").nth(1).expect("the table of feeds");
        assert_eq!(
            feeds,
            "\n\
             feed      owner        value age  last poll      polls     errors  stale\n\
             n         host-abc123       10 s        1 s        700          8  no answer in time \
             since 2023-11-14T22:13:12.000Z\n\
             orders:a  host-abc123   none yet   none yet          0          0\n\
             and 3 more\n"
        );
    }
}
