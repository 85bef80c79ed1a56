//! What comes on a member's socket: told to the judge, and answered by its voice.

use std::rc::Rc;
use std::time::Duration;

use super::super::super::siege::backoff;
use super::super::judge::{Broken, Event, Said, Violation};
use super::super::voice::{Answer, Push};
use super::super::wire::{self, GapIn, JoinedIn, ReplyIn};
use super::{ANSWER_WITHIN, Asked, Channel, Life};
use crate::client::{self, Frame, Incoming};

impl Life {
    pub(super) fn on_message(&mut self, incoming: &Incoming) -> Result<(), Violation> {
        if let Some((event, payload)) = incoming.text().and_then(|text| self.envelope.open(text)) {
            return self.on_event(event, payload);
        }
        let frame = incoming.frame().map_err(|error| self.unexpected(error))?;
        let json = frame.payload.json().ok_or_else(|| self.unexpected("binary data came"))?;
        match &*frame.event {
            "phx_reply" => self.on_reply(&frame, json),
            "phx_close" if std::mem::take(&mut self.closes) => Ok(()),
            "phx_error" if self.hall.is_besieged() => {
                let now = self.now();
                self.gone(now + backoff::join(0));
                Ok(())
            }
            event if frame.topic == self.topic => self.on_event(event, json),
            event => Err(self.unexpected(format_args!("{event} {json} came on {}", frame.topic))),
        }
    }

    /// Its channel is gone; it joins again at that time.
    fn gone(&mut self, until: Duration) {
        let now = self.now();
        self.hall.room(self.room, |room| room.gone(self.me, now));
        self.voice.lost(now);
        self.open.clear();
        self.channel = Channel::Away(until);
    }

    fn on_event(&mut self, event: &str, json: &str) -> Result<(), Violation> {
        let hall = Rc::clone(&self.hall);
        let logged = match event {
            "new_msg" => Event::Broadcast,
            "new_message" => Event::Say,
            "presence_state" => {
                hall.count(|tally| tally.presence_events += 1);
                return hall.room(self.room, |room| room.state(self.me, json));
            }
            "presence_diff" => {
                hall.count(|tally| tally.presence_events += 1);
                return hall.room(self.room, |room| room.diff(self.me, json));
            }
            "typing" => {
                hall.count(|tally| tally.typings_received += 1);
                return Ok(());
            }
            // Nobody makes a change: what comes is the beginning of the room.
            "keywords" | "room:state" => return Ok(()),
            "gap" => {
                let GapIn { from, to } = serde_json::from_str(json).map_err(|error| self.unexpected(error))?;
                let excused = hall.excuses_gaps();
                hall.count(|tally| {
                    tally.gaps += 1;
                    tally.gaps_excused += u64::from(excused);
                });
                let now = self.now();
                return hall.room(self.room, |room| room.gap(self.me, now, (from, to), excused));
            }
            _ => return Err(self.unexpected(format_args!("{event} {json} came"))),
        };
        let Some(seq) = wire::seq(json) else { return self.on_direct(json) };
        let now = self.now();
        let known = (seq, wire::digest(event, json));
        let read = || wire::said(logged, json, |by| hall.key(by));
        let took = hall.room(self.room, |room| room.heard(self.me, now, known, read))?;
        hall.count(|tally| tally.deliveries += 1);
        if let Some(took) = took {
            hall.heard(took, self.connected);
        }
        Ok(())
    }

