// Stock: counters of every SKU, live; adjust, count, and what moved.

import { command, get, told } from "./call.js";
import { watch } from "./live.js";
import { holdsTable } from "./holds.js";
import { doing, field, h, heading, link, money, number, say, section, signed, table, time } from "./page.js";

export async function stock(room, context) {
  if (context.argument) return one(room, context);
  room.append(...heading("Stock", "On hand is what lies on the shelf; held and sold units lie there too until they leave."));
  if (context.mayAct) {
    const sku = h("input", { required: true, pattern: "[A-Za-z0-9._~\\-]{1,64}" });
    const go = (event) => {
      event.preventDefault();
      location.hash = `#/stock/${encodeURIComponent(sku.value)}`;
    };
    room.append(h("form", { class: "row", onsubmit: go }, field("A SKU, also a new one", sku, "middle"), h("button", {}, "Open")));
  }
  const { stock: all } = await get("v1/stock?limit=100");
  const cells = new Map();
  const live = (row, name) => {
    const cell = h("span", {}, number(row[name]));
    cells.set(`${row.sku} ${name}`, cell);
    return cell;
  };
  const counter = (title, name) => ({ title, number: true, cell: (row) => live(row, name) });
  room.append(
    table(`${all.length} SKUs`, [
      { title: "SKU", cell: (row) => link(`stock/${encodeURIComponent(row.sku)}`, row.sku) },
      counter("On hand", "on_hand"),
      counter("Held", "held"),
      counter("Sold", "allocated"),
      counter("Available", "available"),
      counter("Version", "version"),
    ], all),
  );
  for (const { sku } of all) {
    const tell = (row) => Object.keys(row).forEach((name) => cells.get(`${sku} ${name}`)?.replaceChildren(number(row[name])));
    context.onLeave(watch(sku, tell));
  }
}

// What it costs: what checkout charges, whatever a page says.
async function price(sku, path) {
  const known = (await get("prices")).find((price) => price.sku === sku);
  const amount = h("input", { type: "number", min: "1", required: true, value: known?.amount ?? "" });
  const currency = h("input", { required: true, maxlength: "3", pattern: "[A-Za-z]{3}", value: known?.currency ?? "eur" });
  const set = doing(async () => {
    const price = { amount: Number(amount.value), currency: currency.value.toLowerCase() };
    await command("PUT", `prices/${path}`, price);
    say(`One costs ${money(price.amount, price.currency)} now.`);
  });
  return [
    ...section("Price", "Of one unit, in the currency's smallest coin."),
    h("form", { class: "row", id: "price", onsubmit: set }, field("Amount", amount, "short"), field("Currency", currency, "short"), h("button", {}, "Set the price")),
  ];
}

async function one(room, { me, mayAct, argument: sku, onLeave }) {
  const path = encodeURIComponent(sku);
  room.append(...heading(sku, "Every change is a command in the log, under your name."));
  const facts = h("dl", { class: "facts" });
  const [moved, live] = [h("div"), h("div")];
  let known = await get(`v1/stock/${path}`).catch((refused) => {
    if (refused.code === "unknown_sku") return null;
    throw refused;
  });
  // What the person sees is what the count is compared with, until the page is told to look again.
  const expected = h("input", { type: "number", min: "0", required: true, value: known?.on_hand ?? 0 });
  const show = (row) => {
    known = row;
    const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, number(value)));
    facts.replaceChildren(fact("On hand", row.on_hand), fact("Held", row.held), fact("Sold", row.allocated), fact("Available", row.available), fact("Version", row.version));
  };
  const movements = async () => {
    const rows = await get(`movements?sku=${path}`);
    moved.replaceChildren(
      table("Newest first, as far as Postgres is", [
        { title: "When", cell: (row) => time(row.decided_at) },
        { title: "What", cell: (row) => row.kind },
        { title: "On hand", number: true, cell: (row) => signed(row.on_hand_change) },
        { title: "Held", number: true, cell: (row) => signed(row.held_change) },
        { title: "Sold", number: true, cell: (row) => signed(row.allocated_change) },
        { title: "Who", cell: (row) => row.actor },
        { title: "Why", wide: true, cell: (row) => (row.hold_id ? link(`holds/${row.hold_id}`, row.reason || "hold") : [row.reason, row.reference].filter(Boolean).join(" · ")) },
      ], rows),
    );
  };
  const liveHolds = async () => {
    const of = (state) => get(`v1/holds?sku=${path}&state=${state}&limit=50`);
    const [held, paying] = await Promise.all([of("held"), of("paying")]);
    const rows = [...paying.holds, ...held.holds];
    live.replaceChildren(holdsTable(rows.length === 1 ? "One hold" : `${rows.length} holds`, rows, "Nobody holds any of it."));
  };
  let later;
  const follow = (row) => {
    show(row);
    clearTimeout(later);
    later = setTimeout(() => Promise.all([movements(), liveHolds()]).catch(() => {}), 700);
  };
  room.append(facts);
  if (known) {
    show(known);
    onLeave(watch(sku, follow));
  } else facts.replaceWith(h("p", {}, "There is no such SKU yet. The first adjustment makes it."));
  onLeave(() => clearTimeout(later));

  if (me.role === "admin") room.append(...(await price(sku, path)));
  if (mayAct) {
    const change = h("input", { type: "number", required: true, value: "1" });
    const counted = h("input", { type: "number", min: "0", required: true });
    const why = (placeholder) => h("input", { required: true, maxlength: "255", placeholder });
    const [why1, why2] = [why("delivery 4711"), why("stocktaking")];
    const adjust = (body, done) =>
      doing(async () => {
        const answer = await command("POST", "stock/adjustments", { sku, ...body() });
        say(told(answer, done));
        if (answer.status === 202) return;
        const row = answer.body;
        if (!known) return location.reload();
        expected.value = row.on_hand;
        follow(row);
      });
    room.append(
      ...section("Adjust"),
      h("form", { class: "row", id: "adjust", onsubmit: adjust(() => ({ change: Number(change.value), reason: why1.value }), "Adjusted.") }, field("Change", change, "short"), field("Reason", why1), h("button", { class: "main" }, "Adjust")),
      ...section("Count", "Count all that lies on the shelf, with what is held and sold. If the number that you counted against has changed meanwhile, nothing is written."),
      h("form", { class: "row", id: "count", onsubmit: adjust(() => ({ set: Number(counted.value), expected: Number(expected.value), reason: why2.value }), "Counted.") }, field("Counted", counted, "short"), field("Expected", expected, "short"), field("Reason", why2), h("button", { class: "main" }, "Write the count")),
    );
  }
  room.append(...section("Live holds", "What of the shelf is promised to somebody: a count has to find these too."), live, ...section("Movements"), moved);
  await Promise.all([movements(), liveHolds()]);
}
