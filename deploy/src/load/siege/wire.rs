//! What a user says and reads, as JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use switchboard_contract::lobby::Role;

use super::super::world::Id;

/// What users say: as long as people's sentences are.
pub(super) const WORDS: &str = "How do I get from the second line of the proof to the third?";

/// The payload of any ask; what is `None` is not there.
#[derive(Default, Serialize)]
pub(super) struct Out<'a> {
    #[serde(rename = "userId", skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<&'a Id>,
    #[serde(rename = "teacherId", skip_serializing_if = "Option::is_none")]
    pub(super) teacher_id: Option<&'a Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capacity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chat: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct HeardIn<'a> {
    #[serde(borrow)]
    pub(super) message: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) chat: Cow<'a, str>,
    pub(super) n: u32,
    pub(super) seq: u64,
}

#[derive(Deserialize)]
pub(super) struct NewChatIn<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) status: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) teacher_id: &'a RawValue,
    #[serde(borrow)]
    pub(super) student_id: &'a RawValue,
}

#[derive(Deserialize)]
pub(super) struct StatusIn {
    pub(super) teachers: TeachersIn,
    pub(super) students: StudentsIn,
}

#[derive(Deserialize)]
pub(super) struct TeachersIn {
    pub(super) total: u64,
}

#[derive(Deserialize)]
pub(super) struct StudentsIn {
    pub(super) total: u64,
    pub(super) waiting: u64,
    pub(super) chatting: u64,
    pub(super) finished: u64,
}

#[derive(Default, Deserialize)]
pub(super) struct ReplyFields<'a> {
    pub(super) seq: Option<u64>,
    #[serde(borrow)]
    pub(super) reason: Option<Cow<'a, str>>,
    pub(super) students: Option<StudentsIn>,
}
