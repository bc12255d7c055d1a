// The tour: a flash sale on this machine, and a reserver that is killed in the middle of one, seen live.

import { get, post } from "./call.js";
import { watch } from "./live.js";
import { doing, fact, h, heading, number, section, tag } from "./page.js";

const SKU = "tour-ticket";
const LOOK_MS = 400;

export async function tour(room, context) {
  room.append(...heading("Tour", "What Holdfast is for, on this machine, against the real Kafka, Redis and Postgres."));
  sale(room, context);
  await takeover(room, context);
}

function sale(room, { mayAct, onLeave }) {
  const left = h("div", { class: "left", id: "tour-left" });
  const told = h("dl", { class: "facts" });
  onLeave(watch(SKU, ({ available }) => left.replaceChildren(number(available), " ", h("small", {}, available > 0 ? "left" : "left, sold out"))));
  const sell = doing(async () => {
    told.replaceChildren();
    const { units, buyers, held, sold_out: soldOut, unknown, took_ms: took, stock } = await post("tour/sale");
    const isSound = stock.held + stock.allocated <= stock.on_hand && held <= units;
    told.replaceChildren(
      fact("Buyers", number(buyers)),
      fact("Got one", number(held)),
      fact("Sold out", number(soldOut)),
      fact("Not decided yet", number(unknown)),
      fact("Took", `${(took / 1000).toFixed(1)} s`),
      fact("Oversold", tag(isSound ? "never" : "differ")),
    );
    told.dataset.held = held;
  });
  room.append(
    ...section("A flash sale", "Four hundred buyers want fifty tickets at the same moment. Fifty get one; nobody gets the fifty-first."),
    left,
    mayAct ? h("p", {}, h("button", { class: "main", onclick: sell }, "Start the sale")) : h("p", { class: "soft" }, "An operator starts the sale."),
    told,
  );
}

const PHASES = [
  ["starting", "A second reserver starts, a process of its own"],
  ["joining", "It joins the group and is given lanes"],
  ["selling", "Three hundred buyers want a hundred and twenty seats in one of its lanes"],
  ["killed", "It is killed in the middle (SIGKILL); the buyers wait"],
  ["checking", "Another owner has taken the lane over; everything is compared"],
  ["done", "Done"],
];

async function takeover(room, { mayAct, onLeave }) {
  const steps = h("ol", { class: "steps", "aria-live": "polite" });
  const left = h("div", { class: "left" });
  const told = h("dl", { class: "facts", id: "takeover" });
  const button = h("button", { class: "main" }, "Kill a reserver in the middle of a sale");
  let leaveRoom = () => {};
  let watched = "";
  let looking;
  const show = (now) => {
    const at = PHASES.findIndex(([phase]) => phase === now.phase);
    steps.replaceChildren(...(at < 0 ? [] : PHASES.slice(0, -1).map(([phase, text], index) => h("li", { class: index < at ? "past" : index === at ? "now" : "", "data-phase": phase }, text))));
    if (now.sku && now.sku !== watched) {
      leaveRoom();
      watched = now.sku;
      leaveRoom = watch(now.sku, ({ available }) => left.replaceChildren(number(available), " ", h("small", {}, "left")));
    }
    const change = (before, after) => h("span", { class: "change" }, h("span", {}, before), h("span", { "aria-label": "then" }, " → "), h("b", {}, after ?? "…"));
    const known = [];
    if (now.owner_before) known.push(fact("Lane", number(now.lane)), fact("Owner", change(now.owner_before, now.owner_after)), fact("Epoch", change(number(now.epoch_before), now.epoch_after && number(now.epoch_after))));
    if (now.answered_before) known.push(fact("Answered before the kill", number(now.answered_before)));
    if (now.phase === "done") {
      const isSound = now.held <= now.units && now.stock.held + now.stock.allocated <= now.stock.on_hand;
      known.push(
        fact("Longest wait for an answer", `${(now.pause_ms / 1000).toFixed(1)} s`),
        fact("Buyers", number(now.buyers)),
        fact("Got a seat", `${number(now.held)} of ${number(now.units)}`),
        fact("Sold out", number(now.sold_out)),
        fact("Not decided", number(now.unknown)),
        fact("Oversold", tag(isSound ? "never" : "differ")),
        fact("Log, Redis, Postgres", tag(now.agrees ? "agree" : "differ")),
      );
    }
    if (now.phase === "failed") known.push(h("p", { class: "bad" }, `It did not work: ${now.error}`));
    told.replaceChildren(...known);
    told.dataset.phase = now.phase;
    const isOver = ["none", "done", "failed"].includes(now.phase);
    button.disabled = !isOver;
    return isOver;
  };
  const look = async () => {
    const isOver = await get("tour/takeover").then(show, () => false);
    if (!isOver) looking = setTimeout(look, LOOK_MS);
  };
  button.addEventListener("click", doing(async () => {
    show(await post("tour/takeover"));
    looking = setTimeout(look, LOOK_MS);
  }));
  onLeave(() => {
    clearTimeout(looking);
    leaveRoom();
  });
  room.append(
    ...section("A reserver dies", "A lane has one owner at a time. When it dies without a word, another opens the lane, reads what was decided, and goes on from there."),
    left,
    mayAct ? h("p", {}, button) : h("p", { class: "soft" }, "An operator starts it."),
    steps,
    told,
  );
  await look();
}
