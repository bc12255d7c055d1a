// The failed queue: orders that the carrier did not take. Look at each try, try again, or give the order up.

import { command, get } from "./call.js";
import { doing, field, h, heading, json, link, section, say, table, tag, time } from "./page.js";

const what = (order) => order.lines?.map((line) => `${line.quantity} × ${line.sku}`).join(", ");

export async function failed(room, context) {
  if (context.argument) return one(room, context);
  room.append(...heading("Failed orders", "Paid, and not taken by the carrier in any try. They wait for a person: after a day they are given up and refunded."));
  const list = h("div");
  const rows = [];
  const read = async (cursor) => {
    const { orders, next_cursor: next } = await get(`v1/admin/failed${cursor ? `?cursor=${encodeURIComponent(cursor)}` : ""}`);
    rows.push(...orders);
    list.replaceChildren(
      table(rows.length === 1 ? "One order waits" : `${rows.length}${next ? " or more" : ""} orders wait`, [
        { title: "Order", cell: (row) => link(`failed/${row.hold_id}`, row.hold_id.slice(0, 13)) },
        { title: "Failed", cell: (row) => time(row.failed_at) },
        { title: "Tries", number: true, cell: (row) => String(row.tries ?? "–") },
        { title: "Buyer", cell: (row) => row.user_id },
        { title: "What", wide: true, cell: what },
        { title: "Paid by", wide: true, cell: (row) => row.payment_ref },
      ], rows, "Nothing has failed. Orders come here when the carrier has refused every try."),
      next ? h("p", {}, h("button", { onclick: doing(() => read(next)) }, "Older")) : "",
    );
  };
  room.append(list);
  await read();
}

async function one(room, { mayAct, argument: id }) {
  const order = await get(`v1/admin/failed/${encodeURIComponent(id)}`);
  room.append(
    ...heading(`Order ${id}`, what(order) || "An order without lines."),
    h("p", { class: "marks" }, tag(order.state), h("span", {}, "Buyer ", h("b", {}, order.user_id ?? "–")), h("span", {}, "paid by ", h("b", {}, order.payment_ref ?? "–")), link(`holds/${id}`, "Its whole life")),
  );
  if (order.carrier_reference) room.append(h("p", {}, `The carrier has it: ${order.carrier_reference}`));
  if (order.state === "failed" && mayAct) {
    const reason = h("input", { required: true, maxlength: "255", placeholder: "the carrier is back" });
    const act = (verb, done) => async () => {
      await command("POST", `admin/failed/${encodeURIComponent(id)}/${verb}`, { reason: reason.value });
      say(done);
      room.replaceChildren();
      await one(room, { mayAct, argument: id });
    };
    const verbs = { retry: act("retry", "It is tried again, from the first try."), cancel: act("cancel", "Given up: the units go back on sale, the money to the buyer.") };
    room.append(
      ...section("What now?", "Try it again when the carrier is well. Give it up, and the units go back on sale and the buyer is refunded: that is not undone."),
      h(
        "form",
        { class: "row", id: "decide", onsubmit: doing((event) => verbs[event.submitter?.value ?? "retry"]()) },
        field("Reason", reason, "middle"),
        h("button", { class: "main", name: "verb", value: "retry" }, "Try again"),
        h("button", { class: "danger", name: "verb", value: "cancel" }, "Give up"),
      ),
    );
  }
  const took = (row) => `${Date.parse(row.ended_at) - Date.parse(row.started_at)} ms`;
  room.append(
    ...section("Tries"),
    table("What the carrier was asked, and what it said", [
      { title: "When", cell: (row) => time(row.started_at) },
      { title: "Took", number: true, cell: took },
      { title: "Carrier", cell: (row) => row.carrier },
      { title: "Answer", wide: true, cell: (row) => (row.error ? h("span", { class: "bad" }, row.error) : h("span", {}, "accepted: ", row.reference)) },
      { title: "Asked", cell: (row) => h("details", {}, h("summary", {}, "Payload"), json(row.payload)) },
    ], order.tries ?? [], "The carrier was not asked yet."),
    ...section("What people did"),
    table("In the transactions that did it", [
      { title: "When", cell: (row) => time(row.at) },
      { title: "Who", cell: (row) => row.actor },
      { title: "What", cell: (row) => row.action.replace("order.", "") },
      { title: "Why", wide: true, cell: (row) => row.detail?.reason },
    ], order.timeline ?? [], "Nobody has done anything about this order."),
  );
}
