// The console in a real browser, against a running system. Started by holdfast/tests/it/console.rs, which prepares the
// world and reads the last line. Screenshots go to HOLDFAST_SHOTS where that is set.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { HOLDFAST_URL: URL_, HOLDFAST_CHROMIUM: executablePath = "/usr/bin/chromium", HOLDFAST_SHOTS: shots } = process.env;
const people = JSON.parse(process.env.HOLDFAST_PEOPLE); // name -> password
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const PATIENCE = { timeout: 20_000 };

const browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS });
const wrong = []; // console errors, page errors, foreign requests

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  context.setDefaultTimeout(PATIENCE.timeout);
  const page = await context.newPage();
  page.on("pageerror", (error) => wrong.push(`page error: ${error.message}`));
  // A refusal that a person is told is also a line of Chromium's: it is none of the page's.
  page.on("console", (line) => line.type() === "error" && !line.text().startsWith("Failed to load resource") && wrong.push(`console: ${line.text()}`));
  for (const kind of ["request", "websocket"])
    page.on(kind, (asked) => {
      const url = new URL(asked.url());
      if (url.host !== new URL(URL_).host && url.protocol !== "data:") wrong.push(`foreign request: ${url}`);
    });
  await page.goto(`${URL_}/console`);
  return page;
}

