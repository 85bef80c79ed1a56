//! What is started: programs, flags, ports. Decided before anything is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use switchboard_contract::process::UsageError;

use super::nats::Servers;
use super::{Args, Limits, feeds};
use crate::runfile::Auth;
use crate::token::Key;

/// The flags of a gateway that limit one user; with 0 they do not.
const LIMITS: [&str; 5] = ["--broadcast-rate", "--direct-rate", "--join-rate", "--repeats", "--refusals"];
/// One leads, and one stands by.
const MATCHERS: usize = 2;

/// A stage of the start. Stages come one after the other, and go in the opposite order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// NATS.
    Nats,
    /// Matchers and history: each makes what the other waits for.
    Cores,
    /// The gateways.
    Gateways,
}

/// One process.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) name: String,
    /// Its place in the start order.
    pub(super) index: usize,
    pub(super) stage: Stage,
    /// `None`: nats-server, wherever it is found.
    pub(super) program: Option<PathBuf>,
    pub(super) args: Vec<String>,
    /// Secrets among it: `ps` would show flags.
    pub(super) environment: Vec<(&'static str, String)>,
    /// Where it serves clients.
    pub(super) addr: Option<SocketAddr>,
    /// Where the servers of a NATS cluster find each other.
    pub(super) route: Option<SocketAddr>,
    /// Its admin port, or NATS's monitoring port.
    pub(super) admin: SocketAddr,
    /// What answers 200 there once it is ready.
    pub(super) health: &'static str,
}

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// In start order.
    pub(super) specs: Vec<Spec>,
    pub(super) nats: Servers,
}

/// The programs of the services.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    matcher: PathBuf,
    pub(super) history: PathBuf,
    gateway: PathBuf,
}

/// The programs beside this one.
///
/// # Errors
/// If one is missing.
pub(super) fn binaries() -> anyhow::Result<Binaries> {
    let own = std::env::current_exe().context("where is this program?")?;
    let folder = own.parent().context("this program lies in a folder")?;
    let find = |name: &str| {
        let path = folder.join(name);
        if !path.is_file() {
            bail!("{} is missing: build it with `cargo build --workspace --bins`, or use `make run`", path.display());
        }
        Ok(path)
    };
    Ok(Binaries {
        matcher: find("switchboard-matcher")?,
        history: find("switchboard-history")?,
        gateway: find("switchboard-gateway")?,
    })
}

impl Plan {
    /// Decides names, ports and flags; `folder` is absolute.
    ///
    /// # Errors
    /// If the ports do not fit.
    pub(super) fn new(args: &Args, folder: &Path, binaries: &Binaries) -> anyhow::Result<Plan> {
        let mut nats = Servers::new(args, folder)?;
        let mut specs = std::mem::take(&mut nats.specs);
        let feeds = feeds::path(args.feeds.as_deref(), folder).display().to_string();
        let mut service = |name: String, stage, program: &PathBuf, addr: Option<SocketAddr>| {
            let index = specs.len();
            let admin = local(args.admin_port, index)?;
            let mut flags = vec![("--nats-url", nats.url.clone()), ("--admin-addr", admin.to_string())];
            flags.push(("--nats-replicas", args.nats_count().to_string()));
            if let Some(credentials) = &nats.credentials {
                let user = name.split('-').next().unwrap_or_default();
                flags.push(("--nats-creds", credentials.seed(user).display().to_string()));
                flags.push(("--nats-ca", credentials.ca().display().to_string()));
            }
            let format = args.log_format.to_possible_value().map(|value| value.get_name().to_owned());
            flags.extend([("--log-format", format.unwrap_or_default()), ("--log-level", args.log_level.clone())]);
            if *program == binaries.history {
                flags.push(("--feeds", feeds.clone()));
            }
            if let Some(addr) = addr {
                flags.extend([("--listen", addr.to_string()), ("--auth", args.auth.as_str().to_owned())]);
                if args.limits == Limits::Off {
                    flags.extend(LIMITS.map(|flag| (flag, "0".to_owned())));
                }
                if args.auth == Auth::Jwt {
                    flags.push(("--jwt-secret-file", Key::path(folder).display().to_string()));
                }
            }
            specs.push(Spec {
                name,
                index,
                stage,
                program: Some(program.clone()),
                args: flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(),
                environment: addr.map(|_| ("SWITCHBOARD_API_SECRET", args.api_secret.clone())).into_iter().collect(),
                addr,
                route: None,
                admin,
                health: "/health/ready",
            });
            anyhow::Ok(())
        };
        for n in 1..=MATCHERS {
            service(format!("matcher-{n}"), Stage::Cores, &binaries.matcher, None)?;
        }
        for n in 1..=args.histories {
            let name = if args.histories == 1 { "history".to_owned() } else { format!("history-{n}") };
            service(name, Stage::Cores, &binaries.history, None)?;
        }
        for n in 0..usize::from(args.gateways) {
            let addr = local(args.gateway_port, n)?;
            service(format!("gateway-{}", n + 1), Stage::Gateways, &binaries.gateway, Some(addr))?;
        }
        let plan = Plan { specs, nats };
        plan.check_overlap()?;
        Ok(plan)
    }

