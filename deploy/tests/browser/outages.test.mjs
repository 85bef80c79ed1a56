// The students' gateway dies under them and comes back: the pages say so, and nothing that anybody wrote is lost.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { please, thanks } from "../js/control.mjs";
import {
  CUT_OFF, ask, becomes, counts, entry, person, said, say, sees, studentGateway, tabs, teach, teacherGateway,
} from "./browser.mjs";
import { look } from "./looks.mjs";

after(thanks);

const ofStudent = (texts) => texts.filter((text) => text.startsWith("student"));
const ofTeacher = (texts) => texts.filter((text) => text.startsWith("teacher"));
const numbered = (who, count) => Array.from({ length: count }, (_, n) => `${who} ${n}`);

/** Ada, who may be anybody's page, is in a chat with Tom. */
async function chat(ada) {
  const tom = await person(teacherGateway);
  await ask(ada, "Ada", "Question");
  await teach(tom, "Tom");
  await entry(tom, "Question", "Messages with Ada").waitFor();
  return tom;
}

/** Both have each message once, in one order, and each side's own in the order in which they were written. */
async function agree(ada, tom, count) {
  await becomes(1 + 2 * count, async () => (await said(ada)).length);
  await becomes(await said(ada), () => said(tom, "Messages with Ada"));
  const all = await said(ada);
  assert.deepEqual([ofStudent(all), ofTeacher(all)], [numbered("student", count), numbered("teacher", count)]);
}

test("a gateway dies in the middle of a chat, and both have every message once and in order", async () => {
  const ada = await person(studentGateway, { tolerates: CUT_OFF });
  const tom = await chat(ada);
  // Some are answered when it dies, some are on their way, and some are written while nobody is there.
  const writes = async (page, to, who, from, until) => {
    for (let n = from; n < until; n++) await say(page, to, `${who} ${n}`);
  };
  await entry(ada, "Question").waitFor();
  await Promise.all([
    writes(ada, "Tom", "student", 0, 5),
    writes(tom, "Ada", "teacher", 0, 5),
    entry(ada, "student 2").waitFor().then(() => please("kill students' gateway")),
  ]);
  await ada.getByRole("alert").filter({ hasText: "What you write is kept, and sent once it is back." }).waitFor();
  await ada.getByRole("status").filter({ hasText: "Connection lost" }).waitFor();
  await Promise.all([writes(ada, "Tom", "student", 5, 8), writes(tom, "Ada", "teacher", 5, 8)]);
  await entry(ada, "student 7").filter({ hasText: "Waiting to be sent" }).waitFor();
  await entry(tom, "teacher 7", "Messages with Ada").filter({ hasText: "stored" }).waitFor();
  assert.equal(await entry(ada, "teacher 7").count(), 0);
  await look(ada, "a chat whose connection is lost");
  await please("start students' gateway");
  await agree(ada, tom, 8);
  await ada.getByRole("alert").waitFor({ state: "detached" });
  await ada.getByRole("status").filter({ hasText: "Connected" }).waitFor();
  assert.equal(await entry(ada, "Waiting to be sent").count(), 0);
});

test("a message whose answer is lost is sent again, and is there once", async () => {
  const ada = await person(studentGateway, { tolerates: CUT_OFF });
  let deaf = false;
  let cut;
  await ada.routeWebSocket(/\/socket/, (socket) => {
    const gateway = socket.connectToServer();
    gateway.onMessage((message) => deaf || socket.send(message));
    cut = () => Promise.all([socket.close(), gateway.close()]);
  });
  await ada.reload();
  const tom = await chat(ada);
  await entry(ada, "Question").filter({ hasText: "stored" }).waitFor();
  deaf = true;
  await say(ada, "Tom", "student 0");
  await entry(tom, "student 0", "Messages with Ada").waitFor();
  assert.equal(await entry(ada, "student 0").filter({ hasText: "stored" }).count(), 0, "nothing is heard");
  deaf = false;
  await cut();
  await entry(ada, "student 0").filter({ hasText: "stored" }).waitFor();
  await say(tom, "Ada", "teacher 0");
  await agree(ada, tom, 1);
});

