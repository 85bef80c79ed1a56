// The official phoenix.js in a room, beside a client of the first serializer, on two gateways: all that members do there.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { connect, connectOld, inbox, reply, eventually, studentGateway, teacherGateway, unique } from "./users.mjs";
import { please, thanks } from "./control.mjs";

after(thanks);

async function member(gateway, room, userId, rank, by = connect) {
  const channel = by(gateway).channel(`room:${room}`, { userId, session_id: "s", rank });
  const events = inbox(channel);
  const { status, response } = await reply(channel.join());
  assert.equal(status, "ok", JSON.stringify(response));
  await events.next("presence_state");
  const push = async (event, payload) => {
    const { status, response } = await reply(channel.push(event, payload));
    assert.equal(status, "ok", `${event}: ${JSON.stringify(response)}`);
    return response;
  };
  return { channel, events, push, is: { user_id: userId, session: `${userId}:s` } };
}

test("what members say, do and change", async () => {
  const room = unique("r");
  const bob = await member(studentGateway, room, "bob", 100);
  const ada = await member(teacherGateway, room, "ada", 10);
  const old = await member(studentGateway, room, "old", 10, connectOld);
  const all = [bob, ada, old];
  const others = (one) => all.filter((other) => other !== one);

  for (const one of all) {
    const { seq } = await one.push("new_msg", { broadcast: true, text: "about bicycles" });
    for (const other of others(one)) {
      const said = await other.events.next("new_msg");
      assert.deepEqual([said.text, said.seq, said.from], ["about bicycles", seq, one.is]);
    }
    await one.push("typing", { on: true });
    for (const other of others(one)) {
      assert.deepEqual(await other.events.next("typing"), { on: true, from: one.is });
    }
    for (const other of others(one)) {
      const { recipients } = await one.push("new_msg", { to: [{ session: other.is.session }], text: "psst" });
      assert.equal(recipients, 1);
      assert.deepEqual((await other.events.next("new_msg")).from, one.is);
    }
  }
  for (const one of all) {
    const { keywords } = await one.events.next("keywords");
    assert.ok(keywords.some(({ keyword }) => keyword === "bicycles"), JSON.stringify(keywords));
  }

  const { seq } = await ada.push("new_message", { body: "to all" });
  for (const one of all) {
    const said = await one.events.next("new_message");
    assert.deepEqual([said.body, said.user, said.seq], ["to all", "ada", seq]);
  }
  const changed = await bob.push("room:update", { title: "Tea", quiet: true });
  const state = { title: "Tea", quiet: true, quiet_rank: 50, seq: changed.seq };
  for (const one of all) {
    assert.deepEqual(await one.events.next("room:state"), state);
  }
  for (const one of [ada, old]) {
    const { response } = await reply(one.channel.push("new_msg", { broadcast: true }));
    assert.equal(response.reason, "quiet");
  }
  await bob.push("room:update", { quiet: false });
  for (const one of all) await one.events.next("room:state");

  // Bytes, to whoever speaks the second serializer: the sender too.
  const bytes = Uint8Array.from({ length: 256 }, (_, n) => n);
  for (const one of [bob, ada]) {
    await one.push("ink", bytes.buffer.slice(0));
    for (const other of [bob, ada]) {
      const data = await other.events.next("ink");
      assert.ok(data instanceof ArrayBuffer);
      assert.deepEqual(new Uint8Array(data), bytes);
    }
  }
  const { messages } = await ada.push("history", {});
  assert.deepEqual(messages.map(({ payload }) => payload.text ?? payload.body), [...Array(3).fill("about bicycles"), "to all"]);
  for (const one of all) {
    assert.deepEqual(["new_msg", "typing", "new_message", "ink", "room:state"].map(one.events.count), [0, 0, 0, 0, 0]);
  }
});

test("a gateway dies, and phoenix.js resumes with last_seq", async () => {
  const room = unique("r");
  const heard = [];
  const gaps = [];
  let joins = 0;
  let last = 0;
  const channel = connect(studentGateway).channel(`room:${room}`, () => ({
    userId: "ada",
    session_id: "s",
    ...(joins > 0 && { last_seq: heard.at(-1)?.seq ?? last }),
  }));
  channel.on("new_msg", ({ n, seq }) => heard.push({ n, seq }));
  channel.on("gap", (gap) => gaps.push(gap));
  const recovered = [];
  channel.join().receive("ok", (response) => {
    last = response.last_seq;
    recovered.push(response.recovered);
    joins++;
  });
  await eventually("it has joined", () => joins === 1);

  const bob = await member(teacherGateway, room, "bob", 100);
  const said = [];
  const say = async (messages) => {
    for (const end = said.length + messages; said.length < end; ) {
      const n = said.length;
      said.push({ n, seq: (await bob.push("new_msg", { broadcast: true, n })).seq });
    }
  };
  await say(10);
  await eventually("the first are heard", () => heard.length === 10);
  await please("kill students' gateway");
  await say(60);
  await please("start students' gateway");
  await eventually("it has joined again", () => joins === 2);
  await say(10);
  await eventually("all is heard", () => heard.length >= said.length);
  assert.deepEqual(heard, said);
  assert.deepEqual([gaps, recovered], [[], [true, true]]);
});