async function logIn(page, name, password = people[name]) {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

async function enter(name, options) {
  const page = await open(options);
  await logIn(page, name);
  await page.getByRole("navigation").waitFor();
  return page;
}

const go = async (page, hash) => {
  await page.evaluate((to) => (location.hash = to), `#/${hash}`);
  await page.locator(`main > div[data-shows="#/${hash}"]:not([aria-busy]) h1`).waitFor();
};
const said = (page) => page.locator("#said");
const api = async (path, body) => {
  const response = await fetch(`${URL_}${path}`, body && { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", prefer: "wait=30" } });
  return response.json();
};
const adjust = (body) => api("/v1/stock/adjustments", { reason: "browser test", ...body });
const eventually = async (what, isSo) => {
  for (const begun = Date.now(); Date.now() - begun < PATIENCE.timeout; ) {
    if (await isSo()) return;
    await new Promise((later) => setTimeout(later, 50));
  }
  assert.fail(`waited for ${what}`);
};
const good = (page, sku) => page.locator(`.good[data-sku="${sku}"]`);

const stories = {
  async "a wrong password is told so, and guessing is braked"() {
    const page = await open();
    for (let guess = 0; guess < 5; guess++) {
      await logIn(page, "nobody", "wrong password");
      await eventually("the refusal", async () => (await page.locator(".wrong").textContent()).includes("no user of this name"));
      await page.evaluate(() => (document.querySelector(".wrong").textContent = ""));
    }
    await logIn(page, "nobody", "wrong password");
    await eventually("the brake", async () => (await page.locator(".wrong").textContent()).includes("wait a minute"));
    await page.context().close();
  },

  async "two browsers see the last unit sell"({ operator, viewer }) {
    for (const page of [operator, viewer]) await go(page, "shop");
    for (const page of [operator, viewer]) await good(page, "last-one").getByText("1 left").waitFor();
    const seen = Promise.all([operator, viewer].map((page) => good(page, "last-one").getByText("sold out").waitFor()));
    const begun = Date.now();
    await good(operator, "last-one").getByRole("button", { name: "Reserve" }).click();
    await seen;
    console.log(`both saw it within ${Date.now() - begun} ms of the click`);
  },

  async "a whole purchase, with a countdown"({ operator }) {
    await go(operator, "shop");
    await good(operator, "mug").getByRole("button", { name: "Reserve" }).click();
    const row = operator.locator(".basket li", { hasText: "1 × mug" });
    await row.getByText("held").waitFor();
    await row.locator(".count", { hasText: /^[12]:\d\d$/ }).waitFor();
    await row.getByRole("button", { name: "Pay" }).click();
    await row.getByText("confirmed").waitFor();
    assert.equal((await api("/v1/stock/mug")).allocated, 1);
    await row.getByRole("link").click();
    await operator.getByText("HoldConfirmed").first().waitFor();
    for (const side of ["log", "Redis", "Postgres"]) await operator.getByRole("cell", { name: side, exact: true }).waitFor();
  },

  async "a count against a stale number is refused, a right one is written"({ operator }) {
    await go(operator, "stock/shirt");
    const form = operator.locator("#count");
    await form.getByLabel("Counted").fill("18");
    await form.getByLabel("Reason").fill("stocktaking");
    await adjust({ sku: "shirt", change: 5 });
    await form.getByRole("button").click();
    await said(operator).getByText(/expected/).waitFor();
    assert.equal((await api("/v1/stock/shirt")).on_hand, 25, "nothing was written");
    await form.getByLabel("Expected").fill("25");
    await form.getByRole("button").click();
    await said(operator).getByText("Counted.").waitFor();
    assert.equal((await api("/v1/stock/shirt")).on_hand, 18);
    await operator.getByText("console:olga").first().waitFor();
  },

  async "a dead letter is looked at and sent again"({ operator }) {
    await go(operator, "letters");
    await operator.getByRole("link", { name: "0", exact: true }).click();
    await operator.getByText("holdfast.error.message").waitFor();
    const before = (await api("/v1/stock/mug")).on_hand;
    await operator.getByRole("button", { name: "Send it where it belongs" }).click();
    await operator.locator("#sent").getByText(/is now command/).waitFor();
    await eventually("the adjustment", async () => (await api("/v1/stock/mug")).on_hand === before + 7);
  },

  async "a viewer looks and cannot act, nor can a page without the mark"({ operator, viewer }) {
    await go(viewer, "shop");
    await good(viewer, "mug").waitFor();
    assert.equal(await viewer.getByRole("button", { name: "Reserve" }).count(), 0);
    await go(viewer, "stock/mug");
    assert.equal(await viewer.locator("form").count(), 0);
    const act = (page, withMark) =>
      page.evaluate(async (withMark) => {
        const { csrf } = await (await fetch("api/me")).json();
        const headers = { "content-type": "application/json", ...(withMark && { "x-csrf": csrf }) };
        const send = (path, body) => fetch(`api/${path}`, { method: "POST", headers, body: JSON.stringify(body) }).then((answer) => answer.status);
        return [await send("v1/stock/adjustments", { sku: "mug", change: 1, reason: "r" }), await send("dead-letters/0/send", {}), await send("tour/sale", {})];
      }, withMark);
    assert.deepEqual(await act(viewer, true), [403, 403, 403]);
    assert.deepEqual(await act(operator, false), [403, 403, 403]);
    const stranger = await fetch(`${URL_}/console/api/v1/stock`);
    assert.equal(stranger.status, 401);
  },

  async "the tour sells what there is and no more; verify agrees; the audit knows"({ operator }) {
    await go(operator, "tour");
    await operator.getByRole("button", { name: "Start the sale" }).click();
    await operator.locator("dl[data-held]").waitFor({ timeout: 60_000 });
    assert.equal(await operator.locator("dl[data-held]").getAttribute("data-held"), "50");
    await operator.getByText("0 left").waitFor();
    await go(operator, "lanes");
    await operator.getByRole("button", { name: "Verify now" }).click();
    await operator.locator(".tag.agree").waitFor({ timeout: 60_000 });
    await go(operator, "audit");
    await operator.getByRole("cell", { name: "tour_sale" }).first().waitFor();
  },

  async "keys go to pages"({ operator }) {
    await go(operator, "shop");
    await operator.keyboard.press("3");
    await operator.getByRole("heading", { name: "Holds" }).waitFor();
    await operator.keyboard.press("/");
    assert.equal(await operator.evaluate(() => document.activeElement.name), "id");
  },

  async "every page is fit for everybody, light and dark, wide and narrow"() {
    const hold = (await api("/v1/holds?sku=mug")).holds[0].hold_id;
    const pages = ["shop", "stock", "stock/shirt", "holds", `holds/${hold}`, "letters", "letters/0", "lanes", "audit", "tour"];
    for (const colorScheme of ["light", "dark"]) {
      const page = await enter("olga", { colorScheme, reducedMotion: "reduce" });
      for (const hash of pages) {
        await go(page, hash);
        // A picture of plots needs something to plot.
        if (shots && hash === "lanes") for (let asked = 0; asked < 150; asked++) await api("/v1/holds", { lines: [{ sku: "shirt", quantity: 1000 }], user_id: "u" });
        await page.evaluate(axeSource);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
        const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
        assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), [], `${hash}, ${colorScheme}`);
        const name = hash.replace(hold, "one").replace("/", "-");
        if (shots) await page.screenshot({ path: `${shots}/${name}-${colorScheme}.png` });
        await page.setViewportSize({ width: 390, height: 800 });
        const tooWide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(tooWide <= 0, `${hash} is ${tooWide} px too wide for a phone`);
        if (shots && hash === "shop") await page.screenshot({ path: `${shots}/${name}-phone-${colorScheme}.png` });
        await page.setViewportSize({ width: 1200, height: 800 });
      }
      await page.context().close();
    }
  },
};

try {
  const cast = { operator: await enter("olga"), viewer: await enter("vera") };
  for (const [name, story] of Object.entries(stories)) {
    const begun = Date.now();
    await story(cast).catch(async (error) => {
      if (shots) await cast.operator.screenshot({ path: `${shots}/failed.png` });
      error.message = `${name}: ${error.message}`;
      throw error;
    });
    console.log(`ok ${name} (${Date.now() - begun} ms)`);
  }
  assert.deepEqual(wrong, []);
  console.log("all is well");
} finally {
  await browser.close();
}
