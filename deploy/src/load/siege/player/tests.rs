//! A user, whatever happens to its socket.

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn took(player: &mut Player) -> Vec<Ask> {
    std::mem::take(&mut player.asks)
}

/// Joined, and in a chat "c" that it has entered.
fn chatting(role: Role) -> Player {
    let mut player = Player::new(role, 2, Duration::ZERO);
    player.opened();
    player.answered(Ask::Join, Answer::Ok(0), NOW);
    player.answered(Ask::Ready, Answer::Ok(0), NOW);
    assert!(player.shown("c"));
    player.answered(Ask::JoinChat("c".into(), None), Answer::Ok(0), NOW);
    player.answered(Ask::Enter("c".into()), Answer::Ok(0), NOW);
    took(&mut player);
    player
}

#[test]
fn who_comes_back_joins_all_again_and_says_again_what_was_not_acknowledged() {
    let mut teacher = chatting(Role::Teacher);
    teacher.ready("c", NOW);
    assert_eq!(took(&mut teacher), [Ask::Say("c".into(), 1)]);
    teacher.heard("c", 1, 7, NOW);
    assert_eq!(took(&mut teacher), [Ask::Say("c".into(), 2)]);
    teacher.answered(Ask::Say("c".into(), 1), Answer::Ok(6), NOW);
    teacher.lost();
    teacher.opened();
    assert_eq!(took(&mut teacher), [Ask::Join, Ask::JoinChat("c".into(), Some(7))]);
    teacher.answered(Ask::JoinChat("c".into(), Some(7)), Answer::Ok(0), NOW);
    assert_eq!(took(&mut teacher), [Ask::Enter("c".into()), Ask::Say("c".into(), 2)]);
    assert_eq!(teacher.repeated, 1);
    // Shown again on the new channel, and ready again: neither is new.
    assert!(!teacher.shown("c"));
    teacher.ready("c", NOW);
    assert_eq!(took(&mut teacher), []);
}

#[test]
fn unavailable_is_asked_again_after_a_while() {
    let mut student = chatting(Role::Student);
    student.heard("c", 1, 5, NOW);
    assert_eq!(took(&mut student), [Ask::Say("c".into(), 1)]);
    student.answered(Ask::Say("c".into(), 1), Answer::Unavailable, NOW);
    assert_eq!((took(&mut student), student.next_timer()), (vec![], Some(NOW + AGAIN_AFTER)));
    student.tick(NOW + AGAIN_AFTER);
    assert_eq!((took(&mut student), student.repeated), (vec![Ask::Say("c".into(), 1)], 1));
}

#[test]
fn a_refused_join_is_asked_again_after_one_two_and_five_seconds() {
    let mut student = Player::new(Role::Student, 1, Duration::ZERO);
    student.opened();
    let mut now = NOW;
    for seconds in [1, 2, 5, 5] {
        took(&mut student);
        student.answered(Ask::Join, Answer::Unavailable, now);
        assert_eq!(student.next_timer(), Some(now + Duration::from_secs(seconds)));
        now += Duration::from_secs(seconds);
        student.tick(now);
        assert_eq!(took(&mut student), [Ask::Join]);
    }
    student.answered(Ask::Join, Answer::Ok(0), now);
    assert_eq!(took(&mut student), [Ask::Ready]);
    student.channel_failed(None, now);
    assert_eq!(student.next_timer(), Some(now + Duration::from_secs(1)));
}

#[test]
fn a_student_whose_chat_ended_early_goes_on_with_the_next() {
    for (how, asks) in [(End::Requeued, vec![]), (End::Terminated, vec![Ask::Ready]), (End::Refused, vec![Ask::Ready])]
    {
        let mut student = chatting(Role::Student);
        student.heard("c", 1, 5, NOW);
        took(&mut student);
        student.over("c", how);
        assert_eq!(took(&mut student), [vec![Ask::LeaveChat("c".into())], asks].concat());
        assert!(!student.shown("c") && student.shown("d"));
        student.heard("d", 1, 9, NOW);
        student.answered(Ask::JoinChat("d".into(), None), Answer::Ok(0), NOW);
        let expected = [Ask::JoinChat("d".into(), None), Ask::Enter("d".into()), Ask::Say("d".into(), 1)];
        assert_eq!(took(&mut student), expected);
    }
}

#[test]
fn a_student_that_had_its_chat_leaves_also_by_losing_its_socket() {
    let mut student = chatting(Role::Student);
    for n in [1, 2] {
        student.heard("c", n, u64::from(n), NOW);
    }
    took(&mut student);
    student.over("c", End::Terminated);
    assert_eq!(took(&mut student), [Ask::LeaveChat("c".into()), Ask::Leave]);
    assert!(!student.has_left());
    student.lost();
    assert!(student.has_left());
}

#[test]
fn answers_wait_for_the_pace_also_while_the_socket_is_away() {
    let mut teacher = chatting(Role::Teacher);
    teacher.pace = Duration::from_secs(3);
    teacher.ready("c", NOW);
    teacher.ready("c", NOW);
    teacher.lost();
    teacher.opened();
    teacher.tick(NOW + teacher.pace);
    took(&mut teacher);
    teacher.answered(Ask::JoinChat("c".into(), Some(0)), Answer::Ok(0), NOW);
    assert_eq!(took(&mut teacher), [Ask::Enter("c".into()), Ask::Say("c".into(), 1)]);
    teacher.heard("c", 2, 9, NOW);
    teacher.tick(NOW + teacher.pace);
    assert_eq!(took(&mut teacher), [Ask::Terminate("c".into())]);
}

#[test]
fn only_free_teachers_claim() {
    let mut teacher = chatting(Role::Teacher);
    assert!(teacher.may_claim(2) && !teacher.may_claim(1));
    teacher.over("c", End::Terminated);
    assert!(teacher.may_claim(1));
    teacher.leave();
    assert!(!teacher.may_claim(1));
}

#[test]
fn who_leaves_in_the_middle_of_a_chat_asks_for_no_other() {
    let mut student = chatting(Role::Student);
    student.leave();
    assert_eq!(took(&mut student), [Ask::Leave]);
    student.over("c", End::Terminated);
    assert_eq!(took(&mut student), [Ask::LeaveChat("c".into())]);
    student.answered(Ask::Ready, Answer::Unavailable, NOW);
    student.tick(NOW + AGAIN_AFTER);
    assert_eq!((took(&mut student), student.shown("d")), (vec![], false));
    student.answered(Ask::Leave, Answer::Ok(0), NOW);
    assert!(student.has_left());
}

#[test]
fn of_chats_that_are_over_only_the_last_are_remembered() {
    let mut teacher = Player::new(Role::Teacher, 1, Duration::ZERO);
    for n in 0..PAST_MAX + 100 {
        teacher.shown(&n.to_string());
        teacher.over(&n.to_string(), End::Terminated);
    }
    assert_eq!((teacher.past.len(), teacher.talks.len()), (PAST_MAX, 0));
    assert!(!teacher.shown("200"), "one that is told late is not joined again");
}
