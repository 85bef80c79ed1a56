//! Made-up histories: one that is right, and each rule broken once.

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A room of three members, all joined at seq 10 unless said otherwise.
struct Story {
    room: Room,
    now: Duration,
}

impl Story {
    fn new() -> Story {
        Self::keeping(1_000)
    }

    fn keeping(keep: usize) -> Story {
        let keys = ["u0:s", "u1:s", "u2:s"].map(Box::from);
        let mut story = Story { room: Room::new("r", &keys, keep), now: Duration::ZERO };
        (0..3).for_each(|member| story.joins(member, 10, true).expect("it may join"));
        story
    }

    fn at(&mut self) -> Duration {
        self.now += MS;
        self.now
    }

    fn joins(&mut self, member: u16, last_seq: u64, recovered: bool) -> Result<(), Violation> {
        let at = self.at();
        self.room.joined(member, at, last_seq, recovered)
    }

    fn gone(&mut self, member: u16) {
        let at = self.at();
        self.room.gone(member, at);
    }

    /// Even numbers have an id.
    fn sends(&mut self, member: u16, n: u32) {
        let at = self.at();
        self.room.sends(member, n, n.is_multiple_of(2), at);
    }

    fn hears(&mut self, member: u16, seq: u64, (by, n): (u16, u32), event: Event) -> Result<(), Violation> {
        let (at, said) = (self.at(), Said { by, n, event });
        let digest = 1 + n + (u32::from(by) << 16);
        self.room.heard(member, at, (seq, digest), || Ok(said)).map(|_| ())
    }

    fn new_msg(&mut self, member: u16, seq: u64, said: (u16, u32)) -> Result<(), Violation> {
        self.hears(member, seq, said, Event::Broadcast)
    }

    fn acked(&mut self, member: u16, n: u32, seq: u64) -> Result<(), Violation> {
        self.room.acked(member, Said { by: member, n, event: Event::Broadcast }, seq)
    }

    fn gap(&mut self, member: u16, from: u64, to: u64, excused: bool) -> Result<(), Violation> {
        let at = self.at();
        self.room.gap(member, at, (from, to), excused)
    }

    /// Member 0 says so many messages from its `first` on, from seq 11 on, which the others hear that are joined.
    fn talk(&mut self, count: u32, hear: &[u16]) {
        for n in 0..count {
            let seq = 11 + u64::from(n);
            self.sends(0, n);
            hear.iter().for_each(|member| self.new_msg(*member, seq, (0, n)).expect("it may hear"));
            self.acked(0, n, seq).expect("it may be acknowledged");
        }
    }

    fn broken(outcome: Result<(), Violation>) -> (u16, Broken) {
        let Violation { member, what, .. } = outcome.expect_err("a rule is broken");
        (member, what)
    }
}

#[test]
fn what_should_be_is_no_violation() {
    let mut story = Story::new();
    story.talk(3, &[1, 2]);
    // 1 is cut off with a message on its way, which is stored, and comes in the replay; 2 has it live.
    story.sends(1, 0);
    story.gone(1);
    story.sends(0, 3);
    story.new_msg(2, 14, (0, 3)).unwrap();
    story.new_msg(2, 15, (1, 0)).unwrap();
    story.acked(0, 3, 14).unwrap();
    story.new_msg(0, 15, (1, 0)).unwrap();
    assert_eq!(story.room.last_seq(1), Some(13));
    story.joins(1, 15, true).unwrap();
    story.new_msg(1, 14, (0, 3)).unwrap();
    story.new_msg(1, 15, (1, 0)).unwrap();
    story.sends(1, 0);
    assert!(story.room.behind().is_some(), "it still waits for the answer");
    story.acked(1, 0, 15).unwrap();
    // new_message comes to its sender too, before the ok.
    story.sends(2, 0);
    for member in 0..3 {
        story.hears(member, 16, (2, 0), Event::Say).unwrap();
    }
    story.room.acked(2, Said { by: 2, n: 0, event: Event::Say }, 16).unwrap();
    assert_eq!(story.room.behind(), None);
}

#[test]
fn seqs_grow_over_all_joins() {
    let mut story = Story::new();
    story.talk(2, &[1, 2]);
    for seq in [11, 12] {
        assert_eq!(Story::broken(story.new_msg(1, seq, (0, 0))), (1, Broken::Order { seq, had: 12 }));
    }
    story.gone(1);
    story.joins(1, 12, true).unwrap();
    assert_eq!(Story::broken(story.new_msg(1, 12, (0, 1))), (1, Broken::Order { seq: 12, had: 12 }));
}

