// The official phoenix.js while processes are killed under it: it reconnects and rejoins by itself, and all goes on.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  claim, connect, eventually, inbox, reply, sleep, studentGateway, teacher, teacherGateway, unique,
} from "./users.mjs";
import { please, thanks } from "./control.mjs";

after(thanks);

/** Pushes until it is answered with `ok`; a push that the connection took with it has no answer. */
async function insist(channel, event, payload) {
  for (;;) {
    const answer = await reply(channel.push(event, payload, 1_500)).catch(() => undefined);
    if (answer?.status === "ok") return answer.response;
    assert.ok(!answer || answer.response.reason === "unavailable", JSON.stringify(answer));
    await sleep(20);
  }
}

/** A student whose page says `student:ready` after each join, as pages do. */
async function student(id, elsewhere) {
  const socket = connect(studentGateway);
  if (elsewhere) {
    const gateways = [studentGateway, elsewhere].map((gateway) => `${gateway.replace("http", "ws")}/socket/websocket`);
    socket.onClose(() => (socket.endPoint = gateways.reverse()[0]));
  }
  const channel = socket.channel(`presence:student:${id}`, { userId: id, role: "student" });
  const events = inbox(channel);
  let ready = 0;
  channel.join().receive("ok", () => insist(channel, "student:ready", { userId: id }).then(() => ready++));
  await eventually("it is ready", () => ready > 0);
  return { socket, channel, events, id, joins: () => ready };
}

/** A side of a chat that remembers what it heard, and asks for the rest when it rejoins. */
async function side(user, role, chat) {
  const heard = [];
  const seqs = [];
  const ends = [];
  let entered = 0;
  const channel = user.socket.channel(`chats:${chat.id}`, () => {
    const last = heard.at(-1)?.seq ?? 0;
    return { userId: user.id, role, last_seq: last };
  });
  channel.on(`${role}:receive`, ({ message, seq }) => heard.push({ message, seq }));
  for (const event of ["chat:terminated", "chat:requeued", "gap"]) channel.on(event, () => ends.push(event));
  channel.join().receive("ok", () => insist(channel, `${role}:joined`, {}).then(() => entered++));
  await eventually("it has entered", () => entered > 0);
  const talk = async (messages) => {
    for (let n = seqs.length, all = n + messages; n < all; n++) {
      const { seq } = await insist(channel, `${role}:send`, { message: n, id: `${role}-${n}` });
      seqs.push({ message: n, seq });
      await sleep(10);
    }
  };
  return { channel, heard, seqs, ends, talk, joins: () => entered };
}

/** Both have heard all that the other one said: nothing lost, nothing twice, in order; and the chat has not ended. */
async function agree(one, other) {
  for (const [ear, mouth] of [[one, other], [other, one]]) {
    await eventually("all is heard", () => ear.heard.length >= mouth.seqs.length);
    await sleep(200);
    assert.deepEqual(ear.heard, mouth.seqs);
    assert.deepEqual(ear.ends, []);
  }
}

/** A chat and two in the queue, all students on one gateway; in the middle of it all, something happens. */
async function goesOn(happens, { rejoins, elsewhere }) {
  const t = await teacher(unique("t"), { capacity: 10 });
  const s = await student(unique("s"), elsewhere);
  const chat = await claim(t);
  const mine = await side(t, "teacher", chat);
  const theirs = await side(s, "student", chat);
  const waiting = [await student(unique("first"), elsewhere), await student(unique("second"), elsewhere)];
  await Promise.all([mine.talk(10), theirs.talk(10)]);

  await Promise.all([mine.talk(30), theirs.talk(30), happens()]);
  await agree(mine, theirs);
  const joins = rejoins ? 2 : 1;
  for (const user of [s, theirs, ...waiting]) await eventually(`${joins} joins`, () => user.joins() === joins);
  await Promise.all([mine.talk(5), theirs.talk(5)]);
  await agree(mine, theirs);
  for (const { id } of waiting) {
    const chat = await claim(t);
    assert.equal(chat.student_id, id);
    // A gateway that was killed is not judged dead yet, so that leaving alone would not end this chat.
    await insist((await side(t, "teacher", chat)).channel, "chat:terminate", {});
  }

  await insist(mine.channel, "chat:terminate", {});
  await eventually("the end", () => theirs.ends.length > 0 && mine.ends.length > 0);
  assert.deepEqual([mine.ends, theirs.ends], [["chat:terminated"], ["chat:terminated"]]);
  for (const user of [...waiting, s]) await reply(user.channel.leave());
  await reply(t.channel.leave());
}

test("the students' gateway dies and comes back", () =>
  goesOn(
    async () => {
      await please("kill students' gateway");
      await please("start students' gateway");
    },
    { rejoins: true }
  ));

test("the students' gateway dies, and the next attempt goes to the other one", async () => {
  await goesOn(() => please("kill students' gateway"), { rejoins: true, elsewhere: teacherGateway });
  await please("start students' gateway");
});

test("the leading matcher dies, and the standby takes over", () =>
  goesOn(() => please("kill leading matcher"), { rejoins: false }));

test("NATS is killed and comes back", () => goesOn(() => please("restart NATS"), { rejoins: false }));
