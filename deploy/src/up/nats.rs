//! The nats-servers: one, or a cluster of three that replicates everything; open, or as in production.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Args;
use super::plan::{Spec, Stage, local};
use crate::credentials::Folder;

/// What JetStream of one server may keep on disk, also where the disk is smaller.
const DISK_MAX: &str = "10GB";
/// How the services reach the servers here, and these each other.
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// What production's servers are configured with, and what each user of theirs may do.
const SECURE: &str = include_str!("../../nats/nats.conf");
const PERMISSIONS: &str = include_str!("../../nats/permissions.conf");

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
    /// The keys and certificates, where not everybody is let in.
    pub(super) credentials: Option<Folder>,
}

impl Servers {
    /// Decides names, ports and configurations: clients' ports first, then those on which the servers of a cluster
    /// find each other. A single server is called `nats`, so that its data stays where earlier versions kept it.
    ///
    /// # Errors
    /// If the ports do not fit.
    pub(super) fn new(args: &Args, folder: &Path) -> anyhow::Result<Servers> {
        let count = usize::from(args.nats_count());
        let routes = if count == 1 { 0 } else { count };
        let routes: Vec<SocketAddr> =
            (count..count + routes).map(|n| local(args.nats_port, n)).collect::<anyhow::Result<_>>()?;
        let all = routes.iter().map(|addr| format!("\"nats://{addr}\"")).collect::<Vec<_>>().join(", ");
        let secure = args.secure.then(|| Secure::new(folder));
        let (mut specs, mut configs) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (addr, admin) = (local(args.nats_port, index)?, local(args.admin_port, index)?);
            let route = routes.get(index).copied();
            let name = if count == 1 { "nats".to_owned() } else { format!("nats-{}", index + 1) };
            let store = folder.join("data").join(&name);
            let (path, text, environment) = match (&secure, route) {
                (Some(secure), Some(route)) => {
                    let environment = secure.environment(&name, [addr, route, admin], &all, &store)?;
                    (secure.config(), SECURE.to_owned(), environment)
                }
                _ => (folder.join(format!("{name}.conf")), open(&name, addr, admin, route, &all, &store)?, Vec::new()),
            };
            specs.push(Spec {
                name,
                index,
                stage: Stage::Nats,
                program: None,
                args: vec!["--config".into(), path.to_str().context("the folder's path is no text")?.into()],
                environment,
                addr: Some(addr),
                route,
                admin,
                // Of a cluster's server: a leader is known, and its own replicas are current.
                health: "/healthz",
            });
            configs.push(Config { path, text, store });
        }
        let scheme = if secure.is_some() { "tls" } else { "nats" };
        let urls: Vec<String> =
            specs.iter().filter_map(|spec| spec.addr).map(|addr| format!("{scheme}://{addr}")).collect();
        Ok(Servers { specs, configs, url: urls.join(","), credentials: secure.map(|secure| secure.credentials()) })
    }

    /// Writes what the servers read, and makes the folders of their data.
    ///
    /// # Errors
    /// If that cannot be done.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        for Config { path, text, store } in &self.configs {
            for folder in [store, path.parent().context("a file lies in a folder")?] {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let permissions = credentials.0.with_file_name("permissions.conf");
        std::fs::write(&permissions, PERMISSIONS).with_context(|| format!("cannot write {}", permissions.display()))?;
        credentials.make(&HOSTS.map(str::to_owned))
    }
}

/// The configuration of a server that lets in everybody.
fn open(
    name: &str,
    addr: SocketAddr,
    admin: SocketAddr,
    route: Option<SocketAddr>,
    all: &str,
    store: &Path,
) -> anyhow::Result<String> {
    // The only server's data stays where earlier versions kept it.
    let server_name = if route.is_none() { "switchboard-local" } else { name };
    let store = serde_json::to_string(store)?;
    let mut text = format!(
        "# Written by `switchboard up` at each start.\n\
         server_name: \"{server_name}\"\n\
         listen: \"{addr}\"\n\
         http: \"{admin}\"\n\
         jetstream {{ store_dir: {store}, max_file_store: {DISK_MAX} }}\n"
    );
    if let Some(route) = route {
        text += &format!("cluster {{ name: switchboard, listen: \"{route}\", routes: [{all}], no_advertise: true }}\n");
    }
    Ok(text)
}

/// Servers as in production: TLS, and users that may do what they have to.
struct Secure(PathBuf);

impl Secure {
    fn new(folder: &Path) -> Secure {
        Secure(folder.join("nats"))
    }

    fn config(&self) -> PathBuf {
        self.0.join("nats.conf")
    }

    fn credentials(&self) -> Folder {
        Folder(self.0.join("users"))
    }

    /// What the configuration takes from it.
    fn environment(
        &self,
        name: &str,
        [listen, route, monitor]: [SocketAddr; 3],
        routes: &str,
        store: &Path,
    ) -> anyhow::Result<Vec<(&'static str, String)>> {
        let text = |path: PathBuf| serde_json::to_string(&path);
        let users = self.credentials().0;
        Ok(vec![
            ("NATS_NAME", name.to_owned()),
            ("NATS_LISTEN", listen.to_string()),
            ("NATS_MONITOR_LISTEN", monitor.to_string()),
            ("NATS_PID_FILE", text(self.0.join(format!("{name}.pid")))?),
            ("NATS_STORE", text(store.to_owned())?),
            ("NATS_STORE_MAX", DISK_MAX.to_owned()),
            ("NATS_TLS_CERT", text(users.join("server.crt"))?),
            ("NATS_TLS_KEY", text(users.join("server.key"))?),
            ("NATS_TLS_CA", text(users.join("ca.crt"))?),
            ("NATS_ROUTE_LISTEN", route.to_string()),
            ("NATS_ROUTES", format!("[{routes}]")),
        ])
    }
}
