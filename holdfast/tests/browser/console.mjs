// The console in a real browser, against a running system. Started by holdfast/tests/it/console.rs, which prepares the
// world and reads the last line. Screenshots go to HOLDFAST_SHOTS where that is set.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { HOLDFAST_URL: URL_, HOLDFAST_CHROMIUM: executablePath = "/usr/bin/chromium", HOLDFAST_SHOTS: shots } = process.env;
const { HOLDFAST_CARRIER: CARRIER } = process.env;
const people = JSON.parse(process.env.HOLDFAST_PEOPLE); // name -> password
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const PATIENCE = { timeout: 60_000 };

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
// The carrier is the test's own: it can be on strike.
const carrier = (body) => fetch(CARRIER, { method: "PUT", body: JSON.stringify(body), headers: { "content-type": "application/json" } });
// A confirmed hold of one unit.
const sell = async (sku, user_id) => {
  const { hold_id: id } = await api("/v1/holds", { lines: [{ sku, quantity: 1 }], user_id });
  await api(`/v1/holds/${id}/confirm`, { payment_ref: `payment-of-${user_id}` });
  return id;
};
let bought; // The hold of the whole purchase.
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

  // Within a second where the machine is at rest; where others work on it, within what it needs for nothing, times twenty. And a
  // busy machine may be late once; a stream that is slow by nature is late each time.
  async "two browsers see the last unit sell within a second"({ operator, viewer }) {
    const nothing = (page) => page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    const took = [];
    let limit = 1000;
    for (const sku of ["last-one", "last-two", "last-three"]) {
      for (const page of [operator, viewer]) await go(page, "shop");
      for (const page of [operator, viewer]) await good(page, sku).getByText("1 left").waitFor();
      const seen = Promise.all([operator, viewer].map((page) => good(page, sku).getByText("sold out").waitFor()));
      const idle = Date.now();
      await Promise.all([nothing(operator), nothing(viewer)]);
      limit = Math.max(limit, 20 * (Date.now() - idle));
      const begun = Date.now();
      await good(operator, sku).getByRole("button", { name: "Reserve" }).click();
      await seen;
      took.push(Date.now() - begun);
      if (took.at(-1) < limit) break;
    }
    console.log(`both saw it after so many ms of the click: ${took} (${limit} allowed)`);
    assert.ok(Math.min(...took) < limit, `${took}, ${limit} allowed`);
  },

  async "the admin sets a price, an operator cannot"({ operator, admin }) {
    await go(operator, "stock/mug");
    assert.equal(await operator.locator("#price").count(), 0);
    await go(admin, "stock/mug");
    const form = admin.locator("#price");
    await form.getByLabel("Amount").fill("1250");
    await form.getByLabel("Currency").fill("eur");
    await form.getByRole("button").click();
    await said(admin).getByText("€12.50").waitFor();
  },

  async "a whole purchase: reserve, countdown, pay, confirmed, shipped"({ operator }) {
    await go(operator, "shop");
    await good(operator, "mug").getByText("€12.50").waitFor();
    await good(operator, "mug").getByLabel("Units").fill("2");
    await good(operator, "mug").getByRole("button", { name: "Reserve" }).click();
    const row = operator.locator(".basket li", { hasText: "2 × mug" });
    await row.getByText("held").waitFor();
    await row.locator(".count", { hasText: /^[12]:\d\d$/ }).waitFor();
    await row.getByRole("button", { name: "Pay €25.00", exact: true }).click();
    await row.getByText("paying").waitFor();
    await row.getByRole("button", { name: "Pay €25.00 with a test card" }).click();
    await row.locator(".tag.shipped").waitFor();
    const id = await row.getAttribute("data-hold");
    await eventually("the parcel", async () => (await api(`/v1/orders/${id}`)).state === "fulfilled");
    assert.match((await api(`/v1/holds/${id}`)).payment_ref, /^pay-/);
    await row.locator(".tag", { hasText: /^shipped$/ }).waitFor();
    bought = id;
  },

  async "a hold's life is told from the request to the parcel"({ operator }) {
    await go(operator, `holds/${bought}`);
    const told = async (where, what) => operator.getByRole("row").filter({ has: operator.locator(`.place.${where}`) }).filter({ hasText: what }).first().waitFor();
    await told("http", "Reserve");
    await told("command", "Reserve");
    await told("redis", "under epoch");
    await told("event", "HoldCreated");
    await told("postgres", "held +2");
    await told("payment", "€25.00");
    await told("event", "HoldConfirmed");
    await told("carrier", "accepted");
    await told("event", "HoldShipped");
    const now = operator.getByRole("region", { name: "The hold now" });
    for (const side of ["log", "Redis", "Postgres"]) await now.getByRole("cell", { name: side, exact: true }).waitFor();
    await operator.locator(".marks code", { hasText: /^[0-9a-f]{32}$/ }).waitFor(); // The trace.
  },

  async "a failed order is looked at, tried again, and another is given up"({ operator, viewer }) {
    await carrier({ isDown: true });
    const [again, never] = [await sell("shirt", "ann"), await sell("shirt", "bob")];
    for (const id of [again, never]) await eventually("the failed order", async () => (await api(`/v1/orders/${id}`)).state === "failed");
    await go(viewer, "failed");
    await viewer.getByRole("link", { name: again.slice(0, 13) }).waitFor();
    await go(viewer, `failed/${again}`);
    assert.equal(await viewer.locator("form").count(), 0, "a viewer only looks");
    await go(operator, `failed/${again}`);
    await operator.getByText("on strike").first().waitFor();
    await operator.getByText("Payload").first().click();
    await operator.getByText('"sku": "shirt"').first().waitFor();
    await carrier({ isDown: false });
    const decide = operator.locator("#decide");
    await decide.getByLabel("Reason").fill("the strike is over");
    await decide.getByRole("button", { name: "Try again" }).click();
    await operator.getByRole("cell", { name: "the strike is over" }).waitFor();
    await operator.getByRole("cell", { name: "console:olga" }).waitFor();
    await eventually("the parcel", async () => (await api(`/v1/orders/${again}`)).state === "fulfilled");
    const sold = (await api("/v1/stock/shirt")).allocated;
    await go(operator, `failed/${never}`);
    await decide.getByLabel("Reason").fill("the buyer has moved");
    await decide.getByRole("button", { name: "Give up" }).click();
    await operator.getByRole("cell", { name: "the buyer has moved" }).waitFor();
    await eventually("the units", async () => (await api("/v1/stock/shirt")).allocated === sold - 1);
  },

  async "a count against a stale number is refused, a right one is written"({ operator }) {
    await go(operator, "stock/shirt");
    const form = operator.locator("#count");
    await form.getByLabel("Counted").fill("18");
    await form.getByLabel("Reason").fill("stocktaking");
    const { on_hand: delivered } = await adjust({ sku: "shirt", change: 5 });
    await form.getByRole("button").click();
    await said(operator).getByText(/expected/).waitFor();
    assert.equal((await api("/v1/stock/shirt")).on_hand, delivered, "nothing was written");
    await form.getByLabel("Expected").fill(String(delivered));
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

  async "a dead letter is corrected: a copy is sent, the letter stays, in one form only"({ operator }) {
    await go(operator, "letters/1");
    await operator.getByText("still cannot be read").first().waitFor();
    await operator.getByText("made of the letter's text", { exact: false }).waitFor();
    const copy = operator.getByLabel("Corrected copy");
    assert.deepEqual(JSON.parse(await copy.inputValue()), { sku: "mug", units: 3 });
    const send = operator.getByRole("button", { name: "Send the corrected copy" });
    await copy.fill("{");
    await send.click();
    await said(operator).getByText("no JSON").waitFor();
    await copy.fill('{"sku": "mug"}');
    await send.click();
    await said(operator).getByText(/no command/).waitFor();
    const command = { command_id: "corrected-1", request_id: "corrected-1", tenant: "default", issued_at: 1, source: null,
      body: { AdjustStock: { sku: "mug", change: 3, set: null, expected_on_hand: null, reason: "a letter, corrected", reference: null, actor: "nobody" } } };
    const before = (await api("/v1/stock/mug")).on_hand;
    await copy.fill(JSON.stringify(command));
    await send.click();
    await operator.locator("#sent").getByText(/is now command/).waitFor();
    await eventually("the adjustment", async () => (await api("/v1/stock/mug")).on_hand === before + 3);
    await operator.getByText("made of", { exact: false }).waitFor({ state: "detached" });
    await operator.locator("pre", { hasText: "22 73 6b 75 22" }).waitFor(); // "sku", as it was buried.
    const another = (body) => operator.evaluate(async (body) => {
      const { csrf } = await (await fetch("api/me")).json();
      const answer = await fetch("api/dead-letters/1/send", { method: "POST", headers: { "content-type": "application/json", "x-csrf": csrf }, body: JSON.stringify(body) });
      return answer.status;
    }, body);
    command.body.AdjustStock.sku = "shirt";
    assert.equal(await another({ corrected: command }), 409, "another form would count in another lane");
    await go(operator, "stock/mug");
    await operator.getByRole("row", { name: /console:olga a letter, corrected/ }).waitFor();
    await go(operator, "audit");
    await operator.getByRole("row", { name: /send_dead_letter 1 ok .*corrected-1/ }).waitFor();
    await go(operator, "letters");
    await operator.getByText("corrected", { exact: true }).waitFor();
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
        return [await send("v1/stock/adjustments", { sku: "mug", change: 1, reason: "r" }), await send("dead-letters/0/send", {}), await send("tour/sale", {}), await send("tour/takeover", {}), await send("admin", {}), await send("v1/admin/failed/x/retry", { reason: "r" })];
      }, withMark);
    assert.deepEqual(await act(viewer, true), [403, 403, 403, 403, 404, 403]);
    assert.deepEqual(await act(operator, false), [403, 403, 403, 403, 404, 403]);
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

  async "a reserver is killed in the middle of a sale: another goes on, and nothing is oversold"({ operator }) {
    await go(operator, "tour");
    await operator.getByRole("button", { name: "Kill a reserver" }).click();
    const told = operator.locator("#takeover[data-phase=done], #takeover[data-phase=failed]");
    await told.waitFor({ timeout: 120_000 });
    const fact = (name) => told.locator("div", { has: operator.locator("dt", { hasText: name }) }).locator("dd").first().textContent();
    assert.equal(await told.getAttribute("data-phase"), "done", await told.textContent());
    const [before, after] = (await fact(/^Epoch$/)).split(" → ").map((epoch) => Number(epoch.replaceAll(",", "")));
    assert.ok(after > before, `${before} -> ${after}`);
    const [owner, heir] = (await fact(/^Owner$/)).split(" → ");
    assert.notEqual(owner, heir);
    assert.equal(await fact("Got a seat"), "120 of 120");
    assert.equal(await fact("Oversold"), "never");
    assert.equal(await fact("Log, Redis, Postgres"), "agree");
    console.log(`taken over: ${owner} -> ${heir}, longest wait for an answer ${await fact("Longest wait")}`);
  },

  async "keys go to pages"({ operator }) {
    await go(operator, "shop");
    await operator.keyboard.press("3");
    await operator.getByRole("heading", { name: "Holds" }).waitFor();
    await operator.keyboard.press("/");
    assert.equal(await operator.evaluate(() => document.activeElement.name), "id");
  },

  async "every page is fit for everybody, light and dark, wide and narrow"() {
    await carrier({ isDown: true });
    const failed = await sell("shirt", "carol");
    await eventually("a failed order", async () => (await api(`/v1/orders/${failed}`)).state === "failed");
    const pages = ["shop", "stock", "stock/shirt", "holds", `holds/${bought}`, "failed", `failed/${failed}`, "letters", "letters/1", "lanes", "audit", "tour"];
    for (const colorScheme of ["light", "dark"]) {
      const page = await enter("anna", { colorScheme, reducedMotion: "reduce" });
      await page.evaluate((ids) => sessionStorage.setItem("holds", JSON.stringify(ids)), [bought, failed]);
      for (const hash of pages) {
        await go(page, hash);
        // A picture of plots needs something to plot.
        if (shots && hash === "lanes") for (let asked = 0; asked < 150; asked++) await api("/v1/holds", { lines: [{ sku: "shirt", quantity: 1000 }], user_id: "u" });
        await page.evaluate(axeSource);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
        const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
        assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), [], `${hash}, ${colorScheme}`);
        const name = hash.replace(bought, "one").replace(failed, "one").replace("/", "-");
        if (shots) await page.screenshot({ path: `${shots}/${name}-${colorScheme}.png` });
        await page.setViewportSize({ width: 390, height: 800 });
        const tooWide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(tooWide <= 0, `${hash} is ${tooWide} px too wide for a phone`);
        if (shots) await page.screenshot({ path: `${shots}/${name}-phone-${colorScheme}.png` });
        await page.setViewportSize({ width: 1200, height: 800 });
      }
      await page.context().close();
    }
  },
};

try {
  const cast = { operator: await enter("olga"), viewer: await enter("vera"), admin: await enter("anna") };
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