#[test]
fn what_somebody_else_has_is_not_passed_over() {
    let missed = |seq, had, to| (2, Broken::Missed { seq, by: 0, n: 0, had, to });
    // Known before.
    let mut story = Story::new();
    story.sends(0, 0);
    story.sends(1, 0);
    story.new_msg(1, 11, (0, 0)).unwrap();
    assert_eq!(Story::broken(story.new_msg(2, 12, (1, 0))), missed(11, 10, 12));
    // Known only later.
    let mut story = Story::new();
    story.sends(0, 0);
    story.sends(1, 0);
    story.new_msg(2, 12, (1, 0)).unwrap();
    assert_eq!(Story::broken(story.new_msg(1, 11, (0, 0))), missed(11, 10, 12));
    // Known by the acknowledgement alone.
    let mut story = Story::new();
    story.sends(0, 0);
    story.sends(1, 0);
    story.acked(0, 0, 11).unwrap();
    assert_eq!(Story::broken(story.new_msg(2, 12, (1, 0))), missed(11, 10, 12));
    // Over a rejoin.
    let mut story = Story::new();
    story.gone(2);
    story.talk(1, &[1]);
    story.joins(2, 11, true).unwrap();
    story.sends(1, 0);
    assert_eq!(Story::broken(story.new_msg(2, 12, (1, 0))), missed(11, 10, 12));
    // At the end.
    let mut story = Story::new();
    story.talk(1, &[1]);
    let behind = story.room.behind().map(|violation| (violation.member, violation.what));
    assert_eq!(behind, Some((2, Broken::NotThere { had: 10, last: 11 })));
}

#[test]
fn a_reply_comes_behind_what_stands_before_it() {
    let mut story = Story::new();
    story.talk(1, &[1]);
    story.sends(2, 0);
    let missed = Broken::Missed { seq: 11, by: 0, n: 0, had: 10, to: 12 };
    assert_eq!(Story::broken(story.acked(2, 0, 12)), (2, missed));
    let mut story = Story::new();
    story.sends(2, 0);
    story.sends(0, 0);
    story.acked(2, 0, 12).unwrap();
    assert_eq!(Story::broken(story.new_msg(2, 11, (0, 0))), (2, Broken::Order { seq: 11, had: 12 }));
}

#[test]
fn a_sequence_is_the_same_for_everybody() {
    let mut story = Story::new();
    story.sends(0, 0);
    story.sends(0, 1);
    story.new_msg(1, 11, (0, 0)).unwrap();
    assert_eq!(Story::broken(story.new_msg(2, 11, (0, 1))), (2, Broken::Differs { seq: 11, by: 0, n: 0 }));
    assert_eq!(Story::broken(story.acked(0, 1, 11)), (0, Broken::Differs { seq: 11, by: 0, n: 0 }));
    // What was only acknowledged has to be what comes then.
    let mut story = Story::new();
    story.sends(0, 0);
    story.acked(0, 0, 11).unwrap();
    let other = story.hears(1, 11, (0, 0), Event::Say);
    assert_eq!(Story::broken(other), (1, Broken::Differs { seq: 11, by: 0, n: 0 }));
}

#[test]
fn a_message_is_stored_once_and_only_if_it_was_sent() {
    let mut story = Story::new();
    story.talk(1, &[1, 2]);
    let twice = Broken::Twice { by: 0, n: 0, first: 11, second: 12 };
    assert_eq!(Story::broken(story.new_msg(1, 12, (0, 0))), (1, twice.clone()));
    assert_eq!(Story::broken(story.acked(0, 0, 12)), (0, twice));
    for (by, n) in [(0, 7), (9, 0)] {
        assert_eq!(Story::broken(story.new_msg(1, 12, (by, n))), (1, Broken::Invented { seq: 12, by, n }));
    }
}

#[test]
fn the_socket_that_sent_it_is_not_shown_its_own_new_msg_but_a_later_one_is() {
    let mut story = Story::new();
    story.sends(0, 0);
    assert_eq!(Story::broken(story.new_msg(0, 11, (0, 0))), (0, Broken::Own { seq: 11, n: 0 }));
    // Lost with its socket, and behind what the member had: it is shown.
    let mut story = Story::new();
    story.sends(0, 0);
    story.sends(2, 0);
    story.gone(0);
    story.new_msg(1, 11, (0, 0)).unwrap();
    story.joins(0, 11, true).unwrap();
    let missed = Broken::Missed { seq: 11, by: 0, n: 0, had: 10, to: 12 };
    assert_eq!(Story::broken(story.new_msg(0, 12, (2, 0))), (0, missed));
    // The answer was lost, not the message: the member had gone past it.
    let mut story = Story::new();
    story.sends(0, 0);
    story.sends(2, 0);
    story.new_msg(0, 12, (2, 0)).unwrap();
    story.gone(0);
    story.new_msg(1, 11, (0, 0)).unwrap();
    // Unavailable, and then it counts all the same.
    let mut story = Story::new();
    story.sends(0, 0);
    story.room.unknown(0, 0);
    story.new_msg(1, 11, (0, 0)).unwrap();
    story.sends(2, 0);
    story.new_msg(0, 12, (2, 0)).unwrap();
    // Unavailable, and then the socket was lost: the next one is another, however late it counts.
    for later in [false, true] {
        let mut story = Story::new();
        story.sends(0, 0);
        story.room.unknown(0, 0);
        if later {
            story.sends(0, 1);
            story.acked(0, 1, 11).unwrap();
        }
        story.gone(0);
        let seq = if later { 12 } else { 11 };
        story.joins(0, seq - 1, true).unwrap();
        story.new_msg(0, seq, (0, 0)).unwrap();
    }
    // new_message comes to its sender in any case.
    let mut story = Story::new();
    story.sends(0, 0);
    story.sends(2, 0);
    story.hears(1, 11, (0, 0), Event::Say).unwrap();
    assert!(matches!(Story::broken(story.new_msg(0, 12, (2, 0))), (0, Broken::Missed { seq: 11, .. })));
}

