// The page on a phone, by touch: a chat, a desk of five, a room.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ask, becomes, entry, enter, person, said, say, sees, studentGateway, teacherGateway, toDesk,
} from "./browser.mjs";
import { look, picture, still } from "./looks.mjs";

const phone = { phone: true };
const NAMES = ["Ada", "Bob", "Cleo", "Dora", "Emil"];
const messages = (name) => `Messages with ${name}`;
const button = (page, name) => page.getByRole("button", { name });

/** What is to be touched is where a finger can be, and not behind something else. */
async function write(page, to, text) {
  const composer = page.getByRole("textbox", { name: `Message to ${to}` });
  await composer.tap();
  await composer.fill(text);
  await button(page, "Send").filter({ visible: true }).tap();
}

test("a chat on two phones", async () => {
  const [ada, tom] = await Promise.all([studentGateway, teacherGateway].map((gateway) => person(gateway, phone)));
  await look(ada, "the form of a question on a phone");
  await ada.getByLabel("Your name").fill("Ada");
  await ada.getByLabel("Your question").fill("Why does the harmonic series diverge, if its terms go to zero?");
  await button(ada, "Ask").tap();
  await sees(ada, "1st");
  await look(ada, "the queue on a phone");
  await toDesk(tom);
  await tom.getByLabel("Your name").fill("Tom");
  await look(tom, "the form of a teacher on a phone");
  await button(tom, "Start").tap();
  await entry(tom, "Why does the harmonic series diverge", messages("Ada")).waitFor();
  await write(tom, "Ada", "Compare it with an integral.");
  await entry(ada, "Compare it with an integral.").waitFor();
  await entry(tom, "Compare it with an integral.", messages("Ada")).filter({ hasText: "stored" }).waitFor();
  await picture(ada, "phone-chat", { dark: true });
  await still(ada, "Ada's phone, from the form to the chat,");
  await still(tom, "Tom's phone");
  // Longer than the page is wide, with nothing where a line may end.
  await write(ada, "Tom", `https://example.org/${"harmonic".repeat(20)}`);
  await entry(tom, "harmonicharmonic", messages("Ada")).waitFor();
  await look(ada, "a chat on a phone");
  await look(tom, "a teacher's chat on a phone");
  await button(tom, "End chat").tap();
  await sees(ada, "Tom ended the chat.");
  await look(ada, "a chat that is over on a phone");
});

test("five chats on a phone, one of them shown", async () => {
  const students = {};
  for (const [at, name] of NAMES.entries()) {
    students[name] = await person(studentGateway);
    await ask(students[name], name);
    await sees(students[name], `of ${at + 1} waiting`);
  }
  const tom = await person(teacherGateway, phone);
  await toDesk(tom);
  await tom.getByLabel("Your name").fill("Tom");
  await button(tom, "Start").tap();
  const tabs = tom.getByRole("navigation", { name: "Chats" }).getByRole("button");
  await becomes(5, () => tabs.count());
  await entry(tom, "A question of Ada", messages("Ada")).waitFor();
  await tabs.filter({ hasText: "Cleo" }).getByText("1 unread").waitFor();
  await look(tom, "a desk of five on a phone");
  await picture(tom, "phone-five-chats");
  for (const name of NAMES) {
    await tabs.filter({ hasText: name }).tap();
    await entry(tom, `A question of ${name}`, messages(name)).waitFor();
    for (const other of NAMES.filter((other) => other !== name)) {
      assert.equal(await tom.getByRole("region", { name: `Chat with ${other}` }).isVisible(), false, "one is shown");
    }
    await write(tom, name, `An answer for ${name}`);
    await entry(students[name], `An answer for ${name}`).waitFor();
  }
  await becomes(0, () => tabs.getByText("unread").count());
  await say(students.Bob, "Tom", "And then?");
  await tabs.filter({ hasText: "Bob" }).getByText("1 unread").waitFor();
});

test("a room on a phone, with its people behind a button", async () => {
  const room = "pocket";
  const ada = await enter(studentGateway, room, "Ada", { ...phone, rank: "100" });
  const bob = await enter(teacherGateway, room, "Bob");
  await say(bob, "the room", "Good morning");
  await entry(ada, "Good morning").waitFor();
  await look(ada, "a room on a phone");
  const side = ada.getByRole("complementary", { name: "People and settings" });
  assert.equal(await side.isVisible(), false);
  await button(ada, "2 people").tap();
  await side.waitFor();
  await look(ada, "the people of a room on a phone");
  await picture(ada, "phone-room-people");
  await side.getByRole("button", { name: "Bob" }).tap();
  await write(ada, "Bob alone", "Between us");
  await entry(bob, "Between us").filter({ hasText: "only to you" }).waitFor();
  await look(ada, "a message to one on a phone");
  await becomes(["Good morning", "Between us"], () => said(ada));
  await ada.getByRole("link", { name: "Operate" }).tap();
  await ada.getByLabel("API secret").waitFor();
  await look(ada, "the form of an operator on a phone");
  await ada.getByRole("link", { name: "Rooms" }).tap();
  await becomes(["Good morning", "Between us"], () => said(ada));
});
