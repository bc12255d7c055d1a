// The audit: what people did here, newest first.

import { get } from "./call.js";
import { h, heading, table, tag, time } from "./page.js";

export async function audit(room) {
  room.append(...heading("Audit", "Written in the transaction that does it, or before a command is sent and completed afterwards. Changes of stock carry the same name in the log."));
  const rows = await get("audit");
  room.append(
    table("The last actions", [
      { title: "When", cell: (row) => time(row.at) },
      { title: "Who", cell: (row) => row.actor },
      { title: "What", cell: (row) => row.action },
      { title: "Of what", wide: true, cell: (row) => row.subject },
      { title: "Outcome", cell: (row) => tag(row.outcome ?? "unknown") },
      { title: "Asked", wide: true, cell: (row) => h("code", {}, JSON.stringify(row.detail)) },
    ], rows),
  );
}
