// Rooms: who is there, what they say to all or to one, and what was said before somebody came or while they were away.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { please, thanks } from "../js/control.mjs";
import {
  CUT_OFF, WIDE, becomes, entry, enter, said, say, secret, sees, studentGateway, teacherGateway,
} from "./browser.mjs";
import { look, picture } from "./looks.mjs";

after(thanks);

const who = (page) => page.getByRole("region", { name: "Who is here" });
const people = (page) => who(page).getByRole("listitem").allInnerTexts();
const status = (page, text) => page.getByRole("status").filter({ hasText: text });
const GAP = "Messages are missing here: they are no longer kept.";

/** What another server says in a room, each behind the one before. */
async function announce(room, texts) {
  for (const text of texts) {
    const answer = await fetch(`${teacherGateway}/api/v1/push_room_event`, {
      method: "POST",
      headers: { secret },
      body: JSON.stringify({ room_id: room, event: "announcement", payload: { text } }),
    });
    assert.equal(answer.status, 200, await answer.text());
  }
}

const numbered = (from, until) => Array.from({ length: until - from }, (_, n) => `Message ${from + n}.`);

test("three people come, talk, and go", async () => {
  const room = "physics";
  const ada = await enter(studentGateway, room, "Ada");
  await becomes(["Ada you"], () => people(ada));
  await look(ada, "an empty room");
  const bob = await enter(teacherGateway, room, "Bob");
  const cleo = await enter(studentGateway, room, "Cleo");
  await becomes(["Ada you", "Bob", "Cleo"], () => people(ada));
  await becomes(["Ada", "Bob you", "Cleo"], () => people(bob));
  await becomes(["Ada", "Bob", "Cleo you"], () => people(cleo));

  await bob.getByRole("textbox", { name: "Message to the room" }).pressSequentially("Good morning!");
  for (const page of [ada, cleo]) await status(page, "Bob is writing…").waitFor();
  await look(ada, "a room where somebody writes");
  const { x, width } = await ada.getByRole("complementary", { name: "People and settings" }).boundingBox();
  assert.ok(x + width > WIDE.width - 40, "the page is used to its edge");
  await bob.getByRole("textbox", { name: "Message to the room" }).press("Enter");
  for (const page of [ada, cleo]) {
    await entry(page, "Good morning!").filter({ hasText: "Bob" }).waitFor();
    assert.equal(await status(page, "is writing").count(), 0, "what was being written has come");
  }
  await entry(bob, "Good morning!").filter({ hasText: "stored" }).waitFor();

  // Bob begins another one, and thinks better of it.
  const seen = Promise.all([ada, cleo].map((page) => status(page, "Bob is writing…").waitFor()));
  for (const text of ["And", ""]) await bob.getByRole("textbox", { name: "Message to the room" }).fill(text);
  await seen;

  // To Bob alone, while Cleo listens.
  await who(ada).getByRole("button", { name: "Bob" }).click();
  await sees(ada, "Only to Bob");
  await look(ada, "a message to one");
  await say(ada, "Bob alone", "Do you have my notes?");
  await entry(bob, "Do you have my notes?").filter({ hasText: "only to you" }).waitFor();
  await entry(ada, "Do you have my notes?").filter({ hasText: "only to Bob" }).waitFor();
  assert.equal(await status(cleo, /Ada.* writing/).count(), 0, "others are not told of it");
  await ada.getByRole("button", { name: "To all instead" }).click();
  await say(ada, "the room", "Good morning to all of you.");
  await entry(cleo, "Good morning to all of you.").waitFor();
  await becomes(["Good morning!", "Good morning to all of you."], () => said(cleo));
  await becomes(["Good morning!", "Do you have my notes?", "Good morning to all of you."], () => said(ada));
  await becomes(["Good morning!", "Do you have my notes?", "Good morning to all of you."], () => said(bob));

  for (const page of [ada, cleo]) await status(page, "Bob is writing…").waitFor({ state: "detached" });

  // What several people talk about.
  await say(ada, "the room", "Why do bicycles not fall over?");
  await say(cleo, "the room", "Moving bicycles steer themselves, it seems.");
  for (const page of [ada, bob, cleo]) {
    const keywords = page.getByRole("list", { name: "What several people talk about" }).getByRole("listitem");
    await becomes(["bicycles", "morning"], async () => (await keywords.allInnerTexts()).toSorted());
  }
  await look(cleo, "a room with keywords");
  await picture(ada, "room", { dark: true });

  // A message to one who has gone reaches nobody.
  await who(ada).getByRole("button", { name: "Cleo" }).click();
  await cleo.getByRole("button", { name: "Leave" }).click();
  await cleo.getByRole("button", { name: "Join" }).waitFor();
  for (const page of [ada, bob]) await becomes(2, async () => (await people(page)).length);
  await sees(ada, "who has left");
  await say(ada, "Cleo alone", "Are you there?");
  const refused = entry(ada, "Are you there?");
  await refused.getByText("Nobody got it: they have left.").waitFor();
  await look(ada, "a message that was refused");
  await refused.getByRole("button", { name: "Remove" }).click();
  await refused.waitFor({ state: "detached" });
  await bob.close();
  await becomes(["Ada you"], () => people(ada));
});

