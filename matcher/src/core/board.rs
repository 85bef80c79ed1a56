//! The lobby's counts: which are committed, which were published, and when the next ones are.

use std::time::Duration;

use switchboard_contract::limits::{STATUS_COALESCE, STATUS_REPEAT};
use switchboard_contract::lobby::Status;

/// Committed and published status.
#[derive(Debug)]
pub(super) struct Board {
    committed: Status,
    published: Option<(Duration, Status)>,
}

impl Board {
    pub(super) fn new(committed: Status) -> Self {
        Board { committed, published: None }
    }

    pub(super) fn committed(&self) -> Status {
        self.committed
    }

    /// A batch is committed, or a count that no batch carries has changed.
    pub(super) fn commit(&mut self, status: Status) {
        debug_assert!(status.version >= self.committed.version);
        self.committed = status;
    }

    /// When something is due to be published.
    pub(super) fn due(&self) -> Duration {
        match self.published {
            None => Duration::ZERO,
            Some((_, published)) if published.waiting == 0 && self.committed.waiting > 0 => Duration::ZERO,
            Some((at, published)) if published != self.committed => at + STATUS_COALESCE,
            Some((at, _)) => at + STATUS_REPEAT,
        }
    }

    /// What is to be published now.
    pub(super) fn publish(&mut self, now: Duration) -> Option<Status> {
        if self.due() > now {
            return None;
        }
        self.published = Some((now, self.committed));
        Some(self.committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(waiting: u64) -> Status {
        Status { version: waiting, waiting, ..Status::default() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn changes_are_coalesced_but_the_first_to_wait_is_not() {
        let mut board = Board::new(waiting(0));
        assert_eq!(board.publish(ms(1000)), Some(waiting(0)), "a new leader speaks at once");
        assert_eq!(board.publish(ms(1000)), None);
        board.commit(waiting(1));
        assert_eq!(board.publish(ms(1001)), Some(waiting(1)), "0 to 1 does not wait");
        board.commit(waiting(2));
        assert_eq!(board.publish(ms(1002)), None);
        assert_eq!(board.due(), ms(1051));
        board.commit(waiting(3));
        assert_eq!(board.publish(ms(1051)), Some(waiting(3)), "the last state, once");
        assert_eq!(board.due(), ms(2051), "repeated");
        board.commit(waiting(4));
        assert_eq!(board.publish(ms(1200)), Some(waiting(4)), "nothing was sent lately: at once");
    }
}
