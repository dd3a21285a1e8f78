// Calls of the service. The key is kept for this tab alone, and goes into a header, never into an address.

const KEY = "mamba-search-key";
const TENANT = "mamba-search-tenant";

export const access = {
  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  },
  get tenant() {
    return sessionStorage.getItem(TENANT) ?? "";
  },
  set(key, tenant) {
    sessionStorage.setItem(KEY, key);
    sessionStorage.setItem(TENANT, tenant);
  },
};

export class ApiError extends Error {
  constructor(status, code, message, retryAfterS) {
    super(message);
    Object.assign(this, { status, code, retryAfterS });
  }
}

export async function call(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  return response.json();
}

async function send(method, path, body, signal) {
  const headers = {};
  if (access.key) headers.authorization = `Bearer ${access.key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const options = { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" };
  let response = null;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "UNAVAILABLE", "The service does not answer. Is it running, and is this machine connected?");
  }
  if (response.ok) return response;
  let said = {};
  try {
    said = (await response.json()).error;
  } catch {
    // What stands between page and service answered in words of its own.
  }
  throw new ApiError(response.status, said.code ?? "UNKNOWN", said.message ?? `The service answered ${response.status}.`, said.retry_after_s);
}

// Follow server-sent events. The browser's own EventSource cannot send a key.
export async function follow(path, onEvent, signal) {
  const response = await send("GET", path, undefined, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (name) onEvent(name, JSON.parse(data));
    }
  }
}

export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}
