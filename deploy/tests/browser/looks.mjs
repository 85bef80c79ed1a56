// How a page looks to those who see it, and to those who do not; and pictures of it.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
/** Where pictures of the page are put, if anywhere. */
const PICTURES = process.env.SCREENSHOTS;

/** No rule of axe is violated in either scheme, and nothing is wider than the page. */
export async function look(page, what) {
  await page.evaluate(`window.axe || (() => { ${AXE} })()`);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    const violations = await page.evaluate(async (runOnly) => {
      const { violations } = await window.axe.run(document, { runOnly, resultTypes: ["violations"] });
      const found = violations.flatMap(({ id, help, nodes }) => nodes.map(({ html }) => `${id}: ${help}: ${html}`));
      return found.map((text) => text.slice(0, 300));
    }, RULES);
    assert.deepEqual(violations, [], `${what}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: null });
  const wide = await page.evaluate(() => {
    const inside = [...document.querySelectorAll("main, [role=log]")];
    const wider = inside.filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth);
    const parts = wider.map((part) => part.getAttribute("aria-label") ?? part.localName);
    return document.scrollingElement.scrollWidth > innerWidth ? ["the page", ...parts] : parts;
  });
  assert.deepEqual(wide, [], `${what} is too wide`);
}

/** Nothing has moved, or next to nothing: a score of 0.1 is called good, and that of a line on a phone is 0.03. */
export async function still(page, what, most = 0.02) {
  const shift = await page.evaluate(() => window.seen.shift);
  assert.ok(shift <= most, `${what} has moved: ${shift}`);
}

/** What differs from one picture to the next is drawn as if it were the same. */
const SAME = `
  time { font-size: 0; }
  time::after { content: "10:24"; font-size: 0.8rem; }
  dd[data-same] { font-size: 0; }
  dd[data-same]::after { content: "1 minute"; font-size: 1.25rem; }
  #app > footer { visibility: hidden; }
`;

/** A picture of a page, where pictures are wanted. */
export async function picture(page, name, { dark = false } = {}) {
  if (!PICTURES) return;
  mkdirSync(PICTURES, { recursive: true });
  await page.evaluate((css) => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
    document.adoptedStyleSheets = [sheet];
    const spans = [...document.querySelectorAll("dd")].filter(({ textContent }) => /second|minute/.test(textContent));
    for (const span of spans) span.dataset.same = "";
  }, SAME);
  for (const [colorScheme, end] of [["light", ""], ...(dark ? [["dark", "-dark"]] : [])]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(PICTURES, `${name}${end}.png`), animations: "disabled" });
  }
  await page.emulateMedia({ colorScheme: null });
  await page.evaluate(() => (document.adoptedStyleSheets = []));
}