test("whoever comes later scrolls up to the hundredth message, and keeps the place", async () => {
  const room = "long";
  const bob = await enter(teacherGateway, room, "Bob");
  await becomes(["Bob you"], () => people(bob));
  await announce(room, numbered(0, 120));
  await becomes(numbered(0, 120), () => said(bob));
  const ada = await enter(studentGateway, room, "Ada");
  await becomes(numbered(70, 120), () => said(ada));
  assert.ok(await isShown(ada, "Message 119."), "it begins with the newest");

  await ada.getByRole("log").focus();
  await ada.keyboard.press("Home");
  await becomes(numbered(20, 120), () => said(ada));
  // Who reads is still there.
  const before = await rests(ada, "Message 70.");
  assert.ok(await isShown(ada, "Message 70."), "what is older has moved what was read");
  // What comes does not move it.
  await say(bob, "the room", "Something new");
  await entry(ada, "Something new").waitFor({ state: "attached" });
  assert.equal(await rests(ada, "Message 70."), before);
  assert.equal(await isShown(ada, "Something new"), false);
  await look(ada, "a room that was scrolled up");
  await ada.keyboard.press("Home");
  await becomes(true, () => isShown(ada, "Message 20."));
  assert.equal(await ada.getByRole("button", { name: "Older messages" }).count(), 0, "no more are kept");
  await ada.getByRole("button", { name: "To the newest" }).click();
  await becomes(true, () => isShown(ada, "Something new"));
  // At the end, what comes is shown.
  await say(bob, "the room", "And something newer");
  await entry(ada, "And something newer").waitFor();
  await becomes(true, () => isShown(ada, "And something newer"));
});

/** How far down an entry is, once it stays there: to where a key leads, browsers glide. */
async function rests(page, text) {
  return entry(page, text).evaluate(async (one) => {
    const at = () => one.getBoundingClientRect().y;
    for (let frames = 0, was = at(); frames < 20; frames++) {
      await new Promise(requestAnimationFrame);
      if (at() !== was) [frames, was] = [0, at()];
    }
    return at();
  });
}

/** Whether an entry is where the log can be seen. */
async function isShown(page, text) {
  const [log, at] = await Promise.all([page.getByRole("log"), entry(page, text)].map((one) => one.boundingBox()));
  return at.y + at.height / 2 > log.y && at.y + at.height / 2 < log.y + log.height;
}

test("who was away too long is told that something is missing", async () => {
  const room = "away";
  const bob = await enter(teacherGateway, room, "Bob");
  const ada = await enter(studentGateway, room, "Ada", { tolerates: CUT_OFF });
  await say(bob, "the room", "Before");
  await entry(ada, "Before").waitFor();
  await please("kill students' gateway");
  await ada.getByRole("alert").filter({ hasText: "what others say meanwhile comes then" }).waitFor();
  await say(ada, "the room", "Written meanwhile");
  await announce(room, numbered(0, 120));
  await please("start students' gateway");
  await entry(bob, "Written meanwhile").waitFor();
  await becomes(["Before", GAP, ...numbered(20, 120), "Written meanwhile"], () => said(ada));
  await becomes(["Before", ...numbered(0, 120), "Written meanwhile"], () => said(bob));
  await look(ada, "a room with a gap");
});

