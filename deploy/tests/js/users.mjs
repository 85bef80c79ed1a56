// Teachers and students on the official phoenix.js; students and teachers on different gateways.

import assert from "node:assert/strict";
import { after } from "node:test";
import { Socket } from "phoenix";
import WebSocket from "ws";

export const [studentGateway, teacherGateway] = (
  process.env.GATEWAYS ?? "http://127.0.0.1:4000 http://127.0.0.1:4001"
).split(" ");
const sockets = [];
after(() => sockets.forEach((socket) => socket.disconnect()));

export const unique = (name) => `${name}-${process.pid}-${Math.random().toString(36).slice(2, 8)}`;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until it holds. */
export async function eventually(what, holds) {
  for (const end = Date.now() + 30_000; !holds(); await sleep(10)) assert.ok(Date.now() < end, `never: ${what}`);
}

export function connect(gateway, options = {}) {
  const socket = new Socket(`${gateway.replace("http", "ws")}/socket`, { transport: WebSocket, ...options });
  socket.connect();
  sockets.push(socket);
  return socket;
}

/** As [`connect`], with the first serializer, which phoenix.js speaks no more. */
export const connectOld = (gateway) =>
  connect(gateway, {
    vsn: "1.0.0",
    encode: ({ topic, event, payload, ref }, callback) => callback(JSON.stringify({ topic, event, payload, ref })),
    decode: (text, callback) => callback(JSON.parse(text)),
  });

/** The reply to a join or a push. */
export const reply = (push) =>
  new Promise((resolve, reject) =>
    push
      .receive("ok", (response) => resolve({ status: "ok", response }))
      .receive("error", (response) => resolve({ status: "error", response }))
      .receive("timeout", () => reject(new Error("no reply")))
  );

/** The next event of this name; events that came before it was asked for wait. */
export function inbox(channel) {
  const waiting = new Map();
  const wanted = new Map();
  channel.onMessage = (event, payload) => {
    if (wanted.get(event)?.length) wanted.get(event).shift()(payload);
    else waiting.set(event, [...(waiting.get(event) ?? []), payload]);
    return payload;
  };
  const count = (event) => waiting.get(event)?.length ?? 0;
  const next = (event) =>
    new Promise((resolve, reject) => {
      if (count(event)) return resolve(waiting.get(event).shift());
      const timer = setTimeout(() => reject(new Error(`no ${event}`)), 30_000);
      wanted.set(event, [...(wanted.get(event) ?? []), (payload) => (clearTimeout(timer), resolve(payload))]);
    });
  return { next, count };
}

export async function teacher(id, params = {}) {
  const socket = connect(teacherGateway);
  const channel = socket.channel("presence:teachers", { userId: id, role: "teacher", ...params });
  const events = inbox(channel);
  const { status, response } = await reply(channel.join());
  assert.equal(status, "ok");
  return { socket, channel, events, counts: response, id };
}

export async function student(id) {
  const socket = connect(studentGateway);
  const channel = socket.channel(`presence:student:${id}`, { userId: id, role: "student" });
  const events = inbox(channel);
  assert.equal((await reply(channel.join())).status, "ok");
  assert.equal((await reply(channel.push("student:ready", { userId: id }))).status, "ok");
  return { socket, channel, events, id };
}

export async function claim(t) {
  const timer = setInterval(() => t.channel.push("claim:student", { teacherId: t.id }), 10);
  try {
    return await t.events.next(`new:chat:${t.id}`);
  } finally {
    clearInterval(timer);
  }
}

export async function enter(user, role, chat) {
  const channel = user.socket.channel(`chats:${chat.id}`, { userId: user.id, role });
  const events = inbox(channel);
  const { status, response } = await reply(channel.join());
  assert.equal(status, "ok", JSON.stringify(response));
  assert.equal((await reply(channel.push(`${role}:joined`, {}))).status, "ok");
  return { channel, events, joined: response };
}
