//! The admin port of every process: `/health/live`, `/health/ready`, `/metrics`.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::version::COMMIT;

const READY: &str = "switchboard_ready";
const BUILD: &str = "switchboard_build_info";

/// Upper bounds of the buckets of latencies. Seconds: from what a machine needs to what a request may take at most.
const LATENCIES: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The same of times that people wait, whose names end like this.
const WAITS: [f64; 11] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0];
const WAITS_NAME: &str = "_waited_seconds";

/// Whether this process should get work, and if not, why. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    component: &'static str,
    ready: watch::Sender<Result<(), &'static str>>,
}

impl Readiness {
    /// Of this service, as metrics name it. Not ready yet.
    pub fn new(component: &'static str) -> Self {
        Readiness { component, ready: watch::Sender::new(Err("starting")) }
    }

    /// Sets it: `Err` says why not.
    pub fn set(&self, ready: Result<(), &'static str>) {
        self.ready.send_if_modified(|now| {
            if *now == ready {
                return false;
            }
            match ready {
                Ok(()) => tracing::info!("ready"),
                Err(why) => tracing::info!(why, "not ready"),
            }
            *now = ready;
            true
        });
        self.show();
    }

    /// What was set last.
    pub fn get(&self) -> Result<(), &'static str> {
        *self.ready.borrow()
    }

    fn show(&self) {
        metrics::gauge!(READY, "component" => self.component).set(f64::from(u8::from(self.get().is_ok())));
    }
}

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// The recorder of this process: one, also where a test runs a service twice.
fn recorder() -> anyhow::Result<PrometheusHandle> {
    static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = recorder.as_ref() {
        return Ok(handle.clone());
    }
    // Histograms and not summaries: of several pods together there is a quantile of the one, and none of the other.
    let handle = PrometheusBuilder::new()
        .set_buckets(&LATENCIES)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix(WAITS_NAME.to_owned()), &WAITS))
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot install the metrics recorder")?;
    describe();
    crate::wire::describe();
    crate::ack::describe();
    crate::nats::describe();
    Ok(recorder.insert(handle).clone())
}

/// Says what each metric of every process means.
fn describe() {
    metrics::describe_gauge!(READY, "1 while this process should get work, else 0.");
    metrics::describe_gauge!(BUILD, "1; the labels say which service it is, of which version and commit.");
    metrics_process::Collector::default().describe();
}

/// All metrics, those of the process as they are now.
async fn render(State(admin): State<Admin>) -> String {
    metrics_process::Collector::default().collect();
    admin.metrics.render()
}

/// Serves the admin port until `stop`. Installs the metrics recorder of this process, so it is called first.
///
/// # Errors
/// If the address cannot be bound, or another recorder is installed already.
pub async fn serve(addr: SocketAddr, readiness: Readiness, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let metrics = recorder()?;
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!(BUILD, "component" => readiness.component, "version" => version, "commit" => COMMIT).set(1.0);
    readiness.show();
    let listener =
        tokio::net::TcpListener::bind(addr).await.with_context(|| format!("cannot bind --admin-addr {addr}"))?;
    let addr = listener.local_addr()?;
    let upkeep = metrics.clone();
    let upkeep_stop = stop.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        while upkeep_stop.run_until_cancelled(tick.tick()).await.is_some() {
            upkeep.run_upkeep();
        }
    });
    let router = axum::Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(render))
        .with_state(Admin { readiness, metrics });
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin port failed");
        }
    });
    tracing::info!(%addr, "admin port open");
    Ok(addr)
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    match admin.readiness.get() {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// A larger answer of an admin port is cut off. Bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Asks an admin port, of this machine or of one's own network: the status code and the body.
///
/// # Errors
/// If there is no HTTP answer within `timeout`.
pub async fn ask(addr: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer: String =
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1).and_then(|code| code.parse().ok()) {
        Some(code) => Ok((code, body.to_owned())),
        None => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_and_metrics_are_served_also_to_a_second_run() {
        for _ in 0..2 {
            let (readiness, stop) = (Readiness::new("test"), CancellationToken::new());
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let addr = serve(any, readiness.clone(), stop.clone()).await.expect("served");
            let asked = async |path| ask(addr, path, Duration::from_secs(5)).await.expect("an answer");
            assert_eq!(asked("/health/live").await, (200, "live\n".into()));
            assert_eq!(asked("/health/ready").await, (503, "starting\n".into()));
            readiness.set(Ok(()));
            assert_eq!(asked("/health/ready").await, (200, "ready\n".into()));
            metrics::counter!("seen").increment(1);
            metrics::histogram!("answered_seconds").record(0.004);
            metrics::histogram!("people_waited_seconds").record(100.0);
            let (_, metrics) = asked("/metrics").await;
            for line in [
                "seen ",
                "switchboard_ready{component=\"test\"} 1\n",
                "switchboard_build_info{component=\"test\",version=\"",
                "answered_seconds_bucket{le=\"0.0025\"} 0\n",
                "people_waited_seconds_bucket{le=\"60\"} 0\n",
                "# TYPE process_cpu_seconds_total counter\n",
                "process_resident_memory_bytes ",
                "process_open_fds ",
                "process_start_time_seconds ",
            ] {
                assert!(metrics.contains(line), "{line:?} is missing in\n{metrics}");
            }
            stop.cancel();
        }
    }
}
