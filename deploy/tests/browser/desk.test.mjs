// A teacher's desk: up to five chats at once, who comes to it and when, and where they go when it is left.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ask, becomes, clicks, entry, person, said, say, sees, studentGateway, teach, teacherGateway,
} from "./browser.mjs";
import { look, picture } from "./looks.mjs";

const QUESTIONS = {
  Ada: "Why does the harmonic series diverge?",
  Bob: "What is a limit, really?",
  Cleo: "How do I integrate by parts?",
  Dora: "Is zero a natural number?",
  Emil: "Why is e to the iπ minus one?",
  Fay: "What does a derivative tell me?",
};
const SIX = Object.keys(QUESTIONS);
const NAMES = SIX.slice(0, 5);

const pane = (page, name) => page.getByRole("region", { name: `Chat with ${name}` });
const composer = (page, name) => page.getByRole("textbox", { name: `Message to ${name}` });
const messages = (name) => `Messages with ${name}`;
/** The question of a student, at the desk. */
const asks = (page, name) => entry(page, QUESTIONS[name], messages(name));
const focused = (locator) => locator.evaluate((element) => element === document.activeElement);
const fact = (page, name) => page.getByRole("region", { name: "The queue" }).getByRole("definition").nth(name);
const waiting = (page) => fact(page, 0).innerText();

/** Tab, until it is there. */
async function tabTo(page, target, key = "Tab") {
  for (let steps = 0; !(await focused(target)); steps++) {
    assert.ok(steps < 40, "no way there by keyboard");
    await page.keyboard.press(key);
  }
}

/** Ask one after the other, and so wait in this order. */
async function queue(names) {
  const pages = {};
  for (const [at, name] of names.entries()) {
    pages[name] = await person(studentGateway);
    await ask(pages[name], name, QUESTIONS[name]);
    await sees(pages[name], `of ${at + 1} waiting`);
  }
  return pages;
}

test("five chats at once, by keyboard alone", async () => {
  const students = await queue(SIX);
  const tom = await person(teacherGateway, { viewport: { width: 1600, height: 800 } });
  await tabTo(tom, tom.getByRole("link", { name: "Answer" }), "Shift+Tab");
  await tom.keyboard.press("Enter");
  await becomes(true, () => focused(tom.getByLabel("Your name")));
  await tom.keyboard.type("Tom");
  await tom.keyboard.press("Enter");
  for (const name of NAMES) await asks(tom, name).waitFor();
  await sees(students.Fay, "of 1 waiting");
  await becomes("1", () => waiting(tom));
  await becomes("5 of 5", () => fact(tom, 2).innerText());
  assert.equal(await tom.getByRole("button", { name: "Next student" }).isDisabled(), true);

  // Whoever writes is marked, unless its chat is the one that is being looked at.
  await tom.keyboard.press("Alt+2");
  await becomes(true, () => focused(composer(tom, "Bob")));
  for (const [name, text] of [
    ["Cleo", "I have x times e to the x."], ["Bob", "In words, if that can be."], ["Emil", "Or is that wrong?"],
    ["Cleo", "Which part is which?"],
  ]) {
    await say(students[name], "Tom", text);
    await entry(tom, text, messages(name)).waitFor();
  }
  const panes = tom.getByRole("region", { name: "Chat with" });
  const stand = async (names) => {
    await becomes(names, () => panes.evaluateAll((all) => all.map((one) => one.getAttribute("aria-label").slice(10))));
  };
  const marked = async () => {
    await stand(NAMES);
    for (const [name, count] of [["Cleo", 3], ["Dora", 1], ["Emil", 2]]) {
      await pane(tom, name).getByText(`${count} unread`).waitFor();
    }
    await becomes("(6) Switchboard", () => tom.title());
    assert.equal(await pane(tom, "Bob").getByText("unread").count(), 0);
  };
  await marked();
  assert.equal(await clicks(tom), 0, "a pointer was used");
  await tom.reload();
  await marked();
  await becomes(true, () => focused(composer(tom, "Bob")));
  await look(tom, "five chats");
  await picture(tom, "teacher-five-chats", { dark: true });

  for (const [at, name] of NAMES.entries()) {
    await tom.keyboard.press(`Alt+${at + 1}`);
    await becomes(true, () => focused(composer(tom, name)));
    assert.equal(await pane(tom, name).getByText("unread").count(), 0);
    await tom.keyboard.type(`An answer for ${name}`);
    await tom.keyboard.press("Enter");
    await entry(students[name], `An answer for ${name}`).waitFor();
  }
  await becomes("Switchboard", () => tom.title());
  for (const name of NAMES) {
    const answers = (await said(students[name])).filter((text) => text.startsWith("An answer"));
    assert.deepEqual(answers, [`An answer for ${name}`]);
  }

  // One that is over makes room for the sixth.
  await tom.keyboard.press("Alt+3");
  await tom.keyboard.press("Alt+e");
  await sees(students.Cleo, "Tom ended the chat.");
  await asks(tom, "Fay").waitFor();
  await sees(students.Fay, "Both of you are here");
  await becomes(0, () => pane(tom, "Cleo").count());
  await becomes("0", () => waiting(tom));

  // And one is closed when nobody waits.
  await tom.keyboard.press("Alt+2");
  await tom.keyboard.press("Alt+e");
  await pane(tom, "Bob").getByText("You ended the chat.").waitFor();
  await becomes("4 of 5", () => fact(tom, 2).innerText());
  await tom.keyboard.press("Alt+e");
  await becomes(0, () => pane(tom, "Bob").count());

  await tabTo(tom, tom.getByLabel("Automatic"), "Shift+Tab");
  await tom.keyboard.press("Space");
  await students.Bob.getByRole("button", { name: "Ask again" }).click();
  await ask(students.Bob, "Bob", "Bob asks again");
  await sees(students.Bob, "1st");
  await becomes("1", () => waiting(tom));
  await tom.keyboard.press("Alt+n");
  await entry(tom, "Bob asks again", messages("Bob")).waitFor();

  await stand(["Ada", "Dora", "Emil", "Fay", "Bob"]);
  await tom.reload();
  await stand(["Ada", "Dora", "Emil", "Fay", "Bob"]);

  await tabTo(tom, tom.getByRole("button", { name: "Stop" }));
  await tom.keyboard.press("Enter");
  await tom.getByRole("button", { name: "Start" }).waitFor();
  assert.equal(await clicks(tom), 0, "a pointer was used");
});

