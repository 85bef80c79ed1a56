//! The table of what users see when something breaks, row by row, each with chats, rooms and feeds at once.

use std::time::Duration;

use rustix::process::Signal;
use switchboard_contract::names::ROOMS_STREAM;
use tokio::time::sleep;

use crate::cluster::Service;
use crate::harness::{Shape, System};
use crate::link::Mode;
use crate::process::Process;
use crate::storage;
use crate::traffic::{LONG, SYSTEM, Traffic};

/// Three NATS servers.
pub(crate) const CLUSTER: Shape<'_> = Shape { nats_servers: 3, ..SYSTEM };

#[tokio::test]
async fn a_gateway_is_killed_and_comes_back() {
    let Some(mut system) = System::of(SYSTEM).await else { return };
    let mut traffic = Traffic::on(&system, "gateway").await;
    for gateway in [0, 1] {
        traffic.breaks().await;
        system.kill_gateway(gateway);
        sleep(LONG).await;
        system.start_gateway(gateway).await;
        traffic.mended(&system).await;
    }
    let seen = traffic.verdict(&system).await;
    println!("a gateway: {seen}");
    assert!(seen.reconnects() > 0);
}

#[tokio::test]
async fn the_leading_matcher_is_killed_and_paused() {
    let Some(mut system) = System::of(SYSTEM).await else { return };
    let mut traffic = Traffic::on(&system, "matcher").await;
    traffic.breaks().await;
    let killed = system.kill_leader().await;
    system.leader().await;
    traffic.mended(&system).await;
    system.start_matcher(killed).await;
    traffic.breaks().await;
    let paused = system.leader().await;
    system.matchers[paused].signal(Signal::STOP);
    sleep(LONG).await;
    system.matchers[paused].signal(Signal::CONT);
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("the leading matcher: {seen}");
    assert_eq!(seen.reconnects(), 0, "{seen}");
}

#[tokio::test]
async fn a_history_service_is_killed_and_paused() {
    let Some(mut system) = System::of(SYSTEM).await else { return };
    let mut traffic = Traffic::on(&system, "history").await;
    for history in [0, 1] {
        traffic.breaks().await;
        system.histories[history].kill();
        sleep(LONG).await;
        system.histories[history].start_again();
        system.histories[history].ready().await;
        traffic.mended(&system).await;
        traffic.breaks().await;
        system.histories[history].signal(Signal::STOP);
        sleep(LONG).await;
        system.histories[history].signal(Signal::CONT);
        traffic.mended(&system).await;
    }
    let seen = traffic.verdict(&system).await;
    println!("a history service: {seen}");
    assert_eq!((seen.reconnects(), seen.refused(), seen.stale()), (0, 0, 0), "{seen}");
}

#[tokio::test]
async fn all_history_services_are_killed() {
    let Some(mut system) = System::of(SYSTEM).await else { return };
    let mut traffic = Traffic::on(&system, "all").await;
    traffic.breaks().await;
    system.kill_history();
    sleep(LONG).await;
    system.histories.iter_mut().for_each(Process::start_again);
    for history in &system.histories {
        history.ready().await;
    }
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("all of history: {seen}");
    assert_eq!(seen.reconnects(), 0, "{seen}");
}

#[tokio::test]
async fn nats_is_killed_and_restarted() {
    let Some(mut system) = System::of(SYSTEM).await else { return };
    let mut traffic = Traffic::on(&system, "nats").await;
    traffic.breaks().await;
    system.nats.restart().await;
    traffic.mended(&system).await;
    traffic.breaks().await;
    system.nats.kill();
    sleep(LONG).await;
    system.nats.restart().await;
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("NATS: {seen}");
    assert_eq!(seen.reconnects(), 0, "{seen}");
}

#[tokio::test]
async fn each_of_three_nats_servers_is_killed_in_turn() {
    let Some(mut system) = System::of(CLUSTER).await else { return };
    let mut traffic = Traffic::on(&system, "nats").await;
    for node in 0..3 {
        traffic.breaks().await;
        system.nats.kill_node(node);
        sleep(LONG).await;
        system.nats.restart_node(node).await;
        traffic.mended(&system).await;
    }
    let seen = traffic.verdict(&system).await;
    println!("each NATS server of three: {seen}");
    assert_eq!(seen.reconnects(), 0, "{seen}");
}