#[test]
fn nothing_comes_to_who_is_not_joined() {
    let mut story = Story::new();
    story.sends(0, 0);
    story.gone(1);
    assert_eq!(Story::broken(story.new_msg(1, 11, (0, 0))), (1, Broken::NotJoined { what: "a message" }));
    assert_eq!(Story::broken(story.gap(1, 11, 12, true)), (1, Broken::NotJoined { what: "a gap" }));
    assert_eq!(Story::broken(story.room.state(1, "{}")), (1, Broken::NotJoined { what: "presence_state" }));
}

#[test]
fn a_gap_follows_a_join_that_says_so_and_excuses_its_range_alone() {
    // 100 are kept: of 101, the first is rightfully gone.
    let mut story = Story::new();
    story.gone(2);
    story.talk(101, &[1]);
    story.joins(2, 111, false).unwrap();
    assert_eq!(Story::broken(story.new_msg(2, 12, (0, 1))), (2, Broken::NoGap { what: "a message", had: 10 }));
    story.gone(2);
    story.joins(2, 111, false).unwrap();
    story.gap(2, 11, 11, false).unwrap();
    assert_eq!(
        Story::broken(story.new_msg(2, 13, (0, 2))),
        (2, Broken::Missed { seq: 12, by: 0, n: 1, had: 11, to: 13 })
    );
    story.now += GAP_JUDGED_AFTER;
    let now = story.at();
    story.room.look(now).unwrap();
}

#[test]
fn a_gap_is_judged_by_what_had_been_sent_when_it_was_shown() {
    for (before, late, rightful) in [(99, 2, true), (99, 1, false), (100, 0, false), (101, 0, true)] {
        let mut story = Story::new();
        story.gone(2);
        story.talk(before, &[1]);
        // Stored, and answered only after the gap was shown.
        (before..before + late).for_each(|n| story.sends(0, n));
        story.joins(2, 10 + u64::from(before + late), false).unwrap();
        story.gap(2, 11, 11, false).unwrap();
        // What is sent now pushes nothing out that was asked for before.
        (before + late..before + 50).for_each(|n| story.sends(0, n));
        for n in before..before + 50 {
            story.acked(0, n, 11 + u64::from(n)).unwrap();
        }
        story.now += GAP_JUDGED_AFTER;
        let now = story.at();
        let judged = story.room.look(now);
        assert_eq!(judged.is_ok(), rightful, "{before} {late}: {judged:?}");
    }
}

#[test]
fn a_gap_over_what_is_kept_is_none() {
    let mut story = Story::new();
    story.gone(2);
    story.talk(100, &[1]);
    story.joins(2, 110, false).unwrap();
    story.gap(2, 11, 11, false).unwrap();
    let early = story.at();
    story.room.look(early).unwrap();
    story.now += GAP_JUDGED_AFTER;
    let now = story.at();
    let gap = Broken::Gap { from: 11, to: 11, behind: 100, kept: 100 };
    assert_eq!(Story::broken(story.room.look(now).map(|_| ())), (2, gap));
    // Where nobody could be asked it is one.
    let mut story = Story::new();
    story.gone(2);
    story.talk(2, &[1]);
    story.joins(2, 12, false).unwrap();
    story.gap(2, 11, 12, true).unwrap();
    story.now += GAP_JUDGED_AFTER;
    let now = story.at();
    story.room.look(now).unwrap();
}

