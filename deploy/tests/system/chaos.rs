//! Faults in whatever order a seed has drawn them, each for as long as it says, under traffic of all kinds.

use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::cluster::Service;
use crate::failures::CLUSTER;
use crate::harness::{Shape, System};
use crate::link::Mode;
use crate::process::Process;
use crate::traffic::Traffic;

/// Of how much there is.
const GATEWAYS: usize = 3;
const SERVERS: usize = 3;
const SERVICES: [Service; 7] = [
    Service::Gateway(0),
    Service::Gateway(1),
    Service::Gateway(2),
    Service::Matcher(0),
    Service::Matcher(1),
    Service::History(0),
    Service::History(1),
];
/// Of these each may be paused; a gateway that is paused keeps no promise to its own sockets.
const PAUSED: &[Service] = SERVICES.split_at(GATEWAYS).1;
/// The longest that a fault lasts. Milliseconds.
const LASTS_MAX: u64 = 12_000;
/// Rounds of the short test.
const ROUNDS: usize = 3;

/// What breaks.
#[derive(Clone, Debug, PartialEq)]
enum Fault {
    /// `kill -9`, and started again in the end.
    Killed(Vec<Service>),
    /// SIGSTOP, and SIGCONT in the end.
    Paused(Service),
    /// SIGTERM, and started again in the end.
    Stopped(Service),
    /// NATS servers, by `kill -9`.
    Servers(Vec<usize>),
    /// The links of one service.
    Links(Service, Mode),
    /// Those between one NATS server and the others.
    Around(usize, Mode),
    /// All processes at once, by `kill -9`.
    Everything,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Killed(services) => write!(f, "killed: {services:?}"),
            Fault::Paused(service) => write!(f, "paused: {service:?}"),
            Fault::Stopped(service) => write!(f, "stopped: {service:?}"),
            Fault::Servers(servers) => write!(f, "killed: NATS servers {servers:?}"),
            Fault::Links(service, mode) => write!(f, "links of {service:?}: {mode:?}"),
            Fault::Around(server, mode) => write!(f, "links around NATS server {server}: {mode:?}"),
            Fault::Everything => write!(f, "killed: everything"),
        }
    }
}

fn one<T: Copy>(of: &[T], rng: &mut StdRng) -> T {
    *of.choose(rng).expect("some")
}

/// What breaks next, and for how long.
fn draw(rng: &mut StdRng) -> (Fault, Duration) {
    let lasts = Duration::from_millis(rng.random_range(0..=LASTS_MAX));
    let mode = match rng.random_range(0..3) {
        0 => Mode::Cut,
        1 => Mode::Held,
        _ => Mode::Slow {
            delay: Duration::from_millis(rng.random_range(10..=300)),
            rate: rng.random_range(200_000..=10_000_000),
        },
    };
    let fault = match rng.random_range(0..100) {
        0..25 => {
            let several = rng.random_range(1..=GATEWAYS);
            Fault::Killed(SERVICES.choose_multiple(rng, several).copied().collect())
        }
        25..40 => Fault::Paused(one(PAUSED, rng)),
        40..50 => Fault::Stopped(one(&SERVICES, rng)),
        50..70 => {
            let mut servers: Vec<usize> = (0..SERVERS).collect();
            servers.shuffle(rng);
            servers.truncate(rng.random_range(1..=SERVERS));
            Fault::Servers(servers)
        }
        70..85 => Fault::Links(one(&SERVICES, rng), mode),
        85..95 => Fault::Around(rng.random_range(0..SERVERS), mode),
        _ => Fault::Everything,
    };
    (fault, lasts)
}

impl System {
    /// Breaks it; gives what is still ending.
    fn break_by(&mut self, fault: &Fault) -> Option<JoinHandle<std::process::ExitStatus>> {
        match fault {
            Fault::Killed(services) => services.iter().for_each(|service| self.service_mut(*service).kill()),
            Fault::Paused(service) => self.service_mut(*service).signal(Signal::STOP),
            Fault::Stopped(service) => return Some(self.service_mut(*service).terminate()),
            Fault::Servers(servers) => servers.iter().for_each(|server| self.nats.kill_node(*server)),
            Fault::Links(service, mode) => self.links.set(*service, |_| *mode),
            Fault::Around(server, mode) => self.links.around(*server, *mode),
            Fault::Everything => self.kill_everything(),
        }
        None
    }

    /// Mends it; all services are ready.
    async fn mend(&mut self, fault: &Fault, ending: Option<JoinHandle<std::process::ExitStatus>>) {
        match fault {
            Fault::Killed(_) | Fault::Stopped(_) => {}
            Fault::Paused(service) => self.service_mut(*service).signal(Signal::CONT),
            Fault::Servers(servers) => {
                for server in servers {
                    self.nats.restart_node(*server).await;
                }
            }
            Fault::Links(service, _) => self.links.set(*service, |_| Mode::Open),
            Fault::Around(server, _) => self.links.around(*server, Mode::Open),
            Fault::Everything => self.nats.restart().await,
        }
        if let Some(ending) = ending {
            assert!(ending.await.expect("its end").success(), "{fault}");
        }
        self.services_mut().for_each(Process::start_again);
        for service in self.services() {
            service.ready().await;
        }
    }
}

/// Breaks one thing after the other until that is enough. `again` repeats it.
async fn rounds(seed: u64, again: &str, enough: impl Fn(usize) -> bool) {
    eprintln!("CHAOS_SEED={seed} {again} repeats it");
    let shape = Shape { gateways: GATEWAYS, nats_servers: SERVERS, links: true, ..CLUSTER };
    let Some(mut system) = System::of(shape).await else { return };
    let mut traffic = Traffic::on(&system, "all").await;
    let (mut rng, mut round, start) = (StdRng::seed_from_u64(seed), 0, Instant::now());
    while !enough(round) {
        round += 1;
        let (fault, lasts) = draw(&mut rng);
        let (at, ms) = (start.elapsed().as_secs(), lasts.as_millis());
        eprintln!("round {round} of CHAOS_SEED={seed}, after {at} s: for {ms} ms {fault}");
        traffic.breaks().await;
        let ending = system.break_by(&fault);
        sleep(lasts).await;
        system.mend(&fault, ending).await;
        traffic.mended(&system).await;
    }
    let seen = traffic.verdict(&system).await;
    eprintln!("{round} rounds of CHAOS_SEED={seed} in {} s: {seen}", start.elapsed().as_secs());
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn seed() -> u64 {
    number("CHAOS_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_in_whatever_order() {
    let again = "cargo test -p switchboard --test system -- --exact chaos::whatever_breaks_in_whatever_order";
    rounds(seed(), again, |round| round == ROUNDS).await;
}

/// The same for CHAOS_SECONDS, an hour by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "an hour: make test-long"]
async fn whatever_breaks_in_whatever_order_for_long() {
    let seconds = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(3_600));
    let start = Instant::now();
    rounds(seed(), "make test-long", |_| start.elapsed() > seconds).await;
}

#[test]
fn a_seed_draws_the_same_again_and_every_fault_in_the_end() {
    let drawn = |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..300).map(|_| draw(&mut rng)).collect::<Vec<_>>()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    let is = |what: &str| drawn(1).iter().any(|(fault, _)| fault.to_string().contains(what));
    let wanted = ["killed: everything", "servers [2, 0]", "servers [1]", "Matcher(0): Held", "around", "Slow"];
    for what in [&wanted[..], &["paused: History", "stopped: Gateway", "links of Gateway", "Cut"]].concat() {
        assert!(is(what), "{what}");
    }
    assert!(!is("paused: Gateway"));
}
