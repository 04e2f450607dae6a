/**
 * Requests to the service that serves this page, with the key of this tab, and its errors.
 *
 * @typedef {{method: string, path: string, json?: unknown, file?: {name: string, type: string}, stream?: boolean}} Sent
 *   what a view sent, for the code that repeats it; it never holds the key
 * @typedef {{method?: string, json?: unknown, body?: Blob, signal?: AbortSignal, onSend?: (sent: Sent) => void, fileName?: string}} Options
 */

const KEY = "ekiben-key";

/** The address of the service: that of the page without the page's own name. Behind a proxy it may have a prefix. */
export const BASE = new URL(location.pathname.replace(/\/playground(\/.*)?$/, "/"), location.origin);

/** An answer of the service that is an error: its problem document as it came. */
export class ServiceError extends Error {
  /** @param {number} status @param {any} problem @param {string} scope that the key lacks */
  constructor(status, problem, scope) {
    const error = problem?.error;
    super(problem?.detail ?? error?.message ?? (typeof error === "string" ? error : `the service answered ${status}`));
    this.status = status;
    this.code = problem?.code ?? error?.code ?? "";
    this.faults = /** @type {{pointer: string, detail: string}[]} */ (problem?.errors ?? []);
    this.scope = scope;
  }
}

/** @returns {string} */
export function readKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} key */
export function storeKey(key) {
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage is turned off: the key cannot be kept, and the service says that it is missing.
  }
}

/** @param {string} path @param {Options} options @returns {Promise<Response>} */
async function send(path, { method, json, body, signal, onSend, fileName }, stream = false) {
  const verb = method ?? (json === undefined && !body ? "GET" : "POST");
  /** @type {Record<string, string>} */
  const headers = {};
  const key = readKey();
  if (key) headers.authorization = `Bearer ${key}`;
  if (json !== undefined) headers["content-type"] = "application/json";
  else if (body) headers["content-type"] = body.type || "application/octet-stream";
  const file = body && { name: fileName ?? "picture.png", type: headers["content-type"] };
  onSend?.({ method: verb, path, json, file, stream });
  const response = await fetch(new URL(path.replace(/^\//, ""), BASE), {
    method: verb,
    headers,
    body: json === undefined ? body : JSON.stringify(json),
    signal,
    cache: "no-cache",
  }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("The service cannot be reached. Is it still running?");
  });
  if (!response.ok) throw await readError(response);
  return response;
}

/** @param {Response} response */
async function readError(response) {
  const problem = await response.json().catch(() => null);
  const scope = /scope="(\w+)"/.exec(response.headers.get("www-authenticate") ?? "")?.[1] ?? "";
  return new ServiceError(response.status, problem, scope);
}

/** @param {string} path @param {Options} [options] @returns {Promise<any>} the JSON of the answer */
export async function getJson(path, options = {}) {
  return (await send(path, options)).json();
}

/** @param {string} path @returns {Promise<string>} */
export async function getText(path) {
  return (await send(path, {})).text();
}

/** @param {string} path @returns {Promise<Blob>} */
export async function getBlob(path) {
  return (await send(path, {})).blob();
}

/**
 * The data of server-sent events, one after the other; ends with the stream.
 * @param {string} path @param {Options} options @returns {AsyncGenerator<string>}
 */
export async function* streamEvents(path, options) {
  const response = await send(path, options, true);
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const events = rest.split("\n\n");
      rest = /** @type {string} */ (events.pop());
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data:"));
        if (data.length) yield data.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** @type {Map<string, Promise<any>>} */
const details = new Map();

/**
 * What GET /models/NAME says of a version; asked once.
 * @param {{name: string, version: string}} model @returns {Promise<any>}
 */
export function describe(model) {
  const id = `${model.name}@${model.version}`;
  let known = details.get(id);
  if (!known) {
    known = getJson(`/models/${encodeURIComponent(model.name)}`);
    details.set(id, known);
    known.catch(() => details.delete(id));
  }
  return known;
}

/**
 * Runs one call at a time. Of the calls that came meanwhile only the last one follows.
 * @template {unknown[]} A @param {(...args: A) => Promise<void>} run @returns {(...args: A) => void}
 */
export function latest(run) {
  let busy = false;
  /** @type {A | null} */
  let next = null;
  /** @param {A} args */
  async function submit(...args) {
    if (busy) {
      next = args;
      return;
    }
    busy = true;
    try {
      await run(...args);
    } finally {
      busy = false;
      if (next) {
        const following = next;
        next = null;
        submit(...following);
      }
    }
  }
  return submit;
}
