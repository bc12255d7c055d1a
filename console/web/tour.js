// The tour: a flash sale on this machine, seen live.

import { post } from "./call.js";
import { watch } from "./live.js";
import { doing, h, heading, number, tag } from "./page.js";

const SKU = "tour-ticket";

export async function tour(room, { mayAct, onLeave }) {
  room.append(...heading("Tour", "Four hundred buyers want fifty tickets at the same moment. Fifty get one; nobody gets the fifty-first."));
  const left = h("div", { class: "left", id: "tour-left" }, "–");
  const told = h("dl", { class: "facts" });
  const show = ({ available }) => left.replaceChildren(number(available), " ", h("small", {}, "left"));
  onLeave(watch(SKU, show));
  const sell = doing(async () => {
    told.replaceChildren();
    const { units, buyers, held, sold_out: soldOut, unknown, took_ms: took, stock } = await post("tour/sale");
    const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
    const isSound = stock.held + stock.allocated <= stock.on_hand && held <= units;
    told.replaceChildren(
      fact("Buyers", number(buyers)),
      fact("Got one", number(held)),
      fact("Sold out", number(soldOut)),
      fact("Not decided yet", number(unknown)),
      fact("Took", `${(took / 1000).toFixed(1)} s`),
      fact("Oversold", tag(isSound ? "agree" : "differ")),
    );
    told.dataset.held = held;
  });
  room.append(left, h("p", {}), mayAct ? h("button", { class: "main", onclick: sell }, "Start the sale") : h("p", { class: "soft" }, "An operator starts the sale."), h("p", {}), told);
}