    fn on_direct(&self, json: &str) -> Result<(), Violation> {
        if !json.contains(&format!(r#""to":[{{"session":"{}"}}]"#, self.own_key())) {
            return Err(self.unexpected(format_args!("a direct message to somebody else came: {json}")));
        }
        self.hall.count(|tally| tally.directs_received += 1);
        Ok(())
    }

    fn on_reply(&mut self, frame: &Frame<'_>, json: &str) -> Result<(), Violation> {
        let now = self.now();
        let reference = frame.reference.as_deref().and_then(|r| r.parse().ok());
        let reference: u64 = reference.ok_or_else(|| self.unexpected("a reply without a ref of this client"))?;
        let (at, asked) = self.open.remove(&reference).ok_or_else(|| self.broken(Broken::StrayReply { reference }))?;
        // Replies of one topic come in order.
        if now > at + ANSWER_WITHIN || self.open.first_key_value().is_some_and(|(first, _)| *first < reference) {
            return Err(self.unanswered(reference, asked));
        }
        let reply = client::ReplyIn::read(json).map_err(|error| self.unexpected(error))?;
        let (Ok(response) | Err(response)) = reply;
        let fields: ReplyIn<'_> = serde_json::from_str(response).map_err(|error| self.unexpected(error))?;
        let answer = match (reply, fields.reason.as_deref()) {
            (Ok(_), _) => Answer::Ok,
            (Err(_), Some("unavailable")) if self.hall.is_besieged() => {
                self.hall.unavailable(now, format_args!("member {} of room {}, {}", self.me, self.room, asked.text()));
                Answer::Unavailable
            }
            (Err(_), Some("rate_limited")) => {
                self.hall.count(|tally| tally.rate_limited += 1);
                Answer::Later(Duration::from_millis(fields.retry_after_ms.unwrap_or(1_000)))
            }
            (Err(reason), _) => {
                let (what, reason) = (asked.text(), reason.to_owned());
                return Err(self.broken(Broken::Refused { what, reason }));
            }
        };
        match asked {
            Asked::Join => self.on_joined(answer, response, now),
            Asked::Leave => {
                (self.left, self.closes) = (true, true);
                let until = now + self.voice.away();
                self.gone(until);
                Ok(())
            }
            Asked::Push(push) => self.on_answer(push, answer, fields.seq, at, now),
        }
    }

    fn on_joined(&mut self, answer: Answer, response: &str, now: Duration) -> Result<(), Violation> {
        match answer {
            Answer::Ok => {}
            Answer::Unavailable => {
                self.channel = Channel::Away(now + backoff::join(self.refused));
                self.refused += 1;
                return Ok(());
            }
            Answer::Later(after) => {
                self.channel = Channel::Away(now + after);
                return Ok(());
            }
        }
        let JoinedIn { last_seq, recovered } =
            serde_json::from_str(response).map_err(|error| self.unexpected(format_args!("{error}: {response}")))?;
        self.hall.room(self.room, |room| room.joined(self.me, now, last_seq, recovered))?;
        (self.channel, self.refused) = (Channel::Joined, 0);
        if self.arrival.take().is_some() {
            self.hall.arrived.set(self.hall.arrived.get() + 1);
        } else if recovered {
            self.hall.resumed(self.connected);
        }
        if std::mem::take(&mut self.left) {
            self.hall.count(|tally| tally.rejoins += 1);
        }
        Ok(())
    }

    fn on_answer(
        &mut self,
        push: Push,
        answer: Answer,
        seq: Option<u64>,
        at: Duration,
        now: Duration,
    ) -> Result<(), Violation> {
        let hall = Rc::clone(&self.hall);
        match (push, answer) {
            (Push::Message { n, event, .. }, Answer::Ok) => {
                let seq = seq.ok_or_else(|| self.unexpected(format_args!("the ok of message {n} has no seq")))?;
                hall.room(self.room, |room| room.acked(self.me, Said { by: self.me, n, event }, seq))?;
                hall.count(|tally| tally.messages += 1);
                hall.acked(now.saturating_sub(at));
            }
            (Push::Message { n, .. }, Answer::Unavailable) => hall.room(self.room, |room| room.unknown(self.me, n)),
            (Push::Direct { .. }, Answer::Ok) => hall.count(|tally| tally.directs += 1),
            (Push::Typing, Answer::Ok) => hall.count(|tally| tally.typings += 1),
            (Push::Message { .. }, Answer::Later(_))
            | (Push::Direct { .. } | Push::Typing, Answer::Unavailable | Answer::Later(_)) => {}
        }
        self.voice.answered(answer, now);
        Ok(())
    }
}
