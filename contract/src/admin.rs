//! The admin port of every process: `/health/live`, `/health/ready`, `/metrics`.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Whether this process should get work, and if not, why. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<Result<(), &'static str>>);

impl Readiness {
    /// Not ready yet.
    pub fn new() -> Self {
        Readiness(watch::Sender::new(Err("starting")))
    }

    /// Sets it: `Err` says why not.
    pub fn set(&self, ready: Result<(), &'static str>) {
        self.0.send_if_modified(|now| {
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
    }

    /// What was set last.
    pub fn get(&self) -> Result<(), &'static str> {
        *self.0.borrow()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
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
    let handle = PrometheusBuilder::new().install_recorder().context("cannot install the metrics recorder")?;
    crate::wire::describe();
    crate::ack::describe();
    crate::nats::describe();
    crate::version::build_info();
    Ok(recorder.insert(handle).clone())
}

/// Serves the admin port until `stop`. Installs the metrics recorder of this process, so it is called first.
///
/// # Errors
/// If the address cannot be bound, or another recorder is installed already.
pub async fn serve(addr: SocketAddr, readiness: Readiness, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let metrics = recorder()?;
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
        .route("/metrics", get(|State(admin): State<Admin>| async move { admin.metrics.render() }))
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
            let (readiness, stop) = (Readiness::new(), CancellationToken::new());
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let addr = serve(any, readiness.clone(), stop.clone()).await.expect("served");
            let asked = async |path| ask(addr, path, Duration::from_secs(5)).await.expect("an answer");
            assert_eq!(asked("/health/live").await, (200, "live\n".into()));
            assert_eq!(asked("/health/ready").await, (503, "starting\n".into()));
            readiness.set(Ok(()));
            assert_eq!(asked("/health/ready").await, (200, "ready\n".into()));
            metrics::counter!("seen").increment(1);
            let metrics = asked("/metrics").await.1;
            assert!(metrics.contains("seen") && metrics.contains("switchboard_build_info{version="), "{metrics}");
            stop.cancel();
        }
    }
}
