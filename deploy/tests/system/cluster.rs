//! The links of a system: between the servers of its cluster, and from each service to each server.

use switchboard_contract::testing::{NatsServer, eventually};

use crate::harness::{Shape, System};
use crate::link::{Link, Mode};
use crate::process::Process;

/// Which service, and of its kind which, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Gateway(usize),
    Matcher(usize),
    History(usize),
}

/// All links; none, if the system has none.
#[derive(Default)]
pub(crate) struct Links {
    /// From which server to which, counted from 0.
    routes: Vec<(usize, usize, Link)>,
    services: Vec<(Service, Vec<Link>)>,
}

impl Links {
    /// The servers of a system, and the links between them.
    pub(crate) async fn servers(shape: &Shape<'_>) -> Option<(NatsServer, Links)> {
        let mut links = Links::default();
        let nats = match shape.nats_servers {
            1 => NatsServer::start().await?,
            servers if shape.links => {
                let over = |from, to, port| {
                    let link = Link::to(port);
                    let port = link.port;
                    links.routes.push((from, to, link));
                    port
                };
                NatsServer::start_cluster_over(servers, over).await?
            }
            servers => NatsServer::start_cluster(servers).await?,
        };
        Some((nats, links))
    }

    /// Where a service reaches NATS: over links of its own.
    pub(crate) fn url(&mut self, service: Service, nats: &NatsServer) -> String {
        let links: Vec<Link> = nats.ports().into_iter().map(Link::to).collect();
        let url = links.iter().map(|link| format!("nats://127.0.0.1:{}", link.port)).collect::<Vec<_>>().join(",");
        self.services.push((service, links));
        url
    }

    /// What happens between a service and each server from now on.
    pub(crate) fn set(&self, service: Service, mode: impl Fn(usize) -> Mode) {
        let (_, links) = self.services.iter().find(|(of, _)| *of == service).expect("a service with links");
        links.iter().enumerate().for_each(|(server, link)| link.set(mode(server)));
    }

    /// What happens between a server and the others from now on.
    pub(crate) fn around(&self, server: usize, mode: Mode) {
        let touching = self.routes.iter().filter(|(from, to, _)| *from == server || *to == server);
        touching.for_each(|(_, _, link)| link.set(mode));
    }
}

impl System {
    /// The server that leads a stream, counted from 0; waits until one does.
    pub(crate) async fn leader_of(&self, stream: &str) -> usize {
        let leader = std::cell::Cell::new(None);
        eventually(&format!("{stream} has a leader"), async || {
            let context = async_nats::jetstream::new(self.nats.client().await);
            let Ok(stream) = context.get_stream(stream).await else { return false };
            let named = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone());
            leader.set(named.and_then(|name| name.strip_prefix("node-")?.parse().ok()));
            leader.get().is_some()
        })
        .await;
        leader.get().expect("just found")
    }

    /// Waits until each stream of a cluster has a leader: until then nothing can be written to it.
    pub(crate) async fn streams_have_leaders(&self) {
        if self.nats.ports().len() > 1 {
            for stream in ["ROOMS", "KV_lobby", "KV_rooms", "KV_feeds", "KV_leases", "KV_gateways"] {
                self.leader_of(stream).await;
            }
        }
    }

    /// One of the services.
    pub(crate) fn service_mut(&mut self, service: Service) -> &mut Process {
        match service {
            Service::Gateway(n) => &mut self.gateways[n].1,
            Service::Matcher(n) => &mut self.matchers[n],
            Service::History(n) => &mut self.histories[n],
        }
    }

    /// Makes a server the leader of a stream.
    pub(crate) async fn make_leader(&self, stream: &str, server: usize) {
        eventually(&format!("node-{server} leads {stream}"), async || {
            if self.leader_of(stream).await == server {
                return true;
            }
            let wish = serde_json::json!({"placement": {"preferred": format!("node-{server}")}});
            let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
            let _ = self.nats.client().await.request(subject, wish.to_string().into()).await;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            false
        })
        .await;
    }
}
