// The official phoenix.js through join, claim, chat, terminate and leave; students and teachers on different gateways.

import assert from "node:assert/strict";
import { test } from "node:test";
import { claim, connectOld, enter, inbox, reply, student, studentGateway, teacher, unique } from "./users.mjs";

test("a student meets a teacher, and they part", async () => {
  const t = await teacher(unique("t"));
  assert.equal(t.counts.students.total, 0);
  const s = await student(unique("s"));
  assert.equal((await t.events.next("user:status")).students.waiting, 1);
  const chat = await claim(t);
  assert.deepEqual(await s.events.next("new:chat"), chat);
  assert.deepEqual([chat.teacher_id, chat.student_id, chat.status], [t.id, s.id, "active"]);

  const mine = await enter(t, "teacher", chat);
  const theirs = await enter(s, "student", chat);
  assert.equal(theirs.joined.recovered, true);
  await mine.events.next("chat:ready");
  await theirs.events.next("chat:ready");

  let last = 0;
  for (let n = 0; n < 10; n++) {
    const sent = await reply(mine.channel.push("teacher:send", { message: `q${n}`, extra: [n] }));
    const asked = await theirs.events.next("student:receive");
    assert.deepEqual(asked, { message: `q${n}`, extra: [n], seq: sent.response.seq });
    const answered = await reply(theirs.channel.push("student:send", { message: `a${n}` }));
    assert.equal((await mine.events.next("teacher:receive")).message, `a${n}`);
    assert.ok(sent.response.seq > last && answered.response.seq > sent.response.seq);
    last = answered.response.seq;
  }
  const history = await reply(theirs.channel.push("history", { limit: 5 }));
  assert.equal(history.response.messages.length, 5);
  assert.equal(history.response.complete, false);

  assert.equal((await reply(mine.channel.push("chat:terminate", {}))).status, "ok");
  await mine.events.next("chat:terminated");
  await theirs.events.next("chat:terminated");
  const late = await reply(theirs.channel.push("student:send", { message: "late" }));
  assert.equal(late.response.reason, "chat_finished");

  await reply(theirs.channel.leave());
  await reply(s.channel.leave());
  for (let status = {}; status.students?.total !== 0; ) status = await t.events.next("user:status");
  await reply(t.channel.leave());
});

test("V1 and V2 talk with each other", async () => {
  const t = await teacher(unique("t"));
  const socket = connectOld(studentGateway);
  const id = Math.floor(Math.random() * 1e9);
  const channel = socket.channel(`presence:student:${id}`, { userId: id, role: "student" });
  const events = inbox(channel);
  assert.equal((await reply(channel.join())).status, "ok");
  await reply(channel.push("student:ready", { userId: id }));
  const chat = await claim(t);
  assert.equal((await events.next("new:chat")).student_id, id);
  const mine = await enter(t, "teacher", chat);
  const theirs = await enter({ socket, id }, "student", chat);
  await theirs.events.next("chat:ready");
  await reply(theirs.channel.push("student:send", { message: "über 🦊" }));
  assert.equal((await mine.events.next("teacher:receive")).message, "über 🦊");
  await reply(channel.leave());
  await mine.events.next("chat:terminated");
  await reply(t.channel.leave());
});

test("phoenix.js rejoins by itself: the chat goes on, and is not shown twice", async () => {
  const t = await teacher(unique("t"));
  const s = await student(unique("s"));
  const chat = await claim(t);
  await s.events.next("new:chat");
  const mine = await enter(t, "teacher", chat);
  const theirs = await enter(s, "student", chat);
  await theirs.events.next("chat:ready");
  await reply(mine.channel.push("teacher:send", { message: "before" }));
  await theirs.events.next("student:receive");

  // The connection breaks under the client: it reconnects, and joins both its topics again.
  const rejoined = new Promise((resolve) => theirs.channel.on("phx_reply", () => theirs.channel.isJoined() && resolve()));
  s.socket.conn.terminate();
  await rejoined;
  await new Promise((resolve) => setTimeout(resolve, 700));
  assert.equal(s.events.count("new:chat"), 0);
  await reply(mine.channel.push("teacher:send", { message: "after" }));
  assert.equal((await theirs.events.next("student:receive")).message, "after");
  await reply(mine.channel.push("chat:terminate", {}));
  await theirs.events.next("chat:terminated");
  await reply(s.channel.leave());
  await reply(t.channel.leave());
});
