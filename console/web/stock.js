// Stock: counters of every SKU, live; adjust, count, and what moved.

import { command, get } from "./call.js";
import { watch } from "./live.js";
import { doing, field, h, heading, link, number, say, signed, table, time } from "./page.js";

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

async function one(room, { mayAct, argument: sku, onLeave }) {
  const path = encodeURIComponent(sku);
  room.append(...heading(sku, "Every change is a command in the log, under your name."));
  const facts = h("dl", { class: "facts" });
  const moved = h("div");
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
  let later;
  const follow = (row) => {
    show(row);
    clearTimeout(later);
    later = setTimeout(() => movements().catch(() => {}), 700);
  };
  room.append(facts);
  if (known) {
    show(known);
    onLeave(watch(sku, follow));
  } else facts.replaceWith(h("p", {}, "There is no such SKU yet. The first adjustment makes it."));
  onLeave(() => clearTimeout(later));

  if (mayAct) {
    const change = h("input", { type: "number", required: true, value: "1" });
    const counted = h("input", { type: "number", min: "0", required: true });
    const why = (placeholder) => h("input", { required: true, maxlength: "255", placeholder });
    const [why1, why2] = [why("delivery 4711"), why("stocktaking")];
    const adjust = (body, done) =>
      doing(async () => {
        const { body: row } = await command("POST", "stock/adjustments", { sku, ...body() });
        say(done);
        if (!known) return location.reload();
        expected.value = row.on_hand;
        follow(row);
      });
    room.append(
      h("h2", {}, "Adjust"),
      h("form", { class: "row", id: "adjust", onsubmit: adjust(() => ({ change: Number(change.value), reason: why1.value }), "Adjusted.") }, field("Change", change, "short"), field("Reason", why1), h("button", { class: "main" }, "Adjust")),
      h("h2", {}, "Count"),
      h("p", { class: "soft" }, "Count all that lies on the shelf, with what is held and sold. If the number that you counted against has changed meanwhile, nothing is written."),
      h("form", { class: "row", id: "count", onsubmit: adjust(() => ({ set: Number(counted.value), expected: Number(expected.value), reason: why2.value }), "Counted.") }, field("Counted", counted, "short"), field("Expected", expected, "short"), field("Reason", why2), h("button", { class: "main" }, "Write the count")),
    );
  }
  room.append(h("h2", {}, "Movements"), moved);
  await movements();
}