#[test]
fn a_gap_in_the_middle_or_elsewhere_is_none() {
    let mut story = Story::new();
    story.talk(1, &[1, 2]);
    assert_eq!(Story::broken(story.gap(1, 12, 13, false)), (1, Broken::StrayGap { from: 12, to: 13, had: 11 }));
    assert_eq!(Story::broken(story.gap(1, 11, 13, true)), (1, Broken::StrayGap { from: 11, to: 13, had: 11 }));
    story.gap(1, 12, 13, true).unwrap();
    story.gone(1);
    story.joins(1, 13, false).unwrap();
    assert_eq!(Story::broken(story.gap(1, 15, 16, false)), (1, Broken::StrayGap { from: 15, to: 16, had: 13 }));
    story.gone(1);
    assert_eq!(Story::broken(story.joins(1, 12, true)), (1, Broken::Behind { asked: 13, last_seq: 12 }));
}

const STATE: &str = r#"{"u0:s":{"metas":[{"phx_ref":"a","online_at":"1"}]},"u1:s":{"metas":[{"phx_ref":"b"}]}}"#;

fn diff(joins: &str, leaves: &str) -> String {
    let of = |phx_ref: &str| match phx_ref {
        "" => "{}".to_owned(),
        phx_ref => format!(r#"{{"u2:s":{{"metas":[{{"phx_ref":"{phx_ref}"}}]}}}}"#),
    };
    format!(r#"{{"joins":{},"leaves":{}}}"#, of(joins), of(leaves))
}

#[test]
fn a_join_gets_its_state_once_and_first_and_each_meta_once() {
    let mut story = Story::new();
    let early = Broken::PresenceOrder { what: "presence_diff", had: "no state yet" };
    assert_eq!(Story::broken(story.room.diff(0, &diff("c", ""))), (0, early.clone()));
    story.room.state(0, STATE).unwrap();
    story.room.diff(0, &diff("c", "")).unwrap();
    let twice = Broken::PresenceOrder { what: "presence_state", had: "its state already" };
    assert_eq!(Story::broken(story.room.state(0, STATE)), (0, twice));
    let meta = |what| Broken::Meta { phx_ref: "c".into(), key: "u2:s".into(), what };
    assert_eq!(Story::broken(story.room.diff(0, &diff("c", ""))), (0, meta("joined a second time")));
    story.room.diff(0, &diff("", "c")).unwrap();
    assert_eq!(Story::broken(story.room.diff(0, &diff("", "c"))), (0, meta("left, and was not there")));
    story.gone(0);
    story.joins(0, 10, true).unwrap();
    assert_eq!(Story::broken(story.room.diff(0, &diff("c", ""))), (0, early));
}

#[test]
fn in_a_quiet_room_all_lists_are_the_same_and_true() {
    let compared = |lists: [&str; 3]| {
        let mut story = Story::new();
        for (member, list) in (0..).zip(lists) {
            story.room.state(member, STATE).unwrap();
            story.room.diff(member, &diff(list, "")).unwrap();
        }
        let early = story.room.look(story.now + QUIET - MS).unwrap();
        assert_eq!((early, story.room.is_compared()), (0, false));
        story.room.look(story.now + QUIET)
    };
    assert_eq!(compared(["c", "c", "c"]), Ok(3));
    for (lists, member) in [(["c", "c", "d"], 2), (["", "", ""], 0), (["c", "", "c"], 1)] {
        let violation = compared(lists).expect_err("they differ");
        assert_eq!(violation.member, member, "{lists:?}");
        assert!(matches!(violation.what, Broken::Presence { .. }), "{violation}");
    }
    // Who is gone has to be off them.
    let mut story = Story::new();
    (0..3).for_each(|member| {
        story.room.state(member, STATE).unwrap();
        story.room.diff(member, &diff("c", "")).unwrap();
    });
    story.gone(2);
    assert!(story.room.look(story.now + QUIET).is_err());
}

#[test]
fn of_a_long_log_the_end_is_judged() {
    let mut story = Story::keeping(10);
    story.gone(2);
    story.talk(50, &[1]);
    story.joins(2, 60, true).unwrap();
    // 11 to 50 are forgotten.
    story.new_msg(2, 11, (0, 0)).unwrap();
    story.new_msg(2, 51, (0, 40)).unwrap();
    assert!(matches!(Story::broken(story.new_msg(2, 53, (0, 42))), (2, Broken::Missed { seq: 52, .. })));
}

#[test]
fn a_message_says_how_long_it_took_unless_it_came_in_a_replay_or_was_sent_again() {
    let mut story = Story::new();
    story.sends(0, 0);
    let said = Said { by: 0, n: 0, event: Event::Broadcast };
    let took = story.room.heard(1, story.now + 5 * MS, (11, 1), || Ok(said)).unwrap();
    assert_eq!(took, Some(5 * MS));
    story.gone(2);
    story.joins(2, 11, true).unwrap();
    assert_eq!(story.room.heard(2, story.now + 5 * MS, (11, 1), || Ok(said)).unwrap(), None);
}
