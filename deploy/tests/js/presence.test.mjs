// The official phoenix.js in a room: its Presence class on both gateways agrees with who is there.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Presence } from "phoenix";
import { connect, connectOld, eventually, reply, studentGateway, teacherGateway, unique } from "./users.mjs";
import { please, thanks } from "./control.mjs";

after(thanks);

/** A member that keeps phoenix.js' list, and counts sockets from every join and leave that it is told. */
async function member(gateway, room, userId, session_id, by = connect) {
  const socket = by(gateway);
  const channel = socket.channel(`room:${room}`, { userId, session_id });
  const presence = new Presence(channel);
  const told = new Set();
  let count = 0;
  presence.onJoin((key, _, { metas }) => {
    for (const { phx_ref } of metas) {
      assert.ok(!told.has(phx_ref), `${key} with ${phx_ref} came twice`);
      told.add(phx_ref);
    }
    count += metas.length;
  });
  presence.onLeave((_key, _current, { metas }) => {
    for (const { phx_ref } of metas) told.delete(phx_ref);
    count -= metas.length;
  });
  assert.equal((await reply(channel.join())).status, "ok");
  const list = () => presence.list((key, { metas }) => `${key} ${metas.length}`).sort();
  return { socket, channel, list, count: () => count, key: `${userId}:${session_id}` };
}

/** All of them see all of them, and have counted as many. */
async function agree(members) {
  const sockets = new Map();
  for (const { key } of members) sockets.set(key, (sockets.get(key) ?? 0) + 1);
  const expected = [...sockets].map(([key, n]) => `${key} ${n}`).sort();
  for (const one of members) {
    await eventually(`${one.key} sees ${expected}`, () => one.list().join() === expected.join());
    assert.equal(one.count(), members.length, `${one.key} has counted`);
  }
}

test("who comes and goes, on both gateways", async () => {
  const room = unique("r");
  const members = [
    await member(studentGateway, room, "a", "1"),
    await member(teacherGateway, room, "a", "1"),
    await member(teacherGateway, room, "a", "2"),
    await member(teacherGateway, room, "old", "1", connectOld),
    await member(studentGateway, room, "b", "1"),
  ];
  await agree(members);
  await reply(members.pop().channel.leave());
  await agree(members);
  members.pop().socket.disconnect();
  await agree(members);
  const gateways = [studentGateway, teacherGateway];
  const many = await Promise.all([...Array(20).keys()].map((n) => member(gateways[n % 2], room, `u${n}`, n % 3)));
  await agree([...members, ...many]);
  many.slice(0, 10).forEach(({ socket }) => socket.disconnect());
  await agree([...members, ...many.slice(10)]);
});

test("a gateway dies, and its members come back", async () => {
  const room = unique("r");
  const members = [
    await member(studentGateway, room, "a", "1"),
    await member(teacherGateway, room, "b", "1"),
    await member(teacherGateway, room, "c", "1"),
    await member(teacherGateway, room, "old", "1", connectOld),
  ];
  await agree(members);
  await please("kill students' gateway");
  await agree(members.slice(1));
  await please("start students' gateway");
  await agree(members);
});
