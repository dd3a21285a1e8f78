// A passage in its document: its neighbours are loaded around it, and more of them as one scrolls.

import { ApiError, access, call, query } from "./api.js";
import { button, byId, element, notice, place } from "./elements.js";
import { marked, unwrapped } from "./marking.js";

const AROUND = 6;
const PAGE = 20;
const CHUNK_FIELDS = "chunks.chunk_index,chunks.char_start,chunks.char_end,chunks.headings,chunks.text,chunk_count,title,source";

let opened = null; // {documentId, first, last, count, stems, controller, back}

export const isOpen = () => opened !== null;

export function emptyReader() {
  byId("reader").replaceChildren(
    element("p", { class: "reader-empty muted" }, "Choose a passage to read it in its document."),
  );
}

// `hit` is the passage, `stems` what of it answers the query, `back` the element that was left for it.
export async function openReader(hit, title, stems, back, isCode) {
  opened?.controller.abort();
  const state = { documentId: hit.document_id, hit, stems, controller: new AbortController(), back, isCode, loading: false };
  opened = state;
  for (const other of document.querySelectorAll(".hit[aria-current]")) other.removeAttribute("aria-current");
  back.setAttribute("aria-current", "true");
  const body = element("div", { class: isCode ? "reader-body code" : "reader-body", tabindex: "0", role: "document", "aria-busy": "true" });
  const where = element("p", { class: "where" }, element("span", { class: "id" }, hit.document_id));
  const head = element(
    "header",
    {},
    element("div", {}, element("h2", {}, title), where),
    element("button", { type: "button", class: "close", "aria-label": "Close", onclick: closeReader }, "×"),
  );
  byId("reader").replaceChildren(head, body);
  byId("reader").classList.add("open");
  document.body.classList.add("reading");
  body.focus({ preventScroll: true });
  body.append(chunkElement(state, hit, true));
  try {
    const first = Math.max(hit.chunk_index - AROUND, 0);
    const answer = await read(state, first, hit.chunk_index + AROUND - first + 1);
    if (opened !== state) return;
    state.count = answer.chunk_count;
    if (answer.source && answer.source !== hit.document_id) where.append(place(answer.source));
    show(state, body, answer.chunks);
  } catch (error) {
    if (error.name !== "AbortError" && opened === state) body.prepend(failure(error, () => openReader(hit, title, stems, back, isCode)));
  } finally {
    body.setAttribute("aria-busy", "false");
  }
}

export function closeReader() {
  if (!opened) return;
  const { back, controller } = opened;
  controller.abort();
  opened = null;
  byId("reader").classList.remove("open");
  document.body.classList.remove("reading");
  back.removeAttribute("aria-current");
  emptyReader();
  (back.isConnected ? back : byId("query")).focus();
}

function read(state, first, size) {
  const parameters = query({ tenant: access.tenant, chunk_index_first: first, page_size: size, read_mask: CHUNK_FIELDS });
  return call("GET", `v1/documents/${encodeURIComponent(state.documentId)}/chunks${parameters}`, undefined, state.controller.signal);
}

function show(state, body, chunks) {
  const passage = chunks.find((chunk) => chunk.chunk_index === state.hit.chunk_index);
  if (!passage) {
    body.prepend(element("p", { class: "muted" }, "The document has changed since it was found; this is the passage as it was."));
    return;
  }
  [state.first, state.last] = [chunks[0].chunk_index, chunks.at(-1).chunk_index];
  state.chunks = new Map(chunks.map((chunk) => [chunk.chunk_index, chunk]));
  state.earlier = button("Earlier", () => extend(state, body, -1));
  state.later = button("Later", () => extend(state, body, 1));
  state.text = element("div", { class: "text" });
  body.replaceChildren(state.earlier, state.text, state.later);
  render(state);
  const target = body.querySelector(".passage");
  body.scrollTop = target.offsetTop - Math.max((body.clientHeight - target.offsetHeight) / 3, 12);
  body.addEventListener("scroll", () => {
    if (body.scrollTop < 160) extend(state, body, -1);
    if (body.scrollHeight - body.scrollTop - body.clientHeight < 160) extend(state, body, 1);
  });
}

async function extend(state, body, direction) {
  if (state.loading || (direction < 0 ? state.first === 0 : state.last >= state.count - 1)) return;
  state.loading = true;
  try {
    const first = direction < 0 ? Math.max(state.first - PAGE, 0) : state.last + 1;
    const size = direction < 0 ? state.first - first : PAGE;
    const { chunks } = await read(state, first, size);
    if (opened !== state || !chunks.length) return;
    for (const chunk of chunks) state.chunks.set(chunk.chunk_index, chunk);
    const before = body.scrollHeight;
    state.first = Math.min(state.first, chunks[0].chunk_index);
    state.last = Math.max(state.last, chunks.at(-1).chunk_index);
    const top = body.scrollTop;
    render(state);
    // What is read stays where it is when something comes above it.
    if (direction < 0) body.scrollTop = top + body.scrollHeight - before;
  } catch (error) {
    if (error.name !== "AbortError" && opened === state) {
      const tell = failure(error, () => {
        tell.remove();
        extend(state, body, direction);
      });
      if (direction < 0) body.prepend(tell);
      else body.append(tell);
    }
  } finally {
    state.loading = false;
  }
}

function render(state) {
  state.earlier.hidden = state.first === 0;
  state.later.hidden = state.last >= state.count - 1;
  const parts = [];
  let before = null;
  for (let index = state.first; index <= state.last; index += 1) {
    const chunk = state.chunks.get(index);
    if (!chunk) continue;
    const path = chunk.headings.join(" › ");
    if (path && path !== before?.headings.join(" › ")) parts.push(element("h3", {}, path));
    parts.push(chunkElement(state, chunk, index === state.hit.chunk_index, before));
    before = chunk;
  }
  state.text.replaceChildren(...parts);
}

function chunkElement(state, chunk, isPassage, before = null) {
  // Chunks may repeat the end of the one before; places are counted in code points.
  const repeated = before ? Math.max(before.char_end - chunk.char_start, 0) : 0;
  const kept = repeated ? [...chunk.text].slice(repeated).join("") : chunk.text;
  const text = state.isCode ? kept : unwrapped(kept);
  const joined = before && chunk.char_start - before.char_end <= 1;
  const kind = [isPassage ? "passage" : "", joined ? "joined" : ""].filter(Boolean).join(" ");
  return element("p", { class: kind || null, "data-chunk": chunk.chunk_index }, ...(isPassage ? marked(text, state.stems) : [text]));
}

function failure(error, again) {
  const said = error instanceof ApiError ? error.message : "The page failed to read the answer.";
  return notice("error", "The document cannot be read now", said, button("Try again", again));
}
