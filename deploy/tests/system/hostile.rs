//! Hostile and unlucky clients, one kind after the other, while a thousand others talk and notice nothing.
//!
//! The crowd is costly, so all kinds share one: a single test. `HOSTILE=frames` in the environment plays that kind
//! alone, without the crowd.

mod frames;
mod lobby;
mod silent;
mod slow;
mod texts;
mod topics;

use std::time::{Duration, Instant};

use crate::crowd::{self, Crowd};
use crate::feed_member::file;
use crate::harness::{Shape, System};

/// The matcher's: what is lost and what has ended is forgotten soon.
const SHORT: [&str; 4] = ["--grace-ms", "1000", "--chat-linger-ms", "400"];
/// The gateways': everybody in the crowd says something more often than that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_others_notice_nothing() {
    let (_folder, feeds) = file(crowd::FEEDS);
    let idle = IDLE_TIMEOUT.as_secs().to_string();
    let gateway = [&crowd::FLAGS[..], &["--idle-timeout", &idle]].concat();
    let history = ["--feeds", &feeds];
    let Some(system) = System::of(Shape { matcher: &SHORT, history: &history, ..Shape::gateway(&gateway) }).await
    else {
        return;
    };
    let only = std::env::var("HOSTILE").ok();
    let crowd = match only {
        Some(_) => None,
        None => {
            let calm = crowd::calm(&system, Duration::from_secs(8)).await;
            Some((calm, Crowd::gather(&system).await))
        }
    };
    macro_rules! play {
        ($($kind:ident::$scenario:ident),* $(,)?) => {$(
            if only.as_deref().is_none_or(|only| only == stringify!($kind)) {
                let began = Instant::now();
                $kind::$scenario(&system).await;
                eprintln!("{} {}: {:.1} s", stringify!($kind), stringify!($scenario), began.elapsed().as_secs_f64());
            }
        )*};
    }
    play! {
        topics::joins_of_chats_that_are_not,
        topics::the_same_topic_twice,
        topics::what_is_somebody_elses,
        lobby::students_who_are_killed,
        lobby::a_teacher_who_is_killed,
        lobby::a_student_who_leaves_before_the_end,
        frames::of_every_wrong_kind,
        texts::ids_of_any_kind_stay_apart,
        texts::what_is_taken_comes_out_unchanged,
        texts::what_is_refused_says_why,
        slow::one_that_never_reads,
        slow::a_byte_a_second,
        silent::ten_thousand_that_never_speak,
    }
    if let Some(((p50, p99), crowd)) = crowd {
        let (p50_then, p99_then) = crowd.verdict().await;
        eprintln!("from side to side, ms: p50 {p50:.1}, then {p50_then:.1}; p99 {p99:.1}, then {p99_then:.1}");
    }
    // Nobody has died on the way, and come back.
    for (_, gateway) in &system.gateways {
        assert!(gateway.metrics().await.is_some());
    }
}
