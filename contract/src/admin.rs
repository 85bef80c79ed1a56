//! The admin port of every process: `/health/live`, `/health/ready`, `/metrics`.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
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

/// Serves the admin port until `stop`. Installs the metrics recorder of this process, so it is called once, first.
///
/// # Errors
/// If the address cannot be bound, or a recorder is installed already.
pub async fn serve(addr: SocketAddr, readiness: Readiness, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let metrics = PrometheusBuilder::new().install_recorder().context("cannot install the metrics recorder")?;
    let listener =
        tokio::net::TcpListener::bind(addr).await.with_context(|| format!("cannot bind --admin-addr {addr}"))?;
    let addr = listener.local_addr()?;
    let upkeep = metrics.clone();
    let upkeep_stop = stop.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(5));
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
