//! A new leader takes over.

use std::collections::BTreeMap;

use switchboard_contract::names::LobbyKey;

use super::*;

/// What a bucket would hold, with revisions.
#[derive(Default)]
struct Bucket(BTreeMap<LobbyKey, (Record, u64)>);

impl Bucket {
    fn write(&mut self, batch: &Batch, mut seq: u64) {
        for (key, record) in &batch.records {
            match record {
                Some(record) => drop(self.0.insert(key.clone(), (record.clone(), seq))),
                None => drop(self.0.remove(key)),
            }
            seq += 1;
        }
    }

    fn records(&self) -> Vec<Loaded> {
        let all = self.0.iter();
        all.map(|(key, (record, revision))| Loaded { key: key.clone(), record: record.clone(), revision: *revision })
            .collect()
    }
}

/// A bucket after these inputs: teacher 1 on `a` 1 with chat `x-1` (ready is owed) of student 2, students 3 and 4 wait.
fn bucket() -> (Rig, Bucket) {
    let (mut rig, mut bucket) = (Rig::new(), Bucket::default());
    let mut inputs = vec![rig.table("a", vec![(1, 1, teacher(1))], None)];
    inputs.push(rig.table("b", (2..5).map(|id| (id, 1, student(id, true))).collect(), None));
    inputs.push(rig.claim_input("a", 1));
    let enter = vec![(10, 1, member("x-1", Role::Teacher, true)), (11, 1, member("x-1", Role::Student, true))];
    inputs.push(rig.table("a", enter, None));
    for input in inputs {
        rig.put(input);
        while let Some(batch) = rig.core.take_batch(rig.now()) {
            bucket.write(&batch, rig.seq + 1);
            rig.commit();
        }
    }
    (rig, bucket)
}

fn take_over(old: &Rig, bucket: &Bucket, heard: bool) -> Rig {
    let heard = heard.then(|| old.core.status());
    let mut rig =
        Rig { core: Core::new(8, "y", Config::default()), at: Duration::ZERO, seq: 1000, token: 100, batch_len: 0 };
    rig.core.load(rig.now(), bucket.records(), 999, heard);
    rig
}

#[test]
fn a_claim_that_is_asked_again_brings_one_student() {
    let (mut old, bucket) = bucket();
    let mut new = take_over(&old, &bucket, false);
    for rig in [&mut old, &mut new] {
        rig.whole("a", vec![(1, 1, teacher(1))]);
        let id = rig.core.chats[&chat_id("x-1")].record.claim;
        for (id, waiting) in [(id, 2), (id, 2), (id + 100, 1), (id + 100, 1), (0, 0), (0, 0)] {
            let claim = Claim { v: V1, gateway: name("a"), chan: 1, id };
            rig.run(Input::Claim(id, claim));
            assert_eq!(rig.counts()[1], waiting, "{id}");
        }
    }
}

#[test]
fn a_new_leader_has_what_was_committed_and_pays_what_is_owed() {
    let (old, bucket) = bucket();
    let mut rig = take_over(&old, &bucket, false);
    assert_eq!(rig.put(Input::Tick), ["status v122 1 2 1 0", "log x-1 chat:ready"]);
    assert_eq!(rig.batch(), None);
    assert_eq!((rig.counts(), rig.queue(), rig.core.counters().repaired), ([1, 2, 1, 0], vec!["3", "4"], 0));
    rig.whole("a", vec![(1, 1, teacher(1))]);
    rig.waits("a", 5, 5);
    assert_eq!(rig.queue(), ["3", "4", "5"], "a ticket above all");
    assert!(rig.claim("a", 1).concat().contains("y-1[1]"), "an id that no other leader gives");
}

#[test]
fn everybody_is_in_grace_until_its_gateway_sends_it_again() {
    let (old, bucket) = bucket();
    let mut rig = take_over(&old, &bucket, false);
    assert_eq!(
        rig.whole("b", vec![(2, 1, student(2, true)), (3, 1, student(3, true))]),
        ["push b x-1[2] hold", "push b of 2 pace None [(3, 1)]", "log x-1 chat:ready"]
    );
    rig.logged("x-1", ChatEvent::Ready);
    rig.told("b", "x-1", &[2]);
    let said = rig.wait_ms(10_000);
    assert!(said.contains(&"log x-1 chat:requeued".to_owned()), "{said:?}");
    assert_eq!((rig.counts(), rig.queue()), ([0, 2, 0, 0], vec!["2", "3"]), "4 and the teacher are gone");
}

#[test]
fn a_version_is_new_only_if_the_students_are_not_those_that_were_published() {
    let (mut old, mut bucket) = bucket();
    let mut same = take_over(&old, &bucket, true);
    same.put(Input::Tick);
    assert_eq!(same.core.status().version, old.core.status().version);
    let leave = old.table("b", vec![(4, 2, left(false))], None);
    old.put(leave);
    let batch = old.core.take_batch(old.now()).expect("a batch");
    bucket.write(&batch, 500);
    let other = take_over(&old, &bucket, true);
    assert_eq!((other.core.status().version, other.counts()), (999, [1, 1, 1, 0]));
}

#[test]
fn records_that_do_not_fit_together_are_repaired() {
    let (old, mut bucket) = bucket();
    bucket.0.remove(&LobbyKey::Teacher(UserId::from(1)));
    bucket.0.remove(&LobbyKey::Student(UserId::from(3)));
    let mut rig = take_over(&old, &bucket, false);
    rig.put(Input::Tick);
    assert_eq!(
        rig.batch().expect("a batch"),
        [
            "student.2 Finished #1 -",
            "queue.000000000002 -",
            "chat.x-1 Finished true true Some(Terminated) [\"chat:ready\", \"chat:terminated\"]",
        ]
    );
    rig.commit();
    assert_eq!(rig.counts(), [0, 1, 0, 1]);
}

#[test]
fn of_two_channels_of_a_teacher_the_one_that_spoke_last_counts_after_a_take_over() {
    let (mut old, mut bucket) = (Rig::new(), Bucket::default());
    for (gateway, at) in [("b", set(1, Some(3), Some(true), None)), ("a", set(1, Some(4), None, Some(true)))] {
        let table = old.table(gateway, vec![(1, 1, at)], None);
        old.put(table);
        let batch = old.core.take_batch(old.now()).expect("a batch");
        bucket.write(&batch, old.seq + 1);
        old.commit();
    }
    let mut rig = take_over(&old, &bucket, true);
    rig.put(Input::Tick);
    // The older one comes last.
    for (gateway, at) in [("a", was_set(1, Some(4), None, Some(true))), ("b", was_set(1, Some(3), Some(true), None))] {
        let table = rig.table(gateway, vec![(1, 1, at)], Some(Whole { first: true, last: true }));
        rig.put(table);
        assert_eq!(rig.batch(), None, "nothing changes");
    }
    let table = rig.table("b", vec![(1, 2, set(1, Some(2), None, None))], None);
    rig.put(table);
    assert_eq!(rig.batch(), Some(vec!["teacher.1 2 auto away []".into()]), "but what is said now counts");
}

#[test]
fn a_teacher_who_is_not_on_the_roster_any_more_comes_back_as_it_was() {
    let mut rig = Rig::new();
    let table = rig.table("a", vec![(1, 1, was_set(1, Some(3), Some(true), None))], None);
    rig.put(table);
    assert_eq!(rig.batch(), Some(vec!["teacher.1 3 auto []".into()]));
}