test("a gateway dies while another tab is in front", async () => {
  const window = await tabs();
  const ada = await window.person(studentGateway, { tolerates: CUT_OFF });
  const tom = await chat(ada);
  await say(ada, "Tom", "student 0");
  await entry(tom, "student 0", "Messages with Ada").waitFor();
  const other = await window.other();
  await other.bringToFront();
  await becomes("hidden", () => ada.evaluate(() => document.visibilityState));
  await please("kill students' gateway");
  await say(tom, "Ada", "teacher 0");
  await please("start students' gateway");
  // It comes back although nobody looks, and says in its title that there is something to be read.
  await becomes("(1) Switchboard", () => ada.title());
  assert.equal(await ada.evaluate(() => document.visibilityState), "hidden");
  await other.close();
  await ada.bringToFront();
  await agree(ada, tom, 1);
  await becomes("Switchboard", () => ada.title());
});

test("what was not sent before a reload is sent behind it", async () => {
  const ada = await person(studentGateway, { tolerates: CUT_OFF });
  const tom = await chat(ada);
  await say(tom, "Ada", "teacher 0");
  await entry(ada, "teacher 0").waitFor();
  await please("kill students' gateway");
  await ada.getByRole("alert").waitFor();
  await say(ada, "Tom", "student 0");
  await entry(ada, "student 0").filter({ hasText: "Waiting to be sent" }).waitFor();
  const address = ada.url();
  await assert.rejects(ada.reload(), /ERR_CONNECTION_REFUSED/);
  await ada.waitForURL("chrome-error://chromewebdata/");
  await please("start students' gateway");
  await ada.goto(address);
  await agree(ada, tom, 1);
});

test("a gateway dies under those who wait, and they keep their places", async () => {
  const [ada, bob] = await Promise.all([0, 1].map(() => person(studentGateway, { tolerates: CUT_OFF })));
  await ask(ada, "Ada");
  await sees(ada, "of 1 waiting");
  await ask(bob, "Bob");
  await sees(bob, "of 2 waiting");
  await please("kill students' gateway");
  for (const page of [ada, bob]) await page.getByRole("alert").filter({ hasText: "Your place is kept" }).waitFor();
  await look(ada, "the queue without a connection");
  const tom = await person(teacherGateway);
  await please("start students' gateway");
  for (const page of [ada, bob]) await page.getByRole("status").filter({ hasText: "Connected" }).waitFor();
  await sees(ada, "1st");
  await sees(bob, "2nd");
  await teach(tom, "Tom", { automatic: false });
  await tom.getByRole("button", { name: "Next student" }).click();
  await entry(tom, "A question of Ada", "Messages with Ada").waitFor();
  await sees(bob, "1st");
  await tom.getByRole("button", { name: "Next student" }).click();
  await entry(tom, "A question of Bob", "Messages with Bob").waitFor();
});

test("a chat that is ended while the gateway is away ends once it is back", async () => {
  const ada = await person(studentGateway, { tolerates: CUT_OFF });
  const tom = await chat(ada);
  await please("kill students' gateway");
  await ada.getByRole("alert").waitFor();
  await ada.getByRole("button", { name: "End chat" }).click();
  await ada.getByRole("button", { name: "Ending…" }).waitFor();
  await please("start students' gateway");
  await sees(tom, "Ada ended the chat, or has gone.");
  await sees(ada, "You ended the chat.");
  assert.deepEqual(await said(ada), ["Question"]);
});

test("a gateway is away for longer than places are kept: who waited waits again, and what was ended has ended", async () => {
  const [ada, bob] = await Promise.all([0, 1].map(() => person(studentGateway, { tolerates: CUT_OFF })));
  const tom = await chat(ada);
  await tom.getByLabel("Automatic").uncheck();
  await ask(bob, "Bob");
  await sees(bob, "1st");
  await please("kill students' gateway");
  await ada.getByRole("alert").waitFor();
  await ada.getByRole("button", { name: "End chat" }).click();
  await ada.getByRole("button", { name: "Ending…" }).waitFor();
  await tom.getByRole("button", { name: "Stop" }).click();
  await tom.getByRole("button", { name: "Start" }).waitFor();
  await becomes({ chats: 0, students: 0, teachers: 0 }, counts);
  await please("start students' gateway");
  await sees(ada, "You ended the chat.");
  await teach(tom, "Tom", { automatic: false });
  await tom.getByRole("button", { name: "Next student" }).click();
  await entry(tom, "A question of Bob", "Messages with Bob").waitFor();
});

test("a page that is offline says so", async () => {
  const ada = await person(studentGateway, { tolerates: CUT_OFF });
  await ask(ada, "Ada");
  await sees(ada, "1st");
  await ada.context().setOffline(true);
  await ada.getByRole("alert").filter({ hasText: "You are offline." }).waitFor();
  await ada.context().setOffline(false);
  await ada.getByRole("alert").waitFor({ state: "detached" });
});