test("nobody comes to who is away, and who is not automatic asks for the next", async () => {
  const tom = await person(teacherGateway);
  await teach(tom, "Tom");
  await sees(tom, "The next student who asks comes to you by itself.");
  await look(tom, "a desk without chats");
  await tom.getByLabel("Away").check();
  await sees(tom, "You are away");
  await look(tom, "a desk whose teacher is away");
  const { Ada: ada, Bob: bob } = await queue(["Ada", "Bob"]);
  await becomes("2", () => waiting(tom));
  await tom.reload();
  await sees(tom, "You are away");
  assert.equal(await tom.getByLabel("Away").isChecked(), true);
  await becomes("2", () => waiting(tom));
  await tom.getByLabel("Automatic").waitFor();
  await sees(ada, "1st");

  await tom.getByLabel("Away").uncheck();
  for (const name of ["Ada", "Bob"]) await asks(tom, name).waitFor();
  await sees(bob, "Both of you are here");

  // Whoever looks elsewhere has not read it.
  await tom.keyboard.press("Alt+2");
  await becomes("Switchboard", () => tom.title());
  await tom.getByRole("link", { name: "Rooms" }).click();
  await say(bob, "Tom", "Are you there?");
  await tom.getByRole("link", { name: "Answer" }).getByText("1 unread").waitFor();
  await becomes("(1) Switchboard", () => tom.title());
  await tom.getByRole("link", { name: "Answer" }).click();
  await becomes("Switchboard", () => tom.title());

  await tom.getByLabel("Automatic").uncheck();
  const next = tom.getByRole("button", { name: "Next student" });
  assert.equal(await next.isDisabled(), true, "nobody waits");
  const { Cleo: cleo, Dora: dora } = await queue(["Cleo", "Dora"]);
  await becomes("2", () => waiting(tom));
  await next.click();
  await asks(tom, "Cleo").waitFor();
  await sees(cleo, "Both of you are here");
  await sees(dora, "1st");
  assert.equal(await pane(tom, "Dora").count(), 0);
});

test("a teacher who stops gives the students back to the front of the queue", async () => {
  const tom = await person(teacherGateway);
  await teach(tom, "Tom");
  const [ada, bob] = await Promise.all([0, 1].map(() => person(studentGateway)));
  await ask(ada, "Ada", QUESTIONS.Ada);
  await asks(tom, "Ada").waitFor();
  await ask(bob, "Bob", QUESTIONS.Bob);
  await asks(tom, "Bob").waitFor();
  await say(tom, "Ada", "One moment");
  await entry(ada, "One moment").waitFor();
  await tom.getByLabel("Automatic").uncheck();
  const { Cleo: cleo } = await queue(["Cleo"]);
  await tom.getByRole("button", { name: "Stop" }).click();
  await sees(ada, "1st");
  await sees(bob, "2nd");
  await sees(cleo, "3rd");
  await sees(ada, "of 3 waiting");
  await sees(bob, "Tom is no longer there. You are at the front of the queue again.");
  await look(ada, "the queue again");
  await tom.getByRole("button", { name: "Start" }).waitFor();

  const grace = await person(teacherGateway);
  await teach(grace, "Grace", { automatic: false });
  await grace.getByRole("button", { name: "Next student" }).click();
  await asks(grace, "Ada").waitFor();
  await becomes([QUESTIONS.Ada], () => said(ada));
});
