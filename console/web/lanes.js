// Lanes: who owns each, how far everybody is; throughput and latency as they are; does everything agree.

import { get, post } from "./call.js";
import { doing, h, heading, number, section, table, tag, time } from "./page.js";

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
  const area = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
  svg.append(area, line);
  const scale = h("p", { class: "most" }, " ");
  const told = (value) => (value < 10 ? value.toFixed(1) : number(Math.round(value)));
  const last = h("b", {}, "–");
  const values = [];
  const add = (value) => {
    const known = Number.isFinite(value) ? value : 0;
    values.push(known, ...(values.length ? [] : [known])); // One point alone is no line.
    if (values.length > KEPT) values.shift();
    const most = Math.max(...values, 1e-9);
    const points = values.map((value, index) => `${KEPT - values.length + index},${98 - (94 * value) / most}`).join(" ");
    line.setAttribute("points", points);
    area.setAttribute("points", `${KEPT - values.length},100 ${points} ${KEPT - 1},100`);
    last.textContent = `${told(known)} ${unit}`;
    scale.textContent = `at most ${told(Math.max(...values))} in the last ${Math.round((values.length * EVERY_MS) / 1000)} s`;
  };
  return { figure: h("figure", {}, h("figcaption", {}, title, last), svg, scale), add };
}

export async function lanes(room, { onLeave }) {
  room.append(...heading("Lanes", "Each lane has one owner at a time. Lag counts what is not decided yet, and what is not in Postgres yet."));
  const owners = h("div");
  const [rate, decided] = [plot("Requests", "a second"), plot("Decisions", "a second")];
  const [reserve, p99] = [plot("Reserve, half within", "ms"), plot("Reserve, 99 % within", "ms")];
  const [verified, tortured] = [h("div"), h("div")];
  const read = async () => {
    const rows = await get("lanes");
    owners.replaceChildren(
      table("Read from the log just now", [
        { title: "Lane", number: true, cell: (row) => String(row.lane) },
        { title: "Owner", wide: true, cell: (row) => row.owner },
        { title: "Epoch", number: true, cell: (row) => number(row.epoch) },
        { title: "Since", cell: (row) => time(row.opened_at) },
        { title: "Last rebuild", cell: (row) => time(row.rebuilt_at) },
        { title: "Decided", number: true, cell: (row) => number(row.last_decided) },
        { title: "Not decided", number: true, cell: (row) => number(row.commands_lag) },
        { title: "In Postgres", number: true, cell: (row) => number(row.checkpoint) },
        { title: "Not in Postgres", number: true, cell: (row) => number(row.events_lag) },
        { title: "Redis", cell: (row) => (row.redis ? (row.redis.building ? "is rebuilt" : "whole") : "does not have it") },
      ], rows.lanes ?? rows),
    );
  };
  const tell = (last) => {
    if (!last) return verified.replaceChildren(h("p", { class: "empty" }, "Nobody has asked yet."));
    const { agrees, at, actor, report } = last;
    verified.replaceChildren(
      h("p", { class: "marks" }, tag(agrees ? "agree" : "differ"), h("span", {}, time(at)), h("span", {}, "asked by ", h("b", {}, actor))),
      ...(report.differences ?? []).slice(0, 20).map((difference) => h("p", {}, `Lane ${difference.lane}, ${difference.place}: ${difference.what}`)),
    );
  };
  const verify = doing(async () => tell(await post("verify")));
  const tellTorture = (last) => {
    if (!last) return tortured.replaceChildren(h("p", { class: "empty" }, "It was not run against these engines yet: ", h("code", {}, "holdfast torture")));
    const { agrees, at, report } = last;
    const kinds = Map.groupBy ? [...Map.groupBy(report.faults ?? [], ({ fault }) => fault)] : [];
    tortured.replaceChildren(
      h("p", { class: "marks" }, tag(agrees ? "kept" : "broken"), h("span", {}, time(at)), h("span", {}, "seed ", h("b", {}, String(report.seed))), h("span", {}, h("b", {}, number(report.requests)), " requests, ", h("b", {}, number(report.decided)), " decided")),
      table("What was done to it", [
        { title: "Fault", cell: ([fault]) => (typeof fault === "string" ? fault : JSON.stringify(fault)) },
        { title: "Times", number: true, cell: ([, times]) => number(times.length) },
        { title: "Longest pause", number: true, cell: ([, times]) => `${number(Math.max(...times.map((time) => time.pause_ms)))} ms` },
      ], kinds),
      ...(report.violations ?? []).map((violation) => h("p", { class: "bad" }, typeof violation === "string" ? violation : (violation.what ?? JSON.stringify(violation)))),
    );
  };
  room.append(
    owners,
    h("p", {}, h("button", { onclick: doing(read) }, "Read again")),
    ...section("Now"),
    h("div", { class: "plots" }, rate.figure, decided.figure, reserve.figure, p99.figure),
    ...section("Does everything agree?", "Folds the whole log and compares it with Redis and Postgres, per SKU and per hold. It changes nothing in them."),
    verified,
    h("p", {}, h("button", { class: "main", onclick: verify }, "Verify now")),
    ...section("Was it broken on purpose?", "The last run of torture: faults under load, and what the clients were told laid beside the log."),
    tortured,
  );

  let before = null;
  const look = async () => {
    const { at, lines } = await get("metrics");
    const samples = lines.map(parse).filter(Boolean);
    const now = { at, samples, total: sum(samples, "holdfast_http_requests_total"), decided: sum(samples, "holdfast_reserver_decisions_total") };
    if (before) {
      rate.add((1000 * (now.total - before.total)) / (now.at - before.at));
      decided.add((1000 * (now.decided - before.decided)) / (now.at - before.at));
      reserve.add(quantile(samples, before.samples, 0.5));
      p99.add(quantile(samples, before.samples, 0.99));
    }
    before = now;
  };
  const looking = setInterval(() => look().catch(() => {}), EVERY_MS);
  onLeave(() => clearInterval(looking));
  const checks = async () => {
    const { verify, torture } = await get("checks");
    tell(verify);
    tellTorture(torture);
  };
  await Promise.all([read(), look(), checks()]);
}