    /// Where clients connect.
    pub(super) fn gateways(&self) -> impl Iterator<Item = SocketAddr> {
        self.specs.iter().filter(|spec| spec.stage == Stage::Gateways).filter_map(|spec| spec.addr)
    }

    /// Every port, with who wants it and the variable that moves it.
    fn ports(&self) -> impl Iterator<Item = (SocketAddr, String, &'static str)> {
        self.specs.iter().flat_map(|spec| {
            let variable = match spec.stage {
                Stage::Nats => "NATS_PORT",
                Stage::Cores | Stage::Gateways => "GATEWAY_PORT",
            };
            let own = spec.addr.map(|addr| (addr, spec.name.clone(), variable));
            let route = spec.route.map(|addr| (addr, format!("{} (cluster)", spec.name), variable));
            own.into_iter().chain(route).chain([(spec.admin, format!("{} (admin)", spec.name), "ADMIN_PORT")])
        })
    }

    fn check_overlap(&self) -> anyhow::Result<()> {
        let mut seen = BTreeMap::new();
        for (addr, name, variable) in self.ports() {
            if let Some(other) = seen.insert(addr.port(), name.clone()) {
                let port = addr.port();
                bail!(UsageError(format!("{other} and {name} both want port {port}: change {variable}")));
            }
        }
        Ok(())
    }

    /// Makes sure that all ports are free.
    ///
    /// # Errors
    /// If one is not: which, who wants it, and what to change.
    pub(super) fn check_ports(&self) -> anyhow::Result<()> {
        for (addr, name, variable) in self.ports() {
            if let Err(error) = TcpListener::bind(addr) {
                let (port, flag) = (addr.port(), variable.to_lowercase().replace('_', "-"));
                bail!("port {port} is taken, {name} wants it ({error}): set {variable} (or --{flag}) to another");
            }
        }
        Ok(())
    }
}

