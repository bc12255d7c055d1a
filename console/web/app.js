// The console: who is there, which page, and the keys. A page is a function that fills <main> and returns how to leave.

import { get, onLoggedOut, post, setMark } from "./call.js";
import { doing, field, h } from "./page.js";
import { audit } from "./audit.js";
import { failed } from "./failed.js";
import { holds } from "./holds.js";
import { lanes } from "./lanes.js";
import { letters } from "./letters.js";
import { shop } from "./shop.js";
import { stock } from "./stock.js";
import { tour } from "./tour.js";

const top = document.getElementById("top");
const main = document.getElementById("main");
const PAGES = [
  ["shop", "Shop", shop, () => true],
  ["stock", "Stock", stock, () => true],
  ["holds", "Holds", holds, () => true],
  ["failed", "Failed orders", failed, () => true],
  ["letters", "Dead letters", letters, () => true],
  ["lanes", "Lanes", lanes, () => true],
  ["audit", "Audit", audit, (me) => me.role !== "viewer"],
  ["tour", "Tour", tour, (me) => me.tour],
];
let me = null;
let leave = () => {};

const offered = () => PAGES.filter(([, , , isOffered]) => isOffered(me));

async function show() {
  leave();
  leave = () => {};
  if (!me) return logIn();
  const [name, ...rest] = location.hash.replace(/^#\//, "").split("/").map(decodeURIComponent);
  const [id, title, page] = offered().find(([id]) => id === name) ?? PAGES[0];
  document.title = `${title} · Holdfast`;
  for (const link of top.querySelectorAll("nav a")) {
    link.toggleAttribute("aria-current", link.dataset.page === id);
    if (link.dataset.page === id) link.setAttribute("aria-current", "page");
  }
  const room = h("div", { "aria-busy": "true", "data-shows": location.hash });
  main.replaceChildren(room);
  const left = [];
  leave = () => left.forEach((done) => done());
  const mayAct = me.role !== "viewer";
  await doing(() => page(room, { me, mayAct, argument: rest[0] ?? "", onLeave: (done) => left.push(done) }))();
  room.removeAttribute("aria-busy");
}

function header() {
  const links = offered().map(([id, title], index) => {
    const link = h("a", { href: `#/${id}`, title: `Key ${index + 1}` }, title);
    link.dataset.page = id;
    return link;
  });
  const out = doing(async () => {
    await post("logout");
    enter(null);
  });
  top.replaceChildren(
    h(
      "div",
      {},
      h("strong", {}, "Holdfast"),
      h("nav", { "aria-label": "Pages" }, links),
      h("span", { class: "who" }, `${me.name}, ${me.role}`, h("button", { class: "plain", onclick: out }, "Log out")),
    ),
  );
}

function enter(person) {
  me = person;
  setMark(person?.csrf ?? "");
  if (me) header();
  else top.replaceChildren();
  show();
}

function logIn() {
  document.title = "Log in · Holdfast";
  const name = h("input", { name: "name", autocomplete: "username", required: true, autofocus: true });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      enter(await post("login", { name: name.value, password: password.value }));
    } catch (refused) {
      wrong.textContent = refused.message;
    }
  };
  main.replaceChildren(
    h(
      "form",
      { class: "login", onsubmit: submit },
      h("h1", {}, "Holdfast"),
      h("p", { class: "lead" }, "Log in to see what the system does."),
      field("Name", name),
      field("Password", password),
      h("button", { class: "main" }, "Log in"),
      wrong,
    ),
  );
  name.focus();
}

addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
});
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, select, textarea");
  if (!me || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = offered()[Number(event.key) - 1];
  if (page) location.hash = `#/${page[0]}`;
  if (event.key === "/") {
    event.preventDefault();
    main.querySelector("input")?.focus();
  }
});

onLoggedOut(() => me && enter(null));
const person = await get("me").catch(() => ({}));
enter(person.name ? person : null);
