//! The nats-servers: one, or a cluster of three that replicates everything.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Args;
use super::plan::{Spec, Stage, local};

/// What JetStream of one server may keep on disk, also where the disk is smaller.
const DISK_MAX: &str = "10GB";

/// One server's configuration, and where it lies.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// The folder of its data.
    pub(super) store: PathBuf,
}

/// All servers.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    pub(super) specs: Vec<Spec>,
    pub(super) configs: Vec<Config>,
    /// Where clients connect: all of them, separated by commas.
    pub(super) url: String,
}

impl Servers {
    /// Decides names, ports and configurations: clients' ports first, then those on which the servers of a cluster
    /// find each other. A single server is called `nats`, so that its data stays where earlier versions kept it.
    ///
    /// # Errors
    /// If the ports do not fit.
    pub(super) fn new(args: &Args, folder: &Path) -> anyhow::Result<Servers> {
        let count = usize::from(args.nats_servers);
        let routes = if count == 1 { 0 } else { count };
        let routes: Vec<SocketAddr> =
            (count..count + routes).map(|n| local(args.nats_port, n)).collect::<anyhow::Result<_>>()?;
        let all = routes.iter().map(|addr| format!("\"nats://{addr}\"")).collect::<Vec<_>>().join(", ");
        let (mut specs, mut configs) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (addr, admin) = (local(args.nats_port, index)?, local(args.admin_port, index)?);
            let route = routes.get(index).copied();
            let name = if count == 1 { "nats".to_owned() } else { format!("nats-{}", index + 1) };
            let path = folder.join(format!("{name}.conf"));
            let store = folder.join("data").join(&name);
            let server_name = if count == 1 { "switchboard-local" } else { &name };
            let store_dir = serde_json::to_string(&store)?;
            let mut text = format!(
                "# Written by `switchboard up` at each start.\n\
                 server_name: \"{server_name}\"\n\
                 listen: \"{addr}\"\n\
                 http: \"{admin}\"\n\
                 jetstream {{ store_dir: {store_dir}, max_file_store: {DISK_MAX} }}\n"
            );
            if let Some(route) = route {
                text += &format!(
                    "cluster {{ name: switchboard, listen: \"{route}\", routes: [{all}], no_advertise: true }}\n"
                );
            }
            specs.push(Spec {
                name,
                index,
                stage: Stage::Nats,
                program: None,
                args: vec!["--config".into(), path.to_str().context("the folder's path is no text")?.into()],
                secrets: vec![],
                addr: Some(addr),
                route,
                admin,
                // Of a cluster's server: a leader is known, and its own replicas are current.
                health: "/healthz",
            });
            configs.push(Config { path, text, store });
        }
        let urls: Vec<String> =
            specs.iter().filter_map(|spec| spec.addr).map(|addr| format!("nats://{addr}")).collect();
        Ok(Servers { specs, configs, url: urls.join(",") })
    }
}