/// The port of 127.0.0.1 that stands `offset` behind `port`.
///
/// # Errors
/// If there is none.
pub(super) fn local(port: u16, offset: usize) -> anyhow::Result<SocketAddr> {
    let port = u16::try_from(offset).ok().and_then(|offset| port.checked_add(offset));
    let port = port.ok_or_else(|| UsageError("ports end at 65535: begin lower".into()))?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    fn plan(flags: &[&str]) -> anyhow::Result<Plan> {
        let args = Flags::parse_from(["up"].iter().chain(flags)).args;
        let binaries = Binaries { matcher: "/b/m".into(), history: "/b/h".into(), gateway: "/b/g".into() };
        Plan::new(&args, Path::new("/f"), &binaries)
    }

    fn flags(plan: &Plan, name: &str) -> String {
        plan.specs.iter().find(|spec| spec.name == name).expect("a process").args.join(" ")
    }

    #[test]
    fn everything_has_its_ports_in_start_order() {
        let plan = plan(&["--gateways", "3", "--gateway-port", "5000", "--admin-port", "6000"]).expect("a plan");
        let shown: Vec<String> = plan
            .specs
            .iter()
            .map(|spec| format!("{} {:?} {}", spec.name, spec.addr.map(|addr| addr.port()), spec.admin.port()))
            .collect();
        assert_eq!(
            shown,
            [
                "nats Some(4222) 6000",
                "matcher-1 None 6001",
                "matcher-2 None 6002",
                "history-1 None 6003",
                "history-2 None 6004",
                "gateway-1 Some(5000) 6005",
                "gateway-2 Some(5001) 6006",
                "gateway-3 Some(5002) 6007",
            ]
        );
        let [nats] = &plan.nats.configs[..] else { panic!("one server: {plan:?}") };
        assert_eq!((nats.path.to_str(), nats.store.to_str()), (Some("/f/nats.conf"), Some("/f/data/nats")));
        assert!(nats.text.contains("store_dir: \"/f/data/nats\"") && !nats.text.contains("cluster"), "{}", nats.text);
        let gateway = flags(&plan, "gateway-1");
        assert!(gateway.contains("--listen 127.0.0.1:5000 --auth open"), "{gateway}");
        assert!(!gateway.contains("local-secret") && !gateway.contains("--jwt"), "{gateway}");
    }

    #[test]
    fn limits_can_be_off() {
        let gateway = |with: &[&str]| flags(&plan(with).expect("a plan"), "gateway-1");
        assert!(!gateway(&[]).contains("-rate"));
        let off = gateway(&["--limits", "off"]);
        assert!(off.contains("--broadcast-rate 0 --direct-rate 0 --join-rate 0 --repeats 0 --refusals 0"), "{off}");
    }

    #[test]
    fn one_history_has_no_number() {
        let plan = plan(&["--histories", "1", "--gateways", "1"]).expect("a plan");
        let names: Vec<&str> = plan.specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["nats", "matcher-1", "matcher-2", "history", "gateway-1"]);
    }

    #[test]
    fn each_history_has_the_file_of_feeds_and_nobody_else() {
        for (with, file) in [(&[][..], "/f/feeds.toml"), (&["--feeds", "my.toml"], "my.toml")] {
            let plan = plan(with).expect("a plan");
            for spec in &plan.specs {
                let has = spec.args.join(" ").contains(&format!("--feeds {file}"));
                assert_eq!(has, spec.name.starts_with("history"), "{spec:?}");
            }
        }
    }

    #[test]
    fn with_jwt_gateways_have_the_development_key() {
        let plan = plan(&["--auth", "jwt", "--gateways", "1"]).expect("a plan");
        let gateway = flags(&plan, "gateway-1");
        assert!(gateway.contains("--auth jwt --jwt-secret-file /f/jwt-secret"), "{gateway}");
        assert!(!flags(&plan, "matcher-1").contains("--auth"), "a matcher has nothing to do with it");
    }

    #[test]
    fn three_nats_servers_are_a_cluster_that_everybody_knows() {
        let plan = plan(&["--nats-servers", "3", "--gateways", "1", "--nats-port", "5000", "--admin-port", "6000"]);
        let plan = plan.expect("a plan");
        let shown: Vec<String> =
            plan.ports().map(|(addr, name, _)| format!("{} {name}", addr.port())).take(9).collect();
        let expected = [1, 2, 3].map(|n| {
            let (port, route, admin) = (4999 + n, 5002 + n, 5999 + n);
            [format!("{port} nats-{n}"), format!("{route} nats-{n} (cluster)"), format!("{admin} nats-{n} (admin)")]
        });
        assert_eq!(shown, expected.concat());
        assert_eq!(plan.specs[3].admin.port(), 6003, "services follow");
        for (n, config) in (1..).zip(&plan.nats.configs) {
            assert_eq!(config.store, Path::new(&format!("/f/data/nats-{n}")));
            assert!(config.text.contains(&format!("server_name: \"nats-{n}\"")), "{}", config.text);
            for route in 5003..=5005 {
                assert!(config.text.contains(&format!("nats://127.0.0.1:{route}")), "{}", config.text);
            }
        }
        let services = plan.specs.iter().filter(|spec| spec.stage != Stage::Nats);
        for service in services.map(|spec| spec.args.join(" ")) {
            let url = "--nats-url nats://127.0.0.1:5000,nats://127.0.0.1:5001,nats://127.0.0.1:5002 ";
            assert!(service.contains(url) && service.contains("--nats-replicas 3"), "{service}");
        }
    }

    #[test]
    fn a_secure_system_has_three_servers_and_a_user_for_each_service() {
        let plan = plan(&["--secure"]).expect("a plan");
        assert_eq!(plan.nats.url, "tls://127.0.0.1:4222,tls://127.0.0.1:4223,tls://127.0.0.1:4224");
        assert_eq!(plan.nats.configs.iter().filter(|config| config.path == Path::new("/f/nats/nats.conf")).count(), 3);
        for (name, user) in [("matcher-2", "matcher"), ("history-1", "history"), ("gateway-1", "gateway")] {
            let wanted = format!("--nats-creds /f/nats/users/{user}.nk --nats-ca /f/nats/users/ca.crt");
            assert!(flags(&plan, name).contains(&wanted), "{}", flags(&plan, name));
        }
        let one = super::super::check(&Flags::parse_from(["up", "--secure", "--nats-servers", "1"]).args);
        assert!(one.is_err_and(|error| error.is::<UsageError>()));
    }

    #[test]
    fn ports_that_do_not_fit_are_refused() {
        let error = plan(&["--gateway-port", "4222"]).expect_err("twice the same port");
        assert!(error.is::<UsageError>() && error.to_string().contains("4222"), "{error}");
        assert!(plan(&["--gateway-port", "65535"]).is_err());
    }

    #[test]
    fn a_taken_port_is_named_with_who_wants_it() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port().to_string();
        let plan = plan(&["--nats-port", &port, "--gateway-port", "29000", "--admin-port", "29100"]).expect("a plan");
        let error = plan.check_ports().expect_err("taken").to_string();
        assert!(error.contains(&port) && error.contains("nats wants it") && error.contains("NATS_PORT"), "{error}");
    }
}
