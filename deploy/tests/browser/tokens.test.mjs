// Gateways that verify tokens: a link brings one, and a wrong one is said to be wrong.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CUT_OFF, becomes, entry, person, say, sees, studentGateway, teacherGateway } from "./browser.mjs";
import { look } from "./looks.mjs";

/** What the gateways accept, and one that they do not any more. */
const tokens = JSON.parse(process.env.TOKENS ?? "{}");
const REFUSED = "The gateway is there, and does not let you in: the access token is wrong, or has expired.";

test("a student and a teacher come with links that bring their tokens", async () => {
  const ada = await person(studentGateway, { path: `#/student?token=${tokens.student}` });
  await becomes("#/student", () => ada.evaluate(() => location.hash));
  assert.equal(await ada.getByLabel("Your name").inputValue(), "ada");
  await look(ada, "the form of a question with a token");
  await ada.getByLabel("Your question").fill("May I?");
  await ada.getByLabel("Your question").press("Enter");
  await sees(ada, "1st");
  const tom = await person(teacherGateway, { path: `#/teacher?token=${tokens.teacher}` });
  await tom.getByLabel("Your name").press("Enter");
  await entry(tom, "May I?", "Messages with ada").waitFor();
  await say(tom, "ada", "You may.");
  await entry(ada, "You may.").waitFor();
  await ada.reload();
  await entry(ada, "You may.").waitFor();
});

test("a wrong token is said to be wrong, and another one can be given", async () => {
  const ada = await person(studentGateway, { tolerates: CUT_OFF });
  await ada.getByLabel("Your name").fill("Ada");
  await ada.getByLabel("Access token").fill(tokens.expired);
  await ada.getByLabel("Your question").fill("May I?");
  await ada.getByRole("button", { name: "Ask" }).click();
  await ada.getByRole("alert").filter({ hasText: REFUSED }).waitFor();
  await ada.getByRole("status").filter({ hasText: "Access refused" }).waitFor();
  await look(ada, "a token that was refused");
  await ada.getByRole("button", { name: "Use another token" }).click();
  await ada.getByLabel("Access token").fill(tokens.student);
  assert.equal(await ada.getByLabel("Your name").inputValue(), "Ada");
  assert.equal(await ada.getByLabel("Your question").inputValue(), "May I?");
  await ada.getByRole("button", { name: "Ask" }).click();
  await sees(ada, "1st");
  assert.equal(await ada.getByRole("alert").count(), 0);
});

test("a room wants a token of its own", async () => {
  const path = `#/room/physics?token=${tokens.student}`;
  const ada = await person(studentGateway, { path: `${path}&room_token=${tokens.room}` });
  await becomes("#/room/physics", () => ada.evaluate(() => location.hash));
  await ada.getByRole("button", { name: "Join" }).click();
  await ada.getByRole("region", { name: "Who is here" }).getByText("ada").waitFor();
  await say(ada, "the room", "Good morning");
  await entry(ada, "Good morning").filter({ hasText: "stored" }).waitFor();

  const bob = await person(teacherGateway, { path });
  await bob.getByRole("button", { name: "Join" }).click();
  await sees(bob, "You may not do this here.");
  await look(bob, "a room that was refused");
});
