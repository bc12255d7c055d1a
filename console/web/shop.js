// The shop window: what is left, live; reserve, see the time run, pay, see it shipped.

import { command, get, post, told } from "./call.js";
import { watch } from "./live.js";
import { doing, field, h, heading, money, number, say, section, tag } from "./page.js";

const GOODS_MAX = 60;
const KEPT = "holds";
const RESERVED_S = 120;
// How soon a row looks again while something is on its way, and at most.
const SOON_MS = 400;
const RARELY_MS = 5000;

const kept = () => JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
const keep = (ids) => sessionStorage.setItem(KEPT, JSON.stringify(ids.slice(-8)));
const ORDERS = { paid: "to be shipped", fulfilling: "being shipped", fulfilled: "shipped", failed: "delayed", cancelled: "given up", refunded: "refunded" };

export async function shop(room, { me, mayAct, onLeave }) {
  const buyer = h("input", { value: me.name, maxlength: "128" });
  const goods = h("ul", { class: "goods" });
  const [{ stock }, prices] = await Promise.all([get(`v1/stock?limit=${GOODS_MAX}`), get("prices")]);
  const priced = new Map(prices.map((price) => [price.sku, price]));
  const basket = basketOf({ me, mayAct, onLeave, priced });

  room.append(
    ...heading("Shop", mayAct ? "Reserve something; it is yours for two minutes, then pay or it goes back." : "What is left, as it changes. A viewer only looks."),
    basket.element,
  );
  if (mayAct) room.append(h("form", { class: "row", onsubmit: (event) => event.preventDefault() }, field("Buyer", buyer, "middle")));
  room.append(goods);

  function good(row) {
    const left = h("div", { class: "left" });
    const price = priced.get(row.sku);
    const units = h("input", { type: "number", min: "1", max: "1000000", value: "1", "aria-label": `Units of ${row.sku}` });
    const button = h("button", { class: "main" }, "Reserve");
    const reserve = doing(async () => {
      const body = { lines: [{ sku: row.sku, quantity: Number(units.value) }], user_id: buyer.value || me.name, ttl_seconds: RESERVED_S };
      const answer = await command("POST", "holds", body);
      say(told(answer, `Reserved: ${units.value} × ${row.sku}`));
      await basket.take(answer.body);
    });
    const show = ({ available }) => {
      left.replaceChildren(number(available), " ", h("small", {}, available > 0 ? "left" : "sold out"));
      left.classList.toggle("none", available === 0);
      button.disabled = available === 0;
    };
    show(row);
    onLeave(watch(row.sku, show));
    const item = h(
      "li",
      { class: "good" },
      h("h2", {}, row.sku),
      h("p", { class: "price" }, price ? money(price.amount, price.currency) : "no price"),
      left,
      mayAct && h("form", { class: "buy", onsubmit: reserve }, h("label", {}, "Units", units), button),
    );
    item.dataset.sku = row.sku;
    return item;
  }

  goods.append(...stock.map(good));
  if (stock.length === 0) goods.replaceWith(h("p", { class: "empty" }, "Nothing has ever been in stock. Add a SKU on the page Stock."));
  await basket.again();
}