test("a quiet room: a member is told why it cannot write, a VIP can, and it opens again", async () => {
  const room = "quiet";
  const mia = await enter(teacherGateway, room, "Mia", { rank: "100" });
  const ada = await enter(studentGateway, room, "Ada", { tolerates: CUT_OFF });
  const vic = await enter(studentGateway, room, "Vic", { rank: "50", tolerates: CUT_OFF });
  await becomes(3, async () => (await people(mia)).length);
  await mia.getByLabel("Title").fill("The lecture");
  await mia.getByRole("button", { name: "Set title" }).click();
  for (const page of [ada, vic]) await page.getByRole("heading", { name: "The lecture" }).waitFor();

  await mia.getByRole("button", { name: "Make it quiet" }).click();
  for (const page of [mia, ada, vic]) await entry(page, "The room is quiet.").waitFor();
  const composer = ada.getByRole("textbox", { name: "Message to the room" });
  const why = "The room is quiet: only some may speak now.";
  await becomes(why, () => composer.getAttribute("placeholder"));
  assert.equal(await composer.isEditable(), false);
  assert.equal(await ada.getByRole("button", { name: "Send" }).isDisabled(), true);
  await look(ada, "a quiet room");
  await look(mia, "a quiet room for its moderator");
  await say(vic, "the room", "I may");
  await say(mia, "the room", "So may I");
  for (const text of ["I may", "So may I"]) await entry(ada, text).waitFor();

  // One who is let speak may, too; and others by themselves when it opens.
  await who(mia).getByRole("listitem").filter({ hasText: "Ada" }).getByRole("button", { name: "Let speak" }).click();
  await entry(ada, "Ada now has rank 50.").waitFor();
  await say(ada, "the room", "Now I may");
  await entry(vic, "Now I may").waitFor();
  const bob = await enter(teacherGateway, room, "Bob");
  await becomes(why, () => bob.getByRole("textbox", { name: "Message to the room" }).getAttribute("placeholder"));
  await mia.getByRole("button", { name: "Open the room" }).click();
  await say(bob, "the room", "Thank you");
  await entry(ada, "Thank you").waitFor();

  // For a time; the shortest that can be chosen is made a second.
  await mia.getByLabel("Quiet", { exact: true }).evaluate((select) => (select.options[1].value = "1"));
  await mia.getByLabel("Quiet", { exact: true }).selectOption("for a minute");
  await mia.getByRole("button", { name: "Make it quiet" }).click();
  await entry(bob, "The room is quiet.").waitFor();
  await becomes(2, () => entry(bob, "The room is open for everybody").count());
});

test("what a room refuses is shown with why, and can be sent again", async () => {
  const room = "refused";
  const mia = await enter(teacherGateway, room, "Mia", { rank: "100" });
  const ada = await enter(studentGateway, room, "Ada", { tolerates: CUT_OFF });
  await becomes(["Ada", "Mia you"], async () => (await people(mia)).map((text) => text.split("\n")[0]));
  await please("kill students' gateway");
  await ada.getByRole("alert").waitFor();
  await say(ada, "the room", "Too late");
  await mia.getByRole("button", { name: "Make it quiet" }).click();
  await entry(mia, "The room is quiet.").waitFor();
  await please("start students' gateway");
  const refused = entry(ada, "Too late");
  await refused.getByText("The room is quiet: only some may speak now.").waitFor();
  await look(ada, "a message that came into the quiet");
  await mia.getByRole("button", { name: "Open the room" }).click();
  await entry(ada, "The room is open for everybody").waitFor();
  await refused.getByRole("button", { name: "Send again" }).click();
  await entry(mia, "Too late").waitFor();
  await entry(ada, "Too late").filter({ hasText: "stored" }).waitFor();
  assert.equal(await entry(ada, "Too late").count(), 1);
});
