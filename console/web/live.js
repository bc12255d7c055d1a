// Live stock: one WebSocket for all pages, rooms by SKU, and again when it breaks.

const watchers = new Map(); // SKU -> callbacks
const newest = new Map(); // SKU -> stock
const AGAIN_MS = 500;
let socket = null;
let pause = 250;

const send = (message) => socket?.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));

function askAgain() {
  const unknown = [...watchers.keys()].filter((sku) => !newest.has(sku));
  if (unknown.length) send({ subscribe: unknown });
}

function open() {
  if (socket || watchers.size === 0) return;
  const url = new URL("api/live", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.onopen = () => {
    pause = 250;
    send({ subscribe: [...watchers.keys()].slice(0, 100) });
  };
  socket.onmessage = ({ data }) => {
    const { stock, problem } = JSON.parse(data);
    // A SKU that is not there yet may come: ask again for what is still unknown.
    if (problem?.code === "unknown_sku") setTimeout(askAgain, AGAIN_MS);
    if (!stock) return;
    newest.set(stock.sku, stock);
    for (const tell of watchers.get(stock.sku) ?? []) tell(stock);
  };
  socket.onclose = () => {
    socket = null;
    if (watchers.size) setTimeout(open, pause);
    pause = Math.min(pause * 2, 5000);
  };
}

// Calls back with the stock now and after every change, until the returned function is called.
export function watch(sku, tell) {
  if (!watchers.has(sku)) {
    watchers.set(sku, new Set());
    send({ subscribe: [sku] });
  } else if (newest.has(sku)) tell(newest.get(sku));
  watchers.get(sku).add(tell);
  open();
  return () => {
    watchers.get(sku)?.delete(tell);
    if (watchers.get(sku)?.size) return;
    watchers.delete(sku);
    newest.delete(sku);
    send({ unsubscribe: [sku] });
    if (watchers.size === 0) socket?.close();
  };
}