// What the person has reserved here: each with its clock, its payment, its order.
function basketOf({ me, mayAct, onLeave, priced }) {
  const list = h("ul", { class: "basket" });
  const element = h("div", { hidden: true }, ...section("Yours"), list);
  const clocks = new Map(); // hold id -> how to tick
  const looking = new Map(); // hold id -> timer
  const ticking = setInterval(() => clocks.forEach((tick) => tick()), 250);
  let hasLeft = false;
  onLeave(() => {
    hasLeft = true;
    clearInterval(ticking);
    looking.forEach(clearTimeout);
  });

  const total = (hold) => {
    const found = hold.lines?.map((line) => [priced.get(line.sku), line.quantity]) ?? [];
    const currencies = new Set(found.map(([price]) => price?.currency));
    if (found.length === 0 || currencies.size !== 1 || currencies.has(undefined)) return null;
    return money(found.reduce((sum, [price, quantity]) => sum + price.amount * quantity, 0), [...currencies][0]);
  };

  function later(id, wait) {
    clearTimeout(looking.get(id));
    if (hasLeft) return;
    const longer = Math.min(wait * 1.5, RARELY_MS);
    looking.set(id, setTimeout(() => put(id, longer).catch(() => later(id, longer)), wait)); // No answer is no news: it is asked again.
  }

  function drop(id) {
    clearTimeout(looking.get(id));
    clocks.delete(id);
    keep(kept().filter((known) => known !== id));
    list.querySelector(`[data-hold="${id}"]`)?.remove();
    element.hidden = list.childElementCount === 0;
  }

  // What may be done with a hold as it stands.
  function ways(hold, id) {
    const amount = total(hold);
    const change = (action, done) =>
      doing(async () => {
        const answer = await action();
        if (done) say(told(answer, done));
        await put(id);
      });
    const button = (text, kind, action) => h("button", { class: kind, onclick: action }, text);
    if (!mayAct) return [];
    if (hold.state === "held") {
      return [
        amount
          ? button(`Pay ${amount}`, "main", change(() => command("POST", `holds/${id}/checkout`, {})))
          : button("Confirm without payment", "main", change(() => command("POST", `holds/${id}/confirm`, { payment_ref: `console-${Date.now()}` }), "Confirmed: it is yours.")),
        button("Give back", "", change(() => command("POST", `holds/${id}/cancel`, { reason: "changed my mind" }), "Given back.")),
      ];
    }
    if (hold.state === "paying") {
      if (me.test_card) return [button(`Pay ${amount ?? ""} with a test card`, "main", change(() => post(`tour/pay/${id}`), "Stripe has taken the test card."))];
      return [h("p", { class: "soft aside" }, "Your shop's page now gives the payment's client secret to Stripe's form: the card goes from the buyer's browser to Stripe, and never through here.")];
    }
    return [button("Dismiss", "plain", () => drop(id))];
  }

  async function stateOf(hold, id) {
    if (!["confirmed", "shipped"].includes(hold.state)) return [tag(hold.state), ["pending", "paying"].includes(hold.state)];
    const order = await get(`v1/orders/${id}`).catch(() => null);
    const word = ORDERS[order?.state];
    const isOnItsWay = !["fulfilled", "refunded"].includes(order?.state); // Confirmed comes before the payment is noted as paid.
    return [[word !== "shipped" && tag("confirmed"), word && tag(word), order?.carrier_reference && h("span", { class: "soft" }, order.carrier_reference)].filter(Boolean), isOnItsWay];
  }

  async function put(id, wait = SOON_MS) {
    const hold = await get(`v1/holds/${id}`);
    const [shown, isOnItsWay] = await stateOf(hold, id);
    const what = hold.lines?.map((line) => `${line.quantity} × ${line.sku}`).join(", ") ?? id;
    const count = h("span", { class: "count", role: "timer" });
    const row = h("li", { "data-hold": id }, h("span", { class: "what" }, h("a", { href: `#/holds/${id}` }, what)), h("span", { class: "state" }, shown), count, h("span", { class: "ways" }, ways(hold, id)));
    const before = list.querySelector(`[data-hold="${id}"]`);
    if (before) before.replaceWith(row);
    else list.prepend(row);
    element.hidden = false;
    clocks.delete(id);
    clearTimeout(looking.get(id));
    if (isOnItsWay) later(id, wait);
    if (hold.state === "held" || hold.state === "paying") runDown(hold, id, count);
  }

  function runDown(hold, id, count) {
    const until = Date.parse(hold.expires_at);
    let asked = 0;
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      count.textContent = left > 0 ? `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}` : "time is up";
      count.classList.toggle("late", left < 20);
      if (left <= 0 && Date.now() - asked > 2000) {
        asked = Date.now();
        put(id).catch(() => {});
      }
    };
    clocks.set(id, tick);
    tick();
  }

  return {
    element,
    take: (hold) => {
      keep([...kept(), hold.hold_id]);
      return put(hold.hold_id);
    },
    again: () => Promise.allSettled(kept().map((id) => put(id))),
  };
}
