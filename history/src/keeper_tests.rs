use proptest::prelude::*;
use switchboard_contract::names::RoomId;

use super::*;

const LINGER: Duration = Duration::from_secs(60);

/// A keeper, and a clock that goes by itself to where there is something to do.
struct Story {
    keeper: Keeper,
    start: Instant,
    now: Instant,
}

impl Story {
    fn new() -> Story {
        let start = Instant::now();
        Story { keeper: Keeper::new(LINGER), start, now: start }
    }

    /// Unix milliseconds count from the start.
    fn unix(&self) -> u64 {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    fn seconds(&self) -> u64 {
        (self.now - self.start).as_secs()
    }

    fn note(&mut self, name: &Arc<LogName>, life: Option<Life>) {
        let unix = self.unix();
        self.keeper.note(name, life, self.now, unix);
    }

    fn recorded(&mut self, name: &Arc<LogName>, since: u64, seq: u64) {
        let unix = self.unix();
        self.keeper.recorded(name, since, seq, self.now, unix);
    }

    /// The next thing to do, of one room.
    fn act(&mut self) -> Act {
        loop {
            let due = self.keeper.due(self.now, self.unix());
            assert!(due.len() <= 1);
            if let Some((_, act)) = due.first() {
                return *act;
            }
            let deadline = self.keeper.deadline().expect("something to do");
            self.now = self.now.max(deadline);
        }
    }

    fn done(&mut self, name: &Arc<LogName>, act: Act, came: Came) {
        let unix = self.unix();
        self.keeper.done(name, act, came, self.now, unix);
    }

    /// What comes next, which is this, and what came of it.
    fn expect(&mut self, name: &Arc<LogName>, act: Act, came: Came) {
        assert_eq!(self.act(), act);
        self.done(name, act, came);
    }

    /// Nobody is there until something else than a probe is to be done.
    fn probe_in_vain(&mut self, name: &Arc<LogName>) -> Act {
        let mut probed = None;
        loop {
            let act = self.act();
            if act != Act::Probe {
                return act;
            }
            if let Some(before) = probed.replace(self.now) {
                assert!(self.now - before <= ROOM_PROBE_INTERVAL.max(ROOM_CLOSING));
            }
            self.done(name, act, Came::Done);
        }
    }
}

fn room(id: &str) -> Arc<LogName> {
    Arc::new(LogName::Room(RoomId::new(id).expect("an id")))
}

fn life(since: u64, last_seq: u64) -> Option<Life> {
    Some(Life { since, state_seq: since, last_seq, said_by_user: 0, next_end: None })
}

/// A room with its record, in which nobody is.
fn stored() -> (Story, Arc<LogName>) {
    let (mut story, room) = (Story::new(), room("r"));
    story.note(&room, life(7, 9));
    story.recorded(&room, 7, 7);
    (story, room)
}

#[test]
fn a_change_is_snapshot_once_within_a_second() {
    let (mut story, room) = (Story::new(), room("r"));
    story.note(&room, life(7, 7));
    story.note(&room, Some(Life { state_seq: 8, ..life(7, 8).unwrap() }));
    story.expect(&room, Act::Snapshot, Came::Failed);
    story.expect(&room, Act::Snapshot, Came::Refused);
    assert_eq!(story.act(), Act::Snapshot);
    assert!(story.now < story.start + Duration::from_secs(3));
    story.keeper.stored(&room, 7, 8);
    story.done(&room, Act::Snapshot, Came::Done);
    assert_eq!(story.act(), Act::Probe, "it is stored");
}

#[test]
fn a_snapshot_of_an_earlier_life_does_not_count() {
    let (mut story, room) = (Story::new(), room("r"));
    story.note(&room, life(20, 20));
    story.keeper.stored(&room, 7, 30);
    story.recorded(&room, 7, 30);
    assert_eq!(story.act(), Act::Snapshot);
}

#[test]
fn an_empty_room_is_wiped_in_steps() {
    let (mut story, room) = stored();
    assert_eq!(story.probe_in_vain(&room), Act::Close);
    let closed = story.now;
    assert!((60..=82).contains(&story.seconds()), "{}", story.seconds());
    story.done(&room, Act::Close, Came::Done);
    assert_eq!(story.act(), Act::Probe);
    assert!(story.now >= closed + ROOM_CLOSING);
    story.done(&room, Act::Probe, Came::Done);
    story.expect(&room, Act::Wipe { last_seq: 9 }, Came::Done);
    story.note(&room, None);
    story.expect(&room, Act::Delete, Came::Done);
    assert!(story.keeper.is_empty() && story.keeper.deadline().is_none());
}

#[test]
fn whoever_is_there_keeps_it_alive() {
    let (mut story, room) = stored();
    for _ in 0..100 {
        story.expect(&room, Act::Probe, Came::Somebody);
    }
    let left = story.now;
    assert_eq!(story.probe_in_vain(&room), Act::Close);
    assert!(story.now >= left + LINGER);
    story.done(&room, Act::Close, Came::Done);
    story.expect(&room, Act::Probe, Came::Somebody);
    let left = story.now;
    assert_eq!(story.probe_in_vain(&room), Act::Close, "from the start");
    assert!(story.now >= left + LINGER);
}

#[test]
fn what_a_user_said_is_as_good_as_an_answer() {
    let (mut story, room) = stored();
    for seq in 10..100 {
        story.expect(&room, Act::Probe, Came::Done);
        story.note(&room, Some(Life { said_by_user: seq, ..life(7, seq).unwrap() }));
    }
    assert!(story.seconds() > 300);
}

#[test]
fn whatever_is_logged_while_it_closes_saves_it() {
    let (mut story, room) = stored();
    assert_eq!(story.probe_in_vain(&room), Act::Close);
    story.note(&room, life(7, 10));
    story.done(&room, Act::Close, Came::Done);
    story.expect(&room, Act::Probe, Came::Done);
    assert_eq!(story.act(), Act::Probe, "it lives");
}

#[test]
fn a_refusal_at_any_step_saves_it() {
    let (mut story, room) = stored();
    assert_eq!(story.probe_in_vain(&room), Act::Close);
    story.done(&room, Act::Close, Came::Refused);
    assert_eq!(story.act(), Act::Snapshot, "its record is not what it was");
    story.keeper.stored(&room, 7, 7);
    story.done(&room, Act::Snapshot, Came::Done);
    assert_eq!(story.probe_in_vain(&room), Act::Close);
    story.done(&room, Act::Close, Came::Done);
    story.expect(&room, Act::Probe, Came::Done);
    story.expect(&room, Act::Wipe { last_seq: 9 }, Came::Refused);
    let refused = story.now;
    assert_eq!(story.probe_in_vain(&room), Act::Close);
    assert!(story.now >= refused + LINGER);
}

#[test]
fn what_has_a_time_is_ended_when_it_is_over() {
    let (mut story, room) = stored();
    let ends = |next_end| Some(Life { state_seq: 8, next_end, ..life(7, 9).unwrap() });
    story.keeper.stored(&room, 7, 8);
    story.note(&room, ends(Some(5_000)));
    story.expect(&room, Act::Expire { at: 5_000 }, Came::Failed);
    assert_eq!(story.unix(), 5_000);
    story.expect(&room, Act::Expire { at: 5_000 }, Came::Done);
    story.note(&room, Some(Life { state_seq: 10, next_end: None, ..life(7, 10).unwrap() }));
    assert_eq!(story.act(), Act::Snapshot);
}

#[test]
fn a_record_without_a_life_goes_after_a_while() {
    let (mut story, room) = (Story::new(), room("r"));
    story.recorded(&room, 7, 7);
    story.expect(&room, Act::Delete, Came::Refused);
    assert_eq!(story.seconds(), 5);
    story.note(&room, life(9, 9));
    assert_eq!(story.act(), Act::Snapshot, "a life has begun, and its record is an old one");
}

#[test]
fn what_is_on_its_way_is_bounded_and_nobody_is_left_out() {
    let mut story = Story::new();
    let rooms: Vec<_> = (0..4_000).map(|n| room(&n.to_string())).collect();
    rooms.iter().for_each(|room| story.note(room, life(7, 7)));
    let (mut seen, mut most) = (0, 0);
    story.now += ROOM_SNAPSHOT_DELAY;
    while seen < rooms.len() {
        let due = story.keeper.due(story.now, story.unix());
        assert!(!due.is_empty() && story.keeper.deadline().is_none_or(|_| due.len() < ROOM_REQUESTS_MAX));
        most = most.max(due.len());
        for (room, act) in due {
            assert_eq!(act, Act::Snapshot);
            story.keeper.stored(&room, 7, 7);
            story.done(&room, act, Came::Done);
            seen += 1;
        }
    }
    assert_eq!((seen, most), (4_000, ROOM_REQUESTS_MAX));
}

/// What happens to a room while it is kept.
#[derive(Clone, Debug)]
enum Happens {
    Passes(u64),
    Answer(Came),
    Logged,
    Said,
}

fn happens() -> impl Strategy<Value = Happens> {
    let came = prop_oneof![
        20 => Just(Came::Done),
        1 => Just(Came::Somebody),
        1 => Just(Came::Refused),
        1 => Just(Came::Failed),
    ];
    prop_oneof![
        10 => (0..15_000u64).prop_map(Happens::Passes),
        20 => came.prop_map(Happens::Answer),
        1 => Just(Happens::Logged),
        1 => Just(Happens::Said),
    ]
}

proptest! {
    #[test]
    fn no_room_is_wiped_before_its_time(story in proptest::collection::vec(happens(), 1..400)) {
        let (mut keeper, room) = (Keeper::new(LINGER), room("r"));
        let start = Instant::now();
        let (mut now, mut doing, mut seq, mut said) = (start, None, 7, 0);
        // When somebody was there last; the record is closing since when, and what was logged last then.
        let (mut there, mut closed) = (start, None);
        let life = |seq, said| Some(Life { since: 7, state_seq: 7, last_seq: seq, said_by_user: said, next_end: None });
        keeper.note(&room, life(seq, said), now, 0);
        for happens in story {
            match happens {
                Happens::Passes(ms) => now += Duration::from_millis(ms),
                Happens::Logged | Happens::Said => {
                    seq += 1;
                    if matches!(happens, Happens::Said) {
                        (said, there) = (seq, now);
                    }
                    keeper.note(&room, life(seq, said), now, 0);
                }
                Happens::Answer(came) => {
                    let Some(act) = doing.take() else { continue };
                    match (act, came) {
                        (Act::Probe, Came::Somebody) => there = now,
                        (Act::Close, Came::Done) => closed = Some(now),
                        (Act::Snapshot, Came::Done) => keeper.stored(&room, 7, 7),
                        _ => {}
                    }
                    keeper.done(&room, act, came, now, 0);
                }
            }
            if doing.is_none() {
                let due = keeper.due(now, 0);
                prop_assert!(due.len() <= 1);
                doing = due.first().map(|(_, act)| *act);
                match doing {
                    Some(Act::Wipe { last_seq }) => {
                        prop_assert!(now >= there + LINGER, "somebody was there a moment ago");
                        prop_assert!(closed.is_some_and(|closed| now >= closed + ROOM_CLOSING));
                        prop_assert!(last_seq == seq, "what was logged since is not expected");
                        closed = None;
                    }
                    Some(Act::Close) => prop_assert!(now >= there + LINGER),
                    Some(Act::Delete) => prop_assert!(false, "it lives"),
                    Some(Act::Probe | Act::Snapshot | Act::Expire { .. }) | None => {}
                }
            }
        }
        // Left alone it is wiped in the end.
        let mut wiped = matches!(doing, Some(Act::Wipe { .. }));
        for _ in 0..200 {
            if let Some(act) = doing.take() {
                keeper.stored(&room, 7, 7);
                keeper.done(&room, act, Came::Done, now, 0);
            }
            now += Duration::from_secs(2);
            doing = keeper.due(now, 0).first().map(|(_, act)| *act);
            wiped |= matches!(doing, Some(Act::Wipe { .. }));
        }
        prop_assert!(wiped);
    }
}
