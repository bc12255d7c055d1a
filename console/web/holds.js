// Holds: find them, and see one's whole life: request, command, decision, event, rows, money, parcel.

import { command, get, told } from "./call.js";
import { doing, field, h, heading, link, money, say, section, signed, table, tag, time } from "./page.js";

const STATES = ["", "held", "paying", "confirmed", "shipped", "cancelled", "expired", "rejected", "unallocated"];
const lines = (hold) => hold.lines?.map((line) => `${line.quantity} × ${line.sku}`).join(", ");

export const holdsTable = (caption, rows, empty) =>
  table(caption, [
    { title: "Hold", cell: (row) => link(`holds/${row.hold_id}`, row.hold_id.slice(0, 13)) },
    { title: "State", cell: (row) => tag(row.state) },
    { title: "Buyer", cell: (row) => row.user_id },
    { title: "What", wide: true, cell: lines },
    { title: "Since", cell: (row) => time(row.created_at) },
    { title: "Until", cell: (row) => time(row.expires_at) },
  ], rows, empty);

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
    found.replaceChildren(holdsTable("Newest first", rows, "No hold is like that."));
  };
  room.append(
    h("form", { class: "row", onsubmit: doing(search) }, field("Id", id), field("Buyer", user), field("SKU", sku), field("State", state, "short"), h("button", { class: "main" }, "Find")),
    found,
  );
  await search();
}

const TELLING = ["user_id", "idempotency_key", "ttl_ms", "cap_ms", "payment_ref", "reason", "reference", "message", "shortages", "error"];
function gist(entry) {
  const words = TELLING.filter((name) => entry.fields[name] !== undefined && entry.fields[name] !== null && entry.fields[name] !== "");
  return words.map((name) => `${name} ${typeof entry.fields[name] === "string" ? entry.fields[name] : JSON.stringify(entry.fields[name])}`).join(" · ");
}

// The log's part of the story, in the log's own order: a request is written as a command, decided by the script in Redis, said in
// an event, and kept in Postgres.
function fromTheLog(life) {
  const rows = [];
  for (const entry of life.timeline) {
    const at = { place: `${entry.topic}[${entry.partition}]@${entry.offset}`, trace: entry.trace_id };
    const isEvent = entry.command !== null;
    if (!isEvent && entry.source === "/holdfast/ingress") rows.push({ at: entry.fields.issued_at, where: "HTTP", what: entry.type, says: `request ${entry.fields.request_id}`, trace: entry.trace_id });
    if (!isEvent) rows.push({ ...at, at: entry.time_ms, where: "Command", what: entry.type, says: gist(entry) });
    if (!isEvent) continue;
    if (entry.counts === "valid") rows.push({ at: entry.fields.decided_at, where: "Redis", what: "decided", says: `under epoch ${entry.fields.epoch}, as command ${entry.command} by log time` });
    rows.push({ ...at, at: entry.time_ms, where: "Event", what: entry.type, counts: entry.counts, says: gist(entry) });
    for (const moved of life.movements.filter((movement) => movement.event_offset === entry.offset && entry.counts === "valid")) {
      const changes = [["on hand", moved.on_hand_change], ["held", moved.held_change], ["sold", moved.allocated_change]].filter(([, units]) => units);
      rows.push({ at: entry.time_ms, where: "Postgres", what: moved.kind, says: `${moved.sku}: ${changes.map(([name, units]) => `${name} ${signed(units)}`).join(", ") || "nothing moved"}`, place: `stock_movements, event ${moved.event_offset}` });
    }
  }
  return rows;
}

function besideTheLog(payments, order) {
  const steps = payments.map((step) => ({ at: step.at, where: "Payment", what: step.step, says: [step.error && `failed: ${step.error}`, step.step === "Begin" && `${money(step.amount, step.currency)}, now ${step.state}`].filter(Boolean).join(" · "), place: step.payment_ref }));
  const tries = (order?.tries ?? []).map((row) => ({ at: Date.parse(row.started_at), where: "Carrier", what: row.error ? "refused" : "accepted", says: row.error ?? row.reference, place: row.carrier }));
  const people = (order?.timeline ?? []).map((row) => ({ at: Date.parse(row.at), where: "Person", what: row.action.replace("order.", ""), says: `${row.actor}: ${row.detail?.reason ?? ""}` }));
  return [...steps, ...tries, ...people].sort((a, b) => a.at - b.at);
}

// The log keeps its order; what happened beside it stands where its clock says.
function merge(log, beside) {
  const rest = [...beside];
  const rows = [];
  for (const row of log) {
    while (rest.length && rest[0].at < row.at) rows.push(rest.shift());
    rows.push(row);
  }
  return [...rows, ...rest];
}

async function one(room, context) {
  const { mayAct, argument: id } = context;
  room.append(...heading(`Hold ${id}`, "Read from the log just now, and compared with Redis and Postgres."));
  const waiting = h("p", { class: "soft" }, "Reading the lane's log …");
  room.append(waiting);
  const path = encodeURIComponent(id);
  const [life, payments, order] = await Promise.all([get(`show/${path}`), get(`payments/${path}`), get(`v1/admin/failed/${path}`).catch(() => null)]).finally(() => waiting.remove());
  const sides = [["log", life.log], ["Redis", life.redis], ["Postgres", life.postgres]].filter(([, side]) => side);
  const state = life.log?.state ?? life.postgres?.state;
  const trace = life.timeline.find((entry) => entry.trace_id)?.trace_id;
  room.append(
    h("p", { class: "marks" }, tag(state ?? "pending"), tag(life.agreement.length ? "differ" : "agree"), h("span", {}, "lane ", h("b", {}, String(life.lane))), h("span", {}, "trace ", trace ? h("code", {}, trace) : h("b", {}, "none: traces are not exported"))),
    ...life.agreement.map((text) => h("p", { class: "bad" }, text)),
  );
  if (mayAct && state === "held") {
    const change = (verb, body, done) =>
      doing(async () => {
        say(told(await command("POST", `holds/${id}/${verb}`, body), done));
        room.replaceChildren();
        await one(room, context);
      });
    room.append(
      h("p", { class: "ways" }, h("button", { onclick: change("extend", { ttl_seconds: 600 }, "Extended to ten minutes from now.") }, "Extend"), h("button", { onclick: change("cancel", { reason: "console" }, "Cancelled.") }, "Cancel")),
    );
  }
  room.append(
    ...section("Timeline"),
    table("From the request to the row, in the order of the story", [
      { title: "When", cell: (row) => time(row.at) },
      { title: "Where", cell: (row) => h("span", { class: `place ${row.where.toLowerCase()}` }, row.where) },
      { title: "What", cell: (row) => [row.what, " ", row.counts === "void" && tag("void")] },
      { title: "Says", wide: true, cell: (row) => row.says },
      { title: "Place", cell: (row) => row.place && h("code", {}, row.place) },
    ], merge(fromTheLog(life), besideTheLog(payments, order))),
    ...section("What each has"),
    table("The hold now", [
      { title: "Side", cell: ([name]) => name },
      { title: "State", cell: ([, side]) => tag(side.state) },
      { title: "Buyer", cell: ([, side]) => side.user_id },
      { title: "What", cell: ([, side]) => side.lines },
      { title: "Until", cell: ([, side]) => time(side.expires_at) },
      { title: "Changed", cell: ([, side]) => time(side.changed_at) },
      { title: "Payment", cell: ([, side]) => side.payment_ref },
    ], sides),
    order ? h("p", {}, "Its order: ", tag(order.state), " ", link(`failed/${id}`, "tries and what people did")) : "",
  );
}
