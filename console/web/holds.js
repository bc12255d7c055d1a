// Holds: find them, and see one's whole life: what was asked, what was decided, what Redis and Postgres have.

import { command, get } from "./call.js";
import { doing, field, h, heading, link, say, table, tag, time } from "./page.js";

const STATES = ["", "held", "confirmed", "cancelled", "expired", "rejected"];
const lines = (hold) => hold.lines?.map((line) => `${line.quantity} × ${line.sku}`).join(", ");

export async function holds(room, context) {
  if (context.argument) return one(room, context);
  room.append(...heading("Holds", "Find one by its id, or those of a buyer, of a SKU, in a state."));
  const input = (name) => h("input", { name, maxlength: "128" });
  const [id, user, sku] = [input("id"), input("user"), input("sku")];
  const state = h("select", {}, STATES.map((word) => h("option", { value: word }, word || "any")));
  const found = h("div");
  const search = async () => {
    if (id.value) return void (location.hash = `#/holds/${encodeURIComponent(id.value.trim())}`);
    const query = new URLSearchParams({ limit: "100" });
    if (user.value) query.set("user_id", user.value);
    if (sku.value) query.set("sku", sku.value);
    if (state.value) query.set("state", state.value);
    const { holds: rows } = await get(`v1/holds?${query}`);
    found.replaceChildren(
      table("Newest first", [
        { title: "Hold", cell: (row) => link(`holds/${row.hold_id}`, row.hold_id.slice(0, 13)) },
        { title: "State", cell: (row) => tag(row.state) },
        { title: "Buyer", cell: (row) => row.user_id },
        { title: "What", wide: true, cell: lines },
        { title: "Since", cell: (row) => time(row.created_at) },
        { title: "Until", cell: (row) => time(row.expires_at) },
      ], rows),
    );
  };
  room.append(
    h("form", { class: "row", onsubmit: doing(search) }, field("Id", id), field("Buyer", user), field("SKU", sku), field("State", state, "short"), h("button", { class: "main" }, "Find")),
    found,
  );
  await search();
}

const TELLING = ["user_id", "idempotency_key", "ttl_ms", "payment_ref", "reason", "message", "shortages", "error"];
function gist(entry) {
  const words = TELLING.filter((name) => entry.fields[name] !== undefined && entry.fields[name] !== null && entry.fields[name] !== "");
  return words.map((name) => `${name} ${typeof entry.fields[name] === "string" ? entry.fields[name] : JSON.stringify(entry.fields[name])}`).join(" · ");
}

async function one(room, { mayAct, argument: id }) {
  room.append(...heading(`Hold ${id}`, "Read from the log just now, and compared with Redis and Postgres."));
  const waiting = h("p", { class: "soft" }, "Reading the lane's log …");
  room.append(waiting);
  const life = await get(`show/${encodeURIComponent(id)}`).finally(() => waiting.remove());
  const sides = [["log", life.log], ["Redis", life.redis], ["Postgres", life.postgres]].filter(([, side]) => side);
  const state = life.log?.state ?? life.postgres?.state;
  const agree = life.agreement.length ? tag("differ") : tag("agree");
  room.append(h("p", {}, tag(state ?? "pending"), " ", agree, ` lane ${life.lane} `, ...life.agreement.map((text) => h("span", {}, ` ${text}`))));
  if (mayAct && state === "held") {
    const change = (verb, body, done) =>
      doing(async () => {
        await command("POST", `holds/${id}/${verb}`, body);
        say(done);
        room.replaceChildren();
        await one(room, { mayAct, argument: id });
      });
    room.append(
      h("p", {}, h("button", { onclick: change("extend", { ttl_seconds: 600 }, "Extended to ten minutes from now.") }, "Extend"), " ", h("button", { onclick: change("cancel", { reason: "console" }, "Cancelled.") }, "Cancel")),
    );
  }
  room.append(
    h("h2", {}, "Timeline"),
    table("Commands and events of the lane, in the order of the story", [
      { title: "When", cell: (row) => time(row.time_ms) },
      { title: "What", cell: (row) => row.type },
      { title: "", cell: (row) => tag(row.counts) },
      { title: "Where", cell: (row) => h("code", {}, `${row.topic}[${row.partition}]@${row.offset}`) },
      { title: "Says", wide: true, cell: gist },
    ], life.timeline),
    h("h2", {}, "What each has"),
    table("The hold now", [
      { title: "", cell: ([name]) => name },
      { title: "State", cell: ([, side]) => tag(side.state) },
      { title: "Buyer", cell: ([, side]) => side.user_id },
      { title: "What", cell: ([, side]) => side.lines },
      { title: "Until", cell: ([, side]) => time(side.expires_at) },
      { title: "Changed", cell: ([, side]) => time(side.changed_at) },
      { title: "Payment", cell: ([, side]) => side.payment_ref },
    ], sides),
    life.order ? h("p", {}, `Order: ${life.order}`) : "",
  );
}
