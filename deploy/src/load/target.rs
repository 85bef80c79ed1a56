//! The system that gets the load: its gateways, and how many users they say are there.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use switchboard_contract::process::UsageError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::TargetArgs;
use crate::runfile::RunFile;

/// How long an earlier run's users may take to be gone: their grace time, and some.
const EMPTY_WITHIN: Duration = Duration::from_secs(25);
/// One question to a gateway.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// A larger answer is none. Bytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// The gateways of a system.
pub(super) struct Target {
    gateways: Vec<Rc<str>>,
}

/// What `GET /` of a gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Present {
    pub(super) teachers: u64,
    pub(super) students: u64,
}

impl Target {
    /// The gateways given, or else those that run here.
    pub(super) fn find(args: &TargetArgs) -> anyhow::Result<Target> {
        if !args.gateways.is_empty() {
            return Ok(Target { gateways: args.gateways.iter().map(|url| url.trim_end_matches('/').into()).collect() });
        }
        let run = RunFile::read(&args.folder)?.unwrap_or_default();
        let gateways = run.processes.iter().filter(|p| p.kind() == "gateway");
        let gateways: Vec<Rc<str>> =
            gateways.filter_map(|p| p.addr).map(|addr| format!("http://{addr}").into()).collect();
        if gateways.is_empty() {
            let folder = args.folder.display();
            return Err(
                UsageError(format!("nothing runs here ({folder}/run.json): start it, or give --gateway")).into()
            );
        }
        Ok(Target { gateways })
    }

    /// The gateways of the students, and those of the teachers: others, if there are two.
    pub(super) fn halves(&self) -> (&[Rc<str>], &[Rc<str>]) {
        match self.gateways.len() {
            0 | 1 => (&self.gateways, &self.gateways),
            n => self.gateways.split_at(n.div_ceil(2)),
        }
    }

    /// All gateways.
    pub(super) fn gateways(&self) -> &[Rc<str>] {
        &self.gateways
    }

    /// What every gateway says.
    pub(super) async fn present(&self) -> anyhow::Result<Vec<Present>> {
        let mut all = Vec::with_capacity(self.gateways.len());
        for gateway in &self.gateways {
            let asked = timeout(ASK_TIMEOUT, ask(gateway)).await;
            all.push(asked.context("no answer in time").flatten().with_context(|| format!("cannot ask {gateway}"))?);
        }
        Ok(all)
    }

    /// Waits until nobody of an earlier run is left: what is checked is only true where no others play.
    pub(super) async fn wait_until_empty(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + EMPTY_WITHIN;
        loop {
            let present = self.present().await?;
            let Some(some) = present.iter().find(|p| p.teachers + p.students > 0) else { return Ok(()) };
            if Instant::now() > deadline {
                let Present { teachers, students } = some;
                bail!("the lobby is not empty: {teachers} teachers and {students} students are there");
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// `GET /` of a gateway.
async fn ask(gateway: &str) -> anyhow::Result<Present> {
    let (_, rest) = gateway.split_once("://").unwrap_or(("", gateway));
    let host = rest.split('/').next().unwrap_or(rest);
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(&address).await?;
    let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    serde_json::from_str(body).with_context(|| format!("GET / is answered with {:?}", head.lines().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(urls: &[&str]) -> Target {
        Target { gateways: urls.iter().map(|url| (*url).into()).collect() }
    }

    #[test]
    fn students_and_teachers_are_on_different_gateways_if_there_are_two() {
        let of = |urls: &[&str]| {
            let target = target(urls);
            let (students, teachers) = target.halves();
            (students.join(" "), teachers.join(" "))
        };
        assert_eq!(of(&["a"]), ("a".into(), "a".into()));
        assert_eq!(of(&["a", "b"]), ("a".into(), "b".into()));
        assert_eq!(of(&["a", "b", "c"]), ("a b".into(), "c".into()));
    }
}
