// A browser and people in it, each with a page of their own. Whatever their pages report as an error fails the test.

import assert from "node:assert/strict";
import { accessSync, constants } from "node:fs";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { after, afterEach } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { chromium } from "playwright-core";

export const [studentGateway, teacherGateway] = (
  process.env.GATEWAYS ?? "http://127.0.0.1:4000 http://127.0.0.1:4001"
).split(" ");
/** The secret of the gateways' HTTP API. */
export const secret = process.env.API_SECRET ?? "local-secret";
const SOON_MS = 30_000;
export const WIDE = { width: 1280, height: 800 };
const PHONE = { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true };
/** What Chromium itself says of a gateway that is not there, or refuses. */
export const CUT_OFF = /WebSocket connection to .* failed|net::ERR_(CONNECTION_|EMPTY_RESPONSE)/;

const port = await new Promise((found) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => found(port));
  });
});
const browser = await chromium.launch({
  executablePath: executable(),
  args: [`--remote-debugging-port=${port}`, ...(process.getuid() === 0 ? ["--no-sandbox"] : [])],
  // Whoever is not seen is slowed down, as everywhere.
  ignoreDefaultArgs: ["background-timer-throttling", "backgrounding-occluded-windows", "renderer-backgrounding"].map(
    (what) => `--disable-${what}`,
  ),
});
after(() => browser.close());

function executable() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const found = (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, "chromium")).find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  return found ?? "chromium";
}

/** Waits until it is this; else says what it was instead. */
export async function becomes(expected, get) {
  for (const end = Date.now() + SOON_MS; ; await sleep(20)) {
    const value = await get();
    if (Date.now() > end) assert.deepEqual(value, expected);
    if (isDeepStrictEqual(value, expected)) return;
  }
}

// ---- people ----

const people = new Set();
const windows = new Set();

/** Runs in the page: what people do there, and what moves under them. */
function watch() {
  const seen = { clicks: 0, enters: 0, fields: new Set(), shift: 0 };
  window.seen = seen;
  addEventListener("pointerdown", () => (seen.clicks += 1), true);
  addEventListener("keydown", ({ key }) => (seen.enters += key === "Enter"), true);
  addEventListener("input", ({ target }) => seen.fields.add(target), true);
  new PerformanceObserver((list) => {
    for (const { value } of list.getEntries()) seen.shift += value;
  }).observe({ type: "layout-shift", buffered: true });
}

/** Somebody who looks at a gateway's page. What is in `tolerates` may be reported as an error. */
export async function person(gateway, { path = "", phone = false, viewport = WIDE, tolerates } = {}) {
  const context = await browser.newContext(phone ? PHONE : { viewport });
  return enters(await context.newPage(), gateway, path, tolerates);
}

async function enters(page, gateway, path, tolerates = /^$/) {
  const one = { page, faults: [] };
  people.add(one);
  page.setDefaultTimeout(SOON_MS);
  const fault = (text) => tolerates.test(text) || one.faults.push(text);
  page.on("console", (message) => message.type() === "error" && fault(`${message.text()} ${message.location().url}`));
  page.on("pageerror", (error) => fault(error.stack ?? error.message));
  page.on("dialog", (dialog) => dialog.accept());
  await page.addInitScript(watch);
  await page.goto(`${gateway}/${path}`);
  return page;
}

/** Tabs of one window, of which only the one in front is visible: all other pages here believe that they are. */
export async function tabs() {
  const window = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
  windows.add(window);
  const [context] = window.contexts();
  return {
    person: async (gateway, { tolerates } = {}) => enters(await context.newPage(), gateway, "", tolerates),
    other: () => context.newPage(),
  };
}

/** What leads out of wherever somebody is. */
const EXIT = { name: /^(Stop|Leave the queue|Leave|End chat|Ending…)$/ };

async function leave(page) {
  const exit = page.getByRole("button", EXIT).first();
  const until = Date.now() + SOON_MS;
  while (Date.now() < until && (await exit.isVisible())) {
    // Somebody else who leaves may take it away, and what is being ended already takes a moment.
    const enabled = await exit.isEnabled({ timeout: 100 }).catch(() => false);
    await (enabled ? exit.click({ timeout: 500 }).catch(() => {}) : sleep(20));
  }
}

/** All go home, teachers last, and the system knows it. */
afterEach(async () => {
  const everybody = [...people];
  const all = everybody.filter(({ page }) => !page.isClosed());
  people.clear();
  const teaches = ({ page }) => page.url().includes("#/teacher");
  try {
    for (const one of all.toSorted((a, b) => teaches(a) - teaches(b))) await leave(one.page);
    await becomes({ chats: 0, students: 0, teachers: 0 }, counts);
  } finally {
    for (const { page } of all) await page.close();
    await Promise.all([...windows, ...browser.contexts()].map((one) => one.close()));
    windows.clear();
  }
  for (const { faults } of everybody) assert.deepEqual(faults, [], "errors of a page");
});

/** Who is in the lobby. */
export async function counts() {
  const { chats, students, teachers } = await fetch(teacherGateway).then((answer) => answer.json()).catch(() => ({}));
  return { chats, students, teachers };
}

/** What somebody has done so far: clicks, fields that were filled, and Enter. */
export const inputs = (page) =>
  page.evaluate(() => window.seen.clicks + window.seen.enters + window.seen.fields.size);

export const clicks = (page) => page.evaluate(() => window.seen.clicks);

// ---- what they do ----

export async function ask(page, name, question = `A question of ${name}`) {
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("Your question").fill(question);
  await page.getByLabel("Your question").press("Enter");
}

/** From the front page to where teachers begin. */
export async function toDesk(page) {
  await page.getByRole("link", { name: "Answer" }).click();
  await page.getByRole("heading", { name: "Answer questions" }).waitFor();
}

/** Starts to teach. */
export async function teach(page, name, { automatic = true } = {}) {
  await toDesk(page);
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("Give me students as they come").setChecked(automatic);
  await page.getByRole("button", { name: "Start" }).click();
  await page.getByRole("region", { name: "The queue" }).waitFor();
}

/** Enters a room; ranks are 0 to 100, 10 is a member's. */
export async function enter(gateway, room, name, { rank = "10", ...options } = {}) {
  const page = await person(gateway, { path: `#/room/${room}`, ...options });
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("As", { exact: true }).selectOption(rank);
  await page.getByRole("button", { name: "Join" }).click();
  await page.getByRole("log", { name: "Messages" }).waitFor();
  return page;
}

/** Writes into a composer, whose label begins like this, and sends it. */
export async function say(page, to, text) {
  const composer = page.getByRole("textbox", { name: `Message to ${to}` });
  await composer.fill(text);
  await composer.press("Enter");
}

/** The texts of a log, from top to bottom. */
export const said = (page, log = "Messages") =>
  page.getByRole("log", { name: log, exact: true }).getByRole("listitem").evaluateAll((items) =>
    items.map((item) => (item.querySelector("p") ?? item.querySelector("span")).textContent));

/** The entry of a log that has this text. */
export const entry = (page, text, log = "Messages") =>
  page.getByRole("log", { name: log, exact: true }).getByRole("listitem").filter({ hasText: text });

export const sees = (page, text) => page.getByText(text).filter({ visible: true }).first().waitFor();
