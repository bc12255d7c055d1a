// Elements, tables, times: what every page is made of. Text is always text, never markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const heading = (title, lead) => [h("h1", {}, title), h("p", { class: "lead" }, lead)];
export const section = (title, lead) => [h("h2", {}, title), lead && h("p", { class: "soft" }, lead)].filter(Boolean);

let saying;
export function say(text) {
  const said = document.getElementById("said");
  clearTimeout(saying);
  said.replaceChildren(h("p", {}, text));
  saying = setTimeout(() => said.replaceChildren(), 6000);
}

// Runs what a button or a form asks for; says why it did not work.
export function doing(action) {
  return async (event) => {
    event?.preventDefault();
    const button = event?.submitter ?? event?.currentTarget;
    const isButton = button instanceof HTMLButtonElement;
    if (isButton) button.disabled = true;
    try {
      await action(event);
    } catch (refused) {
      say(refused.message);
    } finally {
      if (isButton) button.disabled = false;
    }
  };
}

// `empty`: what is said where there are no rows.
export function table(caption, columns, rows, empty = "Nothing here.") {
  const head = columns.map(({ title, number }) => h("th", { scope: "col", class: number && "number" }, title));
  const cells = (row) =>
    columns.map(({ cell, number, wide }) => h("td", { class: (number && "number") || (wide && "wide") }, cell(row) ?? "–"));
  const body = rows.length
    ? rows.map((row) => h("tr", {}, cells(row)))
    : [h("tr", {}, h("td", { colspan: columns.length, class: "empty" }, empty))];
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}

export const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
export const json = (value) => h("pre", { tabindex: "0", class: "json" }, JSON.stringify(value, null, 2));
// An amount in the currency's smallest coin.
export function money(amount, currency) {
  const format = new Intl.NumberFormat("en", { style: "currency", currency });
  return format.format(amount / 10 ** format.resolvedOptions().maximumFractionDigits);
}
export const tag = (word) => h("span", { class: `tag ${word}` }, word);
export const number = (value) => (value === undefined || value === null ? "–" : value.toLocaleString("en"));
export const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
// UTC, as everywhere: today's to the millisecond, an older one to the minute, whole when it is pointed at.
export function time(at) {
  if (!at) return "–";
  const whole = new Date(at).toISOString();
  const [day, clock] = whole.slice(0, -1).split("T");
  const isToday = day === new Date().toISOString().slice(0, 10);
  return h("time", { datetime: whole, title: `${day} ${clock} UTC` }, isToday ? clock : `${day} ${clock.slice(0, 5)}`);
}
// `width`: short for a number, middle for a name; without one it takes the room there is.
export const field = (label, input, width) => h("label", { class: width }, label, input);
export const link = (to, text) => h("a", { href: `#/${to}` }, text);
