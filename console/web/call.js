// Calls of the console: JSON in and out, the page's mark on what changes something, a refusal as an exception.

let csrf = "";
let loggedOut = () => {};

export const onLoggedOut = (handler) => (loggedOut = handler);
export const setMark = (mark) => (csrf = mark);

export class Refused extends Error {
  constructor(status, problem) {
    const { title, detail } = problem;
    super([...new Set([title, detail])].filter(Boolean).join(": ") || `The server answered ${status}.`);
    this.status = status;
    this.code = problem.code;
    this.problem = problem;
  }
}

async function call(method, path, body, headers = {}) {
  let response;
  try {
    response = await fetch(`api/${path}`, {
      method,
      headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), "x-csrf": csrf, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, { detail: "The server does not answer." });
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return { status: response.status, body: answer };
  if (response.status === 401 && answer.code === "logged_out") loggedOut();
  throw new Refused(response.status, answer);
}

export const get = async (path) => (await call("GET", path)).body;
export const post = async (path, body = {}) => (await call("POST", path, body)).body;

const makeKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
const unsure = new Map(); // What was asked, and the key it was asked under, until it is decided.

// A command: waited for, and under a key that stays the same until there is a decision, so that a second click counts once.
export async function command(method, path, body) {
  const asked = JSON.stringify([method, path, body]);
  const key = unsure.get(asked) ?? makeKey();
  unsure.set(asked, key);
  try {
    const answer = await call(method, `v1/${path}`, body, { "idempotency-key": key, prefer: "wait=20" });
    if (answer.status !== 202) unsure.delete(asked);
    return answer;
  } catch (refused) {
    const isDecided = refused.status >= 400 && refused.status < 500 && refused.status !== 429 && refused.status !== 408;
    if (isDecided) unsure.delete(asked);
    throw refused;
  }
}

// What to say of a command's answer: that it is done, or that nobody knows yet.
export const told = ({ status }, done) => (status === 202 ? "Sent, and not decided yet. Asking again counts once." : done);
