//! What users notice when servers of a NATS cluster die or are cut off, and when a gateway's way to NATS is slow.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use switchboard::client::{Client, ConnectError, Vsn};
use switchboard_contract::limits::CUT_OFF_AFTER;
use switchboard_contract::testing::eventually;

use crate::cluster::Service;
use crate::harness::{SOON, Shape, System};
use crate::link::Mode;
use crate::presence;
use crate::side::{agree, sides, talk};
use crate::survival::{in_place, queue, served};
use crate::talker::{self, ROOM, Talker, talkers};

/// Three NATS servers, and two of each service.
const CLUSTER: Shape<'_> = Shape {
    gateways: 2,
    matchers: 2,
    histories: 2,
    nats_servers: 3,
    links: true,
    gateway: &[],
    matcher: &[],
    history: &[],
    environment: &[],
};

impl System {
    /// How often a gateway's sockets were moved away.
    async fn cut_offs(&self, gateway: usize) -> u64 {
        self.gateways[gateway].1.metric("switchboard_gateway_cut_offs_total").await.unwrap_or(0)
    }

    async fn no_socket_was_moved(&self) {
        assert_eq!((self.cut_offs(0).await, self.cut_offs(1).await), (0, 0));
    }

    /// These services reach this server alone, or all but it; they are ready.
    pub(crate) async fn place(&self, services: &[Service], server: usize, there: bool) {
        for service in services {
            self.links.set(*service, |n| if (n == server) == there { Mode::Open } else { Mode::Cut });
        }
        for service in self.services() {
            service.ready().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leading_nats_server_of_three_dies_and_nobody_leaves_any_list() {
    let Some(mut system) = System::of(CLUSTER).await else { return };
    let leading = system.leader_of("ROOMS").await;
    system.make_leader("KV_lobby", leading).await;
    let (mut teacher, mut student) = sides(&system).await;
    let mut waiting = queue(&system, 0..4).await;
    let mut other = system.teacher("other").await;
    let mut talkers = talkers(&system).await;
    let mut watcher = presence::Member::join(&system, 1, Vsn::V2, "w", "1").await;
    watcher.sees(&["ada:s", "bob:s", "w:1"]).await;
    let told = watcher.told.len();
    let [ada, bob] = &mut talkers;
    tokio::join!(talk(&mut teacher, &mut student, 5), ada.talk(2), bob.talk(2));
    system.nats.kill_node(leading);
    let start = Instant::now();
    tokio::join!(talk(&mut teacher, &mut student, 10), ada.talk(10), bob.talk(10));
    eprintln!("all was said {} ms after the leading server died", start.elapsed().as_millis());
    served(&mut other, 0..2).await;
    eprintln!("two were served {} ms after it", start.elapsed().as_millis());
    system.nats.restart_node(leading).await;
    tokio::join!(talk(&mut teacher, &mut student, 5), ada.talk(5), bob.talk(5));
    served(&mut other, 2..4).await;
    agree(&mut teacher, &mut student).await;
    talker::agree(&mut talkers).await;
    watcher.sees(&["ada:s", "bob:s", "w:1"]).await;
    assert_eq!(watcher.told.len(), told, "nobody came again");
    for student in &mut waiting {
        student.new_chat().await;
    }
    assert!(talkers.iter().all(|talker| talker.returns == 0), "sockets stay open");
    system.no_socket_was_moved().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_nats_servers_die_and_sockets_wait_for_them() {
    let Some(mut system) = System::of(CLUSTER).await else { return };
    let (mut teacher, mut student) = sides(&system).await;
    let mut waiting = queue(&system, 0..4).await;
    let mut other = system.teacher("other").await;
    let mut talkers = talkers(&system).await;
    let [ada, bob] = &mut talkers;
    tokio::join!(talk(&mut teacher, &mut student, 5), ada.talk(2), bob.talk(2));
    system.nats.kill_node(0);
    system.nats.kill_node(1);
    let reply = student.send().await.expect("a reply");
    assert_eq!(reply.reason(), Some("unavailable"));
    // Longer than a gateway that is cut off would wait.
    let long = CUT_OFF_AFTER + Duration::from_secs(6);
    other.client.expect_none("phx_close", long).await.expect("an open socket");
    system.no_socket_was_moved().await;
    in_place(&mut waiting).await;
    let start = Instant::now();
    system.nats.restart_node(0).await;
    system.nats.restart_node(1).await;
    tokio::join!(talk(&mut teacher, &mut student, 10), ada.talk(10), bob.talk(10));
    eprintln!("all was said {} ms after they came back", start.elapsed().as_millis());
    in_place(&mut waiting).await;
    served(&mut other, 0..4).await;
    agree(&mut teacher, &mut student).await;
    talker::agree(&mut talkers).await;
    assert!(talkers.iter().all(|talker| talker.returns == 0), "sockets stay open");
    system.no_socket_was_moved().await;
}

/// Joins the room on gateway 0 again and again, until that refuses sockets: what is answered has all that was stored
/// before. Gives how many joins were.
async fn joins_are_fresh(system: &System, by: &Talker) -> impl Future<Output = usize> + use<> {
    let (gateway, stored) = (system.gateway(0), by.stored.clone());
    async move {
        let mut joins = 0;
        loop {
            let mut client = match Client::connect(&gateway, Vsn::V2).await {
                Ok(client) => client,
                Err(ConnectError::Refused(503)) => return joins,
                Err(error) => panic!("{error}"),
            };
            let before = stored.load(Ordering::Relaxed);
            match client.join(ROOM, json!({"userId": "probe", "session_id": "s"})).await {
                Ok(reply) if reply.ok => {
                    let last = reply.response["last_seq"].as_u64().expect("a sequence");
                    assert!(last >= before, "{before} was stored, and a join shows {last}");
                    joins += 1;
                }
                Ok(reply) => assert_eq!(reply.reason(), Some("unavailable")),
                Err(error) => eprintln!("a join was not answered: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_on_a_nats_server_that_is_cut_off_is_moved_and_loses_nothing() {
    let Some(system) = System::of(CLUSTER).await else { return };
    let lost = system.leader_of("ROOMS").await;
    for stream in ["KV_lobby", "KV_rooms"] {
        system.make_leader(stream, lost).await;
    }
    system.place(&[Service::Gateway(0), Service::History(0)], lost, true).await;
    let rest = [Service::Gateway(1), Service::History(1), Service::Matcher(0), Service::Matcher(1)];
    system.place(&rest, lost, false).await;
    let (mut teacher, mut student) = sides(&system).await;
    let mut waiting = queue(&system, 0..4).await;
    let mut talkers = talkers(&system).await;
    let mut watcher = presence::Member::join(&system, 1, Vsn::V2, "w", "1").await;
    watcher.sees(&["ada:s", "bob:s", "w:1"]).await;
    let [ada, bob] = &mut talkers;
    tokio::join!(talk(&mut teacher, &mut student, 5), ada.talk(2), bob.talk(2));

    system.links.around(lost, Mode::Held);
    let start = Instant::now();
    let fresh = joins_are_fresh(&system, bob).await;
    let moved = async {
        for (n, student) in (0..).zip(&mut waiting) {
            let code = student.client.expect_close(SOON).await.expect("a close");
            assert_eq!(code, Some(1012));
            eprintln!("student {n} was moved {} ms after the cut", start.elapsed().as_millis());
            *student = system.student_on(1, n).await;
        }
    };
    let student_talks = async {
        if student.talk(10).await.is_err() {
            student.come_back(&system.gateway(1)).await;
            student.talk(10).await.expect("an open socket");
        }
    };
    let (said, (), (), (), (), joins) =
        tokio::join!(teacher.talk(10), student_talks, ada.talk(15), bob.talk(15), moved, fresh);
    said.expect("its socket is open");
    eprintln!("all was said {} ms after the cut; {joins} joins were fresh", start.elapsed().as_millis());
    assert_eq!((system.cut_offs(0).await, system.cut_offs(1).await), (1, 0));
    // Nobody has lost a place, or a message.
    served(&mut system.teacher("other").await, 0..4).await;
    agree(&mut teacher, &mut student).await;
    talker::agree(&mut talkers).await;
    watcher.sees(&["ada:s", "bob:s", "w:1"]).await;

    system.links.around(lost, Mode::Open);
    let start = Instant::now();
    system.gateways[0].1.ready().await;
    eprintln!("the gateway was ready {} ms after the heal", start.elapsed().as_millis());
    let mut back = presence::Member::join(&system, 0, Vsn::V2, "x", "0").await;
    for member in [&mut watcher, &mut back] {
        member.sees(&["ada:s", "bob:s", "w:1", "x:0"]).await;
    }
    // What was sent before the heal and not answered may have been stored since, but not twice.
    let [ada, bob] = &mut talkers;
    tokio::join!(talk(&mut teacher, &mut student, 5), ada.talk(5), bob.talk(5));
    agree(&mut teacher, &mut student).await;
    talker::agree(&mut talkers).await;
    student.come_back(&system.gateway(0)).await;
    talk(&mut teacher, &mut student, 5).await;
    agree(&mut teacher, &mut student).await;
    assert_eq!((system.cut_offs(0).await, system.cut_offs(1).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_on_a_nats_server_that_is_cut_off_goes_to_another() {
    let Some(system) = System::of(CLUSTER).await else { return };
    let lost = system.leader_of("ROOMS").await;
    system.place(&[Service::Gateway(0), Service::History(0), Service::Matcher(0)], lost, true).await;
    system.place(&[Service::Gateway(1), Service::History(1), Service::Matcher(1)], lost, false).await;
    let mut talkers = talkers(&system).await;
    let mut waiting = queue(&system, 0..2).await;
    // It may go elsewhere from now on, but nothing tells it so.
    for service in [Service::Gateway(0), Service::History(0), Service::Matcher(0)] {
        system.links.set(service, |_| Mode::Open);
    }
    system.links.around(lost, Mode::Held);
    let start = Instant::now();
    let [ada, bob] = &mut talkers;
    tokio::join!(ada.talk(15), bob.talk(15));
    let said = start.elapsed();
    eprintln!("all was said {} ms after the cut", said.as_millis());
    eventually("gateway 0 is on another server", async || {
        system.gateways[0].1.metric("switchboard_nats_moves_total").await == Some(1)
    })
    .await;
    talker::agree(&mut talkers).await;
    if system.cut_offs(0).await == 0 {
        in_place(&mut waiting).await;
        assert!(talkers.iter().all(|talker| talker.returns == 0), "sockets stay open");
    } else {
        // The others chose their leaders so late, on a slow machine, that it had given up before there was a better one.
        eprintln!("its sockets were moved");
        for (n, student) in (0..).zip(&mut waiting) {
            *student = system.student_on(1, n).await;
        }
    }
    served(&mut system.teacher("t").await, 0..2).await;
    // Servers that have lost their leader begin to choose another after 4 to 9 s, and once more if none wins. A gateway
    // that hears no other one has then no way to know that it is on the larger side.
    assert!(system.cut_offs(1).await == 0 || said >= CUT_OFF_AFTER, "it was carried all the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_slow_way_to_nats_everything_works_slowly_and_others_notice_nothing() {
    let shape = Shape { links: true, ..Shape::default() };
    let Some(system) = System::of(shape).await else { return };
    let ways = [
        Mode::Slow { delay: Duration::from_millis(300), rate: 10_000_000 },
        Mode::Slow { delay: Duration::from_millis(20), rate: 100_000 },
    ];
    let mut talkers = talkers(&system).await;
    let near = &[system.gateway(1)];
    let [mut carol, mut dave] = [Talker::join("carol", near).await, Talker::join("dave", near).await];
    let (mut teacher, mut student) = sides(&system).await;
    for way in ways {
        system.links.set(Service::Gateway(0), |_| way);
        let start = Instant::now();
        let others = async {
            tokio::join!(carol.talk(8), dave.talk(8));
            eprintln!("others had said all after {} ms", start.elapsed().as_millis());
        };
        let [ada, bob] = &mut talkers;
        tokio::join!(talk(&mut teacher, &mut student, 8), ada.talk(8), bob.talk(8), others);
        eprintln!("{way:?}: all was said after {} ms", start.elapsed().as_millis());
        let mut late = system.client(0, Vsn::V2).await;
        let reply = late.join("room:late", json!({"userId": "late"})).await.expect("a reply");
        assert!(reply.ok || reply.reason() == Some("unavailable"), "{reply:?}");
    }
    agree(&mut teacher, &mut student).await;
    let [ada, bob] = talkers;
    let mut all = [ada, bob, carol, dave];
    talker::agree(&mut all).await;
    assert!(all.iter().all(|talker| talker.returns == 0), "sockets stay open");
    let mut far = system.student_on(0, "far").await;
    assert_eq!(system.teacher("t2").await.claim().await["student_id"], "far");
    far.new_chat().await;
    system.no_socket_was_moved().await;
}
