// The shop window: what is left, live; reserve, see the time run, pay.

import { command, get } from "./call.js";
import { watch } from "./live.js";
import { doing, field, h, heading, number, say, tag } from "./page.js";

const GOODS_MAX = 60;
const KEPT = "holds";

const kept = () => JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
const keep = (ids) => sessionStorage.setItem(KEPT, JSON.stringify(ids.slice(-8)));
const isOpen = (hold) => hold.state === "held" || hold.state === "pending";

export async function shop(room, { me, mayAct, onLeave }) {
  const basket = h("ul", { class: "basket" });
  const buyer = h("input", { value: me.name, maxlength: "128" });
  const goods = h("ul", { class: "goods" });
  room.append(
    ...heading("Shop", mayAct ? "Reserve something; it is yours for two minutes, then pay or it goes back." : "What is left, as it changes. A viewer only looks."),
  );
  if (mayAct) room.append(h("form", { class: "row", onsubmit: (event) => event.preventDefault() }, field("Buyer", buyer, "middle")));
  room.append(basket, goods);

  const rows = new Map(); // hold id -> how to tick
  const ticking = setInterval(() => rows.forEach((tick) => tick()), 250);
  onLeave(() => clearInterval(ticking));

  async function put(id, known) {
    const hold = known ?? (await get(`v1/holds/${id}`));
    const what = hold.lines?.map((line) => `${line.quantity} × ${line.sku}`).join(", ") ?? id;
    const count = h("span", { class: "count" });
    const change = (verb, body, done) =>
      doing(async () => {
        const { body: changed } = await command("POST", `holds/${id}/${verb}`, body);
        say(done);
        await put(id, changed);
      });
    const row = h(
      "li",
      {},
      h("span", { class: "what" }, h("a", { href: `#/holds/${id}` }, what)),
      tag(hold.state),
      isOpen(hold) && count,
      mayAct && isOpen(hold) && h("button", { class: "main", onclick: change("confirm", { payment_ref: `console-${Date.now()}` }, "Paid: it is yours.") }, "Pay"),
      mayAct && isOpen(hold) && h("button", { onclick: change("cancel", { reason: "changed my mind" }, "Given back.") }, "Give back"),
    );
    row.dataset.hold = id;
    const before = basket.querySelector(`[data-hold="${id}"]`);
    if (before) before.replaceWith(row);
    else basket.prepend(row);
    rows.delete(id);
    if (!isOpen(hold)) return;
    const until = Date.parse(hold.expires_at);
    let asked = 0;
    rows.set(id, () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      count.textContent = left > 0 ? `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}` : "time is up";
      if (left <= 0 && Date.now() - asked > 2000) {
        asked = Date.now();
        put(id).catch(() => {});
      }
    });
  }

  function good(stock) {
    const left = h("div", { class: "left" });
    const units = h("input", { type: "number", min: "1", max: "1000000", value: "1", "aria-label": `Units of ${stock.sku}` });
    const reserve = doing(async () => {
      const body = { lines: [{ sku: stock.sku, quantity: Number(units.value) }], user_id: buyer.value || me.name, ttl_seconds: 120 };
      const { body: hold } = await command("POST", "holds", body);
      keep([...kept(), hold.hold_id]);
      say(`Reserved: ${units.value} × ${stock.sku}`);
      await put(hold.hold_id, hold.state === "pending" ? undefined : hold);
    });
    const button = h("button", { class: "main" }, "Reserve");
    const show = ({ available }) => {
      left.replaceChildren(number(available), " ", h("small", {}, available > 0 ? "left" : "sold out"));
      left.classList.toggle("none", available === 0);
    };
    show(stock);
    onLeave(watch(stock.sku, show));
    const item = h("li", { class: "good" }, h("h3", {}, stock.sku), left, mayAct && h("form", { class: "buy", onsubmit: reserve }, h("label", {}, "Units", units), button));
    item.dataset.sku = stock.sku;
    return item;
  }

  const { stock } = await get(`v1/stock?limit=${GOODS_MAX}`);
  goods.append(...stock.map(good));
  if (stock.length === 0) goods.replaceWith(h("p", { class: "soft" }, "Nothing has ever been in stock. Add a SKU on the page Stock."));
  await Promise.allSettled(kept().map((id) => put(id)));
}
