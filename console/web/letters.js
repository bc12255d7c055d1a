// Dead letters: records that could not be read; look, and send one where it belongs once it can be read.

import { get, post } from "./call.js";
import { doing, h, heading, link, number, say, table, time } from "./page.js";

export async function letters(room, context) {
  if (context.argument) return one(room, context);
  room.append(...heading("Dead letters", "Records that could not be read: their bytes are kept, their commands refused as malformed."));
  const rows = await get("dead-letters");
  room.append(
    table(`${rows.length} dead letters`, [
      { title: "Offset", number: true, cell: (row) => link(`letters/${row.offset}`, String(row.offset)) },
      { title: "Buried", cell: (row) => time(row.buried_at) },
      { title: "Was", cell: (row) => h("code", {}, `${row.topic}[${row.partition}]@${row.record_offset}`) },
      { title: "Bytes", number: true, cell: (row) => number(row.bytes) },
      { title: "Why", wide: true, cell: (row) => row.message },
    ], rows),
  );
}

async function one(room, { mayAct, argument: offset }) {
  room.append(...heading(`Dead letter ${offset}`, "Where it was, why it was buried, its bytes, and what they mean if they can be read by now."));
  const { text } = await get(`dead-letters/${offset}`);
  room.append(h("pre", { tabindex: "0" }, text));
  if (!mayAct) return;
  const send = doing(async () => {
    const sent = await post(`dead-letters/${offset}/send`);
    say("Sent: it counts once, however often it is sent.");
    room.append(h("pre", { tabindex: "0", id: "sent" }, sent.text));
  });
  room.append(h("button", { class: "main", onclick: send }, "Send it where it belongs"));
}
