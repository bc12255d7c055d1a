// Lanes: who owns each, how far everybody is; throughput and latency as they are; does everything agree.

import { get, post } from "./call.js";
import { doing, h, heading, number, table, tag, time } from "./page.js";

const KEPT = 90;
const EVERY_MS = 2000;

// A line of Prometheus' text: name, labels, value.
function parse(line) {
  const match = /^(\w+)(?:\{(.*)\})?\s+(\S+)/.exec(line);
  if (!match) return null;
  const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
  return { name: match[1], labels, value: Number(match[3]) };
}

const sum = (samples, name, fits = () => true) =>
  samples.filter((sample) => sample.name === name && fits(sample.labels)).reduce((total, sample) => total + sample.value, 0);

// The upper bound of the bucket in which the share of the new requests lies, in milliseconds.
function quantile(now, before, share) {
  const buckets = new Map();
  const add = (samples, sign) => {
    for (const { name, labels, value } of samples)
      if (name === "holdfast_http_request_seconds_bucket" && labels.call === "reserve") buckets.set(Number(labels.le.replace("+Inf", "Infinity")), (buckets.get(Number(labels.le.replace("+Inf", "Infinity"))) ?? 0) + sign * value);
  };
  add(now, 1);
  add(before, -1);
  const sorted = [...buckets].sort(([a], [b]) => a - b);
  const all = sorted.at(-1)?.[1] ?? 0;
  if (all <= 0) return 0;
  return 1000 * (sorted.find(([, count]) => count >= share * all)?.[0] ?? 0);
}

function plot(title, unit) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "plot");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  svg.append(line);
  const last = h("b", {}, "–");
  const values = [];
  const add = (value) => {
    const known = Number.isFinite(value) ? value : 0;
    values.push(known, ...(values.length ? [] : [known])); // One point alone is no line.
    if (values.length > KEPT) values.shift();
    const most = Math.max(...values, 1e-9);
    line.setAttribute("points", values.map((value, index) => `${KEPT - values.length + index},${96 - (92 * value) / most}`).join(" "));
    last.textContent = `${value < 10 ? value.toFixed(1) : number(Math.round(value))} ${unit}`;
  };
  return { figure: h("figure", {}, h("figcaption", {}, title, last), svg), add };
}

export async function lanes(room, { onLeave }) {
  room.append(...heading("Lanes", "Each lane has one owner at a time. Lag counts what is not decided yet, and what is not in Postgres yet."));
  const owners = h("div");
  const [rate, reserve, p99] = [plot("Requests", "a second"), plot("Reserve, median at most", "ms"), plot("Reserve, 99th percentile at most", "ms")];
  const verified = h("div");
  const read = async () => {
    const rows = await get("lanes");
    owners.replaceChildren(
      table("Read from the log just now", [
        { title: "Lane", number: true, cell: (row) => String(row.lane) },
        { title: "Owner", wide: true, cell: (row) => row.owner },
        { title: "Epoch", number: true, cell: (row) => number(row.epoch) },
        { title: "Decided", number: true, cell: (row) => number(row.last_decided) },
        { title: "Not decided", number: true, cell: (row) => number(row.commands_lag) },
        { title: "In Postgres", number: true, cell: (row) => number(row.checkpoint) },
        { title: "Not in Postgres", number: true, cell: (row) => number(row.events_lag) },
        { title: "Redis", cell: (row) => (row.redis ? (row.redis.building ? "is rebuilt" : "whole") : "does not have it") },
      ], rows.lanes ?? rows),
    );
  };
  const tell = (last) => {
    if (!last) return verified.replaceChildren(h("p", { class: "soft" }, "Nobody has asked since the console started."));
    const { agrees, at, by, report } = last;
    verified.replaceChildren(
      h("p", {}, tag(agrees ? "agree" : "differ"), ` ${time(at)}, asked by ${by}`),
      ...(report.differences ?? []).slice(0, 20).map((difference) => h("p", {}, `Lane ${difference.lane}, ${difference.place}: ${difference.what}`)),
    );
  };
  const verify = doing(async () => tell(await post("verify")));
  room.append(
    owners,
    h("p", {}, h("button", { onclick: doing(read) }, "Read again")),
    h("h2", {}, "Now"),
    h("div", { class: "plots" }, rate.figure, reserve.figure, p99.figure),
    h("h2", {}, "Does everything agree?"),
    h("p", { class: "soft" }, "Folds the whole log and compares it with Redis and Postgres, per SKU and per hold. It changes nothing."),
    verified,
    h("button", { class: "main", onclick: verify }, "Verify now"),
  );

  let before = null;
  const look = async () => {
    const { at, lines } = await get("metrics");
    const samples = lines.map(parse).filter(Boolean);
    const now = { at, samples, total: sum(samples, "holdfast_http_requests_total") };
    if (before) {
      rate.add((1000 * (now.total - before.total)) / (now.at - before.at));
      reserve.add(quantile(samples, before.samples, 0.5));
      p99.add(quantile(samples, before.samples, 0.99));
    }
    before = now;
  };
  const looking = setInterval(() => look().catch(() => {}), EVERY_MS);
  onLeave(() => clearInterval(looking));
  await Promise.all([read(), look(), get("verify").then(tell)]);
}
