// Dead letters: records that could not be read; look, correct a copy, and send it where it belongs.

import { get, post } from "./call.js";
import { doing, h, heading, json, link, number, say, section, table, tag, time } from "./page.js";

const where = (row) => h("code", {}, `${row.topic}[${row.partition}]@${row.record_offset}`);

export async function letters(room, context) {
  if (context.argument) return one(room, context);
  room.append(...heading("Dead letters", "Records that could not be read: their bytes are kept, their commands refused as malformed."));
  const rows = await get("dead-letters");
  room.append(
    table(rows.length === 1 ? "One dead letter" : `${rows.length} dead letters`, [
      { title: "Letter", number: true, cell: (row) => link(`letters/${row.offset}`, String(row.offset)) },
      { title: "Buried", cell: (row) => time(row.buried_at) },
      { title: "Was", cell: where },
      { title: "Bytes", number: true, cell: (row) => number(row.bytes) },
      { title: "Why", wide: true, cell: (row) => row.message },
      { title: "Sent", cell: (row) => row.sent && tag(row.sent.corrected ? "corrected" : "sent") },
    ], rows, "Every record could be read. Nothing was buried."),
  );
}

async function one(room, context) {
  const { mayAct, argument: offset } = context;
  const letter = await get(`dead-letters/${offset}`);
  room.append(
    ...heading(`Dead letter ${offset}`, letter.message || "Why it was buried is not known."),
    h("p", { class: "marks" }, where(letter), h("span", {}, "buried ", h("b", {}, time(letter.buried_at))), h("span", {}, "by the ", h("b", {}, letter.stage || "–"))),
  );
  const again = async (said) => {
    say("Sent: its lane counts it once, however often it is sent.");
    room.replaceChildren();
    await one(room, context);
    room.append(h("pre", { tabindex: "0", id: "sent" }, said.text));
  };
  const send = (body) => async () => again(await post(`dead-letters/${offset}/send`, body()));
  if (letter.sent) {
    room.append(
      h("p", { class: "note" }, tag(letter.sent.corrected ? "corrected" : "sent"), ` by ${letter.sent.actor}, `, time(letter.sent.at), ". Sending it again, in the same form, changes nothing."),
      letter.sent.corrected ? json(JSON.parse(letter.sent.corrected)) : "",
    );
  }
  room.append(
    ...section("What it means", letter.reads_as ? `It can be read by now: ${letter.reads_as}.` : `It still cannot be read: ${letter.still_unreadable}`),
    ...(letter.reads_as || letter.sent || !mayAct ? [json(letter.draft.command)] : []),
  );
  if (mayAct && letter.reads_as && !letter.sent?.corrected) room.append(h("p", {}, h("button", { class: "main", onclick: doing(send(() => ({}))) }, "Send it where it belongs")));
  if (mayAct && !letter.sent) room.append(...correcting(letter, send));
  room.append(
    ...section("As it was buried"),
    table("Headers", [
      { title: "Name", cell: ([name]) => h("code", {}, name) },
      { title: "Value", wide: true, cell: ([, value]) => value },
    ], [...(letter.key === null ? [] : [["key", letter.key]]), ...letter.headers]),
    letter.dump ? h("pre", { tabindex: "0", "aria-label": "Bytes" }, letter.dump) : h("p", { class: "soft" }, "It has no value."),
  );
}

// A copy to correct: the letter stays as it is.
function correcting(letter, send) {
  const text = h("textarea", { id: "copy", spellcheck: "false", "aria-label": "Corrected copy, as JSON" });
  text.value = JSON.stringify(letter.draft.command, null, 2);
  text.rows = Math.max(8, text.value.split("\n").length + 1);
  const copy = () => {
    try {
      return { corrected: JSON.parse(text.value) };
    } catch (wrong) {
      throw new Error(`The copy is no JSON: ${wrong.message}`);
    }
  };
  return [
    ...section("Correct a copy", `Made of ${letter.draft.made_of}. The letter stays as it was buried; the copy names it as its source, and a change of stock carries your name.`),
    h("form", { class: "stack", id: "correct", onsubmit: doing((event) => send(copy)(event)) }, text, h("button", { class: letter.reads_as ? "" : "main" }, "Send the corrected copy")),
  ];
}