#[tokio::test]
async fn two_of_three_nats_servers_are_gone_and_come_back() {
    let Some(mut system) = System::of(CLUSTER).await else { return };
    let mut traffic = Traffic::on(&system, "nats").await;
    traffic.breaks().await;
    system.nats.kill_node(0);
    system.nats.kill_node(1);
    sleep(2 * LONG).await;
    system.nats.restart_node(0).await;
    system.nats.restart_node(1).await;
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("two NATS servers of three: {seen}");
    assert_eq!(seen.reconnects(), 0, "{seen}");
}

#[tokio::test]
async fn a_nats_server_is_cut_off_with_services_on_its_side() {
    let Some(system) = System::of(Shape { links: true, ..CLUSTER }).await else { return };
    let lost = system.leader_of("ROOMS").await;
    system.place(&[Service::Gateway(0), Service::History(0)], lost, true).await;
    let rest = [Service::Gateway(1), Service::History(1), Service::Matcher(0), Service::Matcher(1)];
    system.place(&rest, lost, false).await;
    let mut traffic = Traffic::on(&system, "all").await;
    traffic.breaks().await;
    system.links.around(lost, Mode::Held);
    sleep(2 * LONG).await;
    system.links.around(lost, Mode::Open);
    for service in system.services() {
        service.ready().await;
    }
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("a NATS server that is cut off: {seen}");
    assert!(seen.reconnects() > 0, "{seen}");
}

#[tokio::test]
async fn the_room_streams_storage_is_full() {
    let Some(mut system) = System::of(SYSTEM).await else { return };
    storage::little_room(&mut system).await;
    let mut traffic = Traffic::on(&system, "nats").await;
    traffic.breaks().await;
    let context = storage::fill(&system).await;
    let last = async || context.get_stream(ROOMS_STREAM).await.expect("the stream").cached_info().state.last_sequence;
    let before = last().await;
    sleep(LONG).await;
    assert_eq!(last().await, before, "there was room for something");
    storage::empty(&context).await;
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("full storage: {seen}");
    assert_eq!(seen.reconnects(), 0, "{seen}");
    assert!(seen.count("lobby", "unavailable") > 0 && seen.count("rooms", "unavailable") > 0, "{seen}");
}

#[tokio::test]
async fn a_gateways_way_to_nats_is_slow() {
    let Some(system) = System::of(Shape { links: true, ..SYSTEM }).await else { return };
    let mut traffic = Traffic::on(&system, "nats").await;
    traffic.breaks().await;
    system.links.set(Service::Gateway(0), |_| Mode::Slow { delay: Duration::from_millis(200), rate: 10_000_000 });
    sleep(LONG).await;
    system.links.set(Service::Gateway(0), |_| Mode::Open);
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("a slow way to NATS: {seen}");
    assert_eq!(seen.reconnects(), 0, "{seen}");
}

#[tokio::test]
async fn everything_is_killed_and_started_again() {
    let Some(mut system) = System::of(SYSTEM).await else { return };
    let mut traffic = Traffic::on(&system, "all").await;
    traffic.breaks().await;
    system.kill_everything();
    system.start_everything().await;
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("everything: {seen}");
    assert!(seen.reconnects() > 0, "{seen}");
}

#[tokio::test]
async fn every_service_is_stopped_and_started_in_turn() {
    let Some(mut system) = System::of(SYSTEM).await else { return };
    let mut traffic = Traffic::on(&system, "all").await;
    traffic.breaks().await;
    for service in system.services_mut() {
        service.terminate().await.expect("its end");
        service.start_again();
        service.ready().await;
    }
    traffic.mended(&system).await;
    let seen = traffic.verdict(&system).await;
    println!("every service in turn: {seen}");
    assert!(seen.reconnects() > 0, "{seen}");
    assert_eq!(seen.refused(), 0, "{seen}");
}
