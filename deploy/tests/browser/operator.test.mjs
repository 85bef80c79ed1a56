// An operator looks at the whole system, fed by one feed.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { please, thanks } from "../js/control.mjs";
import {
  CUT_OFF, ask, becomes, entry, person, say, secret, sees, studentGateway, teach, teacherGateway,
} from "./browser.mjs";
import { look, picture } from "./looks.mjs";

after(thanks);

const part = (page, name) => page.getByRole("region", { name });
/** The rows of a table, each as the texts of its cells, without times, which go on. */
const rows = (page, name) =>
  part(page, name).locator("tbody tr").evaluateAll((rows) =>
    rows.map((row) => [...row.cells].map((cell) => cell.textContent).filter((text) => !/ (second|minute)s?$/.test(text))));
/** The names in a column, without what makes an id of a name. */
const names = async (page, table, column) =>
  (await rows(page, table)).map((row) => row[column].replace(/-[0-9a-z]{4}$/, ""));

async function signIn(page, word) {
  await page.getByLabel("API secret").fill(word);
  await page.getByRole("button", { name: "Look" }).click();
}

test("an operator sees the queue in order, chats, gateways and who leads, and asks for nothing twice", async () => {
  const operator = await person(teacherGateway, { path: "#/operator" });
  await look(operator, "the operator's form");
  await signIn(operator, `${secret}!`);
  await sees(operator, "This is not the secret.");
  await signIn(operator, secret);
  await sees(operator, "Nobody waits.");
  await sees(operator, "Nobody talks.");
  await becomes(2, async () => (await rows(operator, "Gateways")).length);
  const [leader] = await rows(operator, "Matcher and history");
  assert.match(leader.join(" "), /^Leader \S+$/);

  const tom = await person(teacherGateway);
  await teach(tom, "Tom", { automatic: false });
  const students = [];
  for (const name of ["Ada", "Bob", "Cleo"]) {
    students.push(await person(studentGateway));
    await ask(students.at(-1), name);
    await sees(students.at(-1), "waiting");
  }
  await becomes(["Ada", "Bob", "Cleo"], () => names(operator, "Queue: 3", 1));
  await tom.getByRole("button", { name: "Next student" }).click();
  await entry(tom, "A question of Ada", "Messages with Ada").waitFor();
  await becomes(["Bob", "Cleo"], () => names(operator, "Queue: 2", 1));
  await becomes(["Tom"], () => names(operator, "Chats: 1", 0));
  await becomes(["Ada"], () => names(operator, "Chats: 1", 1));
  await becomes(["lobby", "operator"], async () => (await rows(operator, "Feeds")).map(([name]) => name));

  // What is said is seen as a rate, which goes back to nothing.
  const chart = (name) => operator.getByRole("figure", { name });
  const said = async () => Number(await chart("Messages per second").locator("strong").innerText());
  await becomes("5", () => chart("Sockets").locator("strong").innerText());
  await say(tom, "Ada", "One moment");
  await becomes(true, async () => (await said()) > 0);
  await becomes(0, said);
  for (const name of ["Sockets", "Messages per second", "Joins per second"]) {
    const line = chart(name).locator("polyline");
    const heights = await line.evaluate(({ points }) => new Set([...points].map(({ y }) => y)).size);
    assert.ok(heights > 1, `${name} has changed, and its line is flat`);
  }
  await look(operator, "the operator's board");
  await picture(operator, "operator", { dark: true });

  // News come by themselves: nothing is asked for.
  const asked = [];
  operator.on("request", (request) => asked.push(request.url()));
  await students[2].getByRole("button", { name: "Leave the queue" }).click();
  await becomes(["Bob"], () => names(operator, "Queue: 1", 1));
  assert.deepEqual(asked, []);

  await operator.reload();
  await becomes(["Bob"], () => names(operator, "Queue: 1", 1));
  await operator.setViewportSize({ width: 390, height: 780 });
  await look(operator, "the operator's board on a phone");
  await operator.getByRole("button", { name: "Close" }).click();
  await operator.getByLabel("API secret").waitFor();
});

test("a gateway that drains is seen, and one that dies, and the one that comes instead", async () => {
  const operator = await person(teacherGateway, { path: "#/operator", tolerates: CUT_OFF });
  await signIn(operator, secret);
  const states = async () => (await rows(operator, "Gateways")).map((row) => row[2]).toSorted();
  await becomes(["open", "open"], states);
  // It takes its time for each of them.
  for (const name of ["Ada", "Bob", "Cleo"]) {
    const student = await person(studentGateway, { tolerates: CUT_OFF });
    await ask(student, name);
    await sees(student, "waiting");
  }
  await please("drain students' gateway");
  await becomes(["draining", "open"], states);
  await please("kill students' gateway");
  await becomes(["does not answer", "open"], states);
  await please("start students' gateway");
  await becomes(["does not answer", "open", "open"], states);
});
