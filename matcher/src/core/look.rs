//! What somebody sees who looks at the lobby: the front of the queue, and the newest chats. Made only when it is asked
//! for, of the state that a batch holds, and told with what else leaves with it.

use switchboard_contract::inside::{Talk, Waiting};
use switchboard_contract::limits::{OPERATOR_CHATS_MAX, OPERATOR_QUEUE_MAX};
use switchboard_contract::lobby::{ChatRecord, Status, StudentRecord};
use switchboard_contract::names::UserId;

use super::Core;
use super::types::{Effect, Token, View};

/// Those who look, and what they see but for the counts.
#[derive(Debug)]
pub(super) struct Looks {
    tokens: Vec<Token>,
    queue: Vec<Waiting>,
    chats: Vec<Talk>,
}

impl Looks {
    /// It is committed, with these counts.
    pub(super) fn seen(self, status: Status) -> Effect {
        let Looks { tokens, queue, chats } = self;
        Effect::Looked(tokens, View { status, queue, chats })
    }
}

impl Core {
    /// The record of a student who waits.
    pub(super) fn waiting(&self, id: &UserId) -> Option<&StudentRecord> {
        self.students.get(id)?.record.as_ref()
    }

    /// What is seen now by those who have asked.
    pub(super) fn take_looks(&mut self) -> Option<Looks> {
        let tokens = std::mem::take(&mut self.pending.looks);
        (!tokens.is_empty()).then(|| Looks { tokens, queue: self.front(), chats: self.newest_chats() })
    }

    fn front(&self) -> Vec<Waiting> {
        let waiting = self.queue.values().take(OPERATOR_QUEUE_MAX).filter_map(|id| self.waiting(id));
        waiting.map(|record| Waiting { student: record.id.clone(), since: record.since.as_str().into() }).collect()
    }

    /// There may be very many, of which few are wanted: only these are sorted.
    fn newest_chats(&self) -> Vec<Talk> {
        let newer = |a: &&ChatRecord, b: &&ChatRecord| (&b.since, &b.id).cmp(&(&a.since, &a.id));
        let mut chats: Vec<&ChatRecord> =
            self.chats.values().filter(|chat| chat.is_active()).map(|chat| &chat.record).collect();
        if chats.len() > OPERATOR_CHATS_MAX {
            chats.select_nth_unstable_by(OPERATOR_CHATS_MAX, newer);
            chats.truncate(OPERATOR_CHATS_MAX);
        }
        chats.sort_unstable_by(newer);
        let talk = |chat: &ChatRecord| Talk {
            id: chat.id.clone(),
            teacher: chat.teacher_id.clone(),
            student: chat.student_id.clone(),
            since: chat.since.as_str().into(),
        };
        chats.into_iter().map(talk).collect()
    }
}
