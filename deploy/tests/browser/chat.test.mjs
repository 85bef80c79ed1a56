// A student asks through one gateway, and a teacher answers through the other.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ask, becomes, entry, inputs, person, said, say, sees, studentGateway, teach, teacherGateway, toDesk,
} from "./browser.mjs";
import { look, picture, still } from "./looks.mjs";

test("somebody asks and somebody answers, each within three inputs", async () => {
  const ada = await person(studentGateway);
  await look(ada, "the form of a question");
  await ada.getByLabel("Your name").fill("Ada");
  await ada.getByLabel("Your question").fill("Why does the harmonic series diverge?");
  await ada.getByLabel("Your question").press("Enter");
  await sees(ada, "1st");
  assert.ok((await inputs(ada)) <= 3, `Ada needs ${await inputs(ada)} inputs`);
  await sees(ada, "of 1 waiting");
  await look(ada, "the queue");
  await picture(ada, "student-waiting");

  const tom = await person(teacherGateway);
  await toDesk(tom);
  await look(tom, "the form of a teacher");
  await tom.getByLabel("Your name").fill("Tom");
  await tom.getByLabel("Your name").press("Enter");
  await entry(tom, "Why does the harmonic series diverge?", "Messages with Ada").waitFor();
  assert.ok((await inputs(tom)) <= 3, `Tom needs ${await inputs(tom)} inputs`);

  // Both may write at once: they are where the keyboard is.
  await tom.keyboard.type("Compare it with an integral.");
  await tom.keyboard.press("Enter");
  await entry(ada, "Compare it with an integral.").filter({ hasText: "Tom" }).waitFor();
  await ada.keyboard.type("So it grows like a logarithm?");
  await ada.keyboard.press("Enter");
  await entry(tom, "So it grows like a logarithm?", "Messages with Ada").waitFor();
  const all = [
    "Why does the harmonic series diverge?", "Compare it with an integral.", "So it grows like a logarithm?",
  ];
  await becomes(all, () => said(ada));
  await becomes(all, () => said(tom, "Messages with Ada"));
  for (const own of [entry(ada, all[0]), entry(ada, all[2]), entry(tom, all[1], "Messages with Ada")]) {
    await own.filter({ hasText: "stored" }).waitFor();
  }
  assert.equal(await entry(ada, all[1]).filter({ hasText: "stored" }).count(), 0, "another's has no mark");
  await sees(ada, "Both of you are here");
  await look(ada, "a student's chat");
  await picture(ada, "student-chat", { dark: true });
  await still(ada, "Ada's page, from the form to the chat,");
  await look(tom, "a teacher's chat");

  await tom.getByRole("button", { name: "End chat" }).click();
  await sees(ada, "Tom ended the chat.");
  await sees(tom, "You ended the chat.");
  await look(ada, "a chat that is over");
  await look(tom, "a teacher's chat that is over");
  await ada.getByRole("button", { name: "Ask again" }).click();
  assert.equal(await ada.getByLabel("Your name").inputValue(), "Ada");
  await ada.getByLabel("Your question").fill("And of the squares?");
  await ada.getByRole("button", { name: "Ask" }).click();
  await entry(tom, "And of the squares?", "Messages with Ada").waitFor();
  await ada.getByRole("button", { name: "End chat" }).click();
  await sees(ada, "You ended the chat.");
  await sees(tom, "Ada ended the chat, or has gone.");
});

test("a reload in the queue keeps the place", async () => {
  const [ada, bob, cleo] = await Promise.all([0, 1, 2].map(() => person(studentGateway)));
  const place = async (page) => (await page.getByRole("status").filter({ hasText: "waiting" }).innerText()).split("\n");
  await ask(ada, "Ada");
  await sees(ada, "of 1 waiting");
  await ask(bob, "Bob");
  await sees(bob, "of 2 waiting");
  await ask(cleo, "Cleo");
  await sees(cleo, "of 3 waiting");
  await becomes(["2nd", "of 3 waiting"], async () => (await place(bob)).filter((line) => line).slice(0, 2));
  for (let times = 0; times < 2; times++) {
    await bob.reload();
    await becomes(["2nd", "of 3 waiting"], async () => (await place(bob)).filter((line) => line).slice(0, 2));
    await sees(bob, "A question of Bob");
  }
  await ada.getByRole("button", { name: "Leave the queue" }).click();
  await ada.getByRole("button", { name: "Ask" }).waitFor();
  await sees(bob, "1st");
  await sees(cleo, "2nd");
  // The card fills little of the page: moved by a line, it has a score of 0.0045.
  await still(bob, "the queue since a reload", 0.002);
  await still(cleo, "the queue", 0.002);
});

test("a reload in a chat brings every message back, and what was being written", async () => {
  const [ada, tom] = await Promise.all([studentGateway, teacherGateway].map((gateway) => person(gateway)));
  await ask(ada, "Ada", "Question");
  await teach(tom, "Tom");
  await entry(tom, "Question", "Messages with Ada").waitFor();
  const all = ["Question"];
  for (let n = 0; n < 5; n++) {
    await say(tom, "Ada", `answer ${n}`);
    await entry(ada, `answer ${n}`).waitFor();
    await say(ada, "Tom", `more ${n}`);
    await entry(tom, `more ${n}`, "Messages with Ada").waitFor();
    all.push(`answer ${n}`, `more ${n}`);
  }
  await ada.getByRole("textbox", { name: "Message to Tom" }).fill("half a sentence");
  await tom.getByRole("textbox", { name: "Message to Ada" }).fill("half an answer");
  await Promise.all([ada.reload(), tom.reload()]);
  await becomes(all, () => said(ada));
  await becomes(all, () => said(tom, "Messages with Ada"));
  await ada.getByRole("textbox", { name: "Message to Tom" }).press("Enter");
  await tom.getByRole("textbox", { name: "Message to Ada" }).press("Enter");
  await entry(ada, "half an answer").waitFor();
  await entry(tom, "half a sentence", "Messages with Ada").waitFor();
  const both = (texts) => [...texts.slice(0, all.length), ...texts.slice(all.length).toSorted()];
  await becomes([...all, "half a sentence", "half an answer"], async () => both(await said(ada)));
  await becomes([...all, "half a sentence", "half an answer"], async () => both(await said(tom, "Messages with Ada")));
});
