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

// A command: under a key of its own, so that a retry counts once, and waited for.
export const command = (method, path, body) =>
  call(method, `v1/${path}`, body, { "idempotency-key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, prefer: "wait=20" });
