// Documents that were found, with their best passages.

import { byId, element, place } from "./elements.js";
import { learnFields } from "./filters.js";
import { excerpt, marked } from "./marking.js";

const EXCERPT_LENGTH = 340;

export function showGroups(groups, stems, onOpen, { append }) {
  const made = groups.map((group) => groupElement(group, stems, onOpen));
  if (append) byId("results").append(...made);
  else byId("results").replaceChildren(...made);
}

function groupElement(group, stems, onOpen) {
  learnFields(group.metadata);
  const title = group.title || group.document_id;
  const isCode = Boolean(group.metadata.language);
  return element(
    "li",
    { class: "group" },
    element("h2", {}, ...marked(title, stems)),
    element(
      "p",
      { class: "where" },
      group.title ? element("span", { class: "id" }, group.document_id) : null,
      group.source && group.source !== group.document_id ? place(group.source) : null,
    ),
    element("ol", { class: "hits" }, ...group.hits.map((hit) => hitElement(hit, title, stems, onOpen, isCode))),
  );
}

function hitElement(hit, title, stems, onOpen, isCode) {
  const path = hit.headings.join(" › ");
  const lines = hit.line_end > hit.line_start ? `lines ${hit.line_start}–${hit.line_end}` : `line ${hit.line_start}`;
  const opener = element(
    "button",
    { type: "button", class: "hit", "aria-label": `Read in ${title}, ${lines}`, onclick: () => onOpen(hit, title, stems, opener, isCode) },
    path ? element("span", { class: "path" }, path) : null,
    element("span", { class: "excerpt" }, ...excerpt(hit.text, stems, EXCERPT_LENGTH)),
  );
  return element(
    "li",
    {},
    opener,
    element(
      "details",
      { class: "scores" },
      element("summary", {}, element("span", { class: "lines" }, lines), element("span", { class: "score", title: "Score" }, hit.score.toFixed(3))),
      scoreTable(hit),
    ),
  );
}

function scoreTable(hit) {
  const told = hit.explanation ?? {};
  const row = (name, value, rank) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, value === undefined ? "–" : value.toFixed(4)),
      element("td", { class: "muted" }, rank ? `rank ${rank}` : ""),
    );
  return element(
    "div",
    { class: "score-detail" },
    element(
      "table",
      {},
      element("caption", { class: "hidden" }, "How this passage scored"),
      element(
        "tbody",
        {},
        row("Fused", hit.score, hit.rank),
        row("Meaning (cosine)", hit.dense_score, told.dense_rank),
        row("Words (BM25)", hit.sparse_score, told.sparse_rank),
      ),
    ),
    told.summary ? element("p", { class: "muted" }, told.summary) : null,
  );
}

// Move to the next or the previous passage; the first where none has the focus.
export function moveFocus(step) {
  const hits = [...document.querySelectorAll("#results .hit")];
  if (!hits.length) return;
  const current = hits.indexOf(document.activeElement);
  const next = current < 0 ? (step > 0 ? 0 : hits.length - 1) : Math.min(Math.max(current + step, 0), hits.length - 1);
  hits[next].focus({ preventScroll: true });
  hits[next].closest("li").scrollIntoView({ block: "nearest" });
}
