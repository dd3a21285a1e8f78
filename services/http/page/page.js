// The page: searching, views, keys, access.

import { ApiError, access, call } from "./api.js";
import { button, byId, count, notice } from "./elements.js";
import { currentFilter, setUpFilters } from "./filters.js";
import { enterJobs, leaveJobs, setUpJobs } from "./jobs.js";
import { stemsOf } from "./marking.js";
import { closeReader, emptyReader, isOpen, openReader } from "./reader.js";
import { moveFocus, showGroups } from "./results.js";

const DOCUMENTS = 10;
const CHUNKS_OF_EACH = 3;
const READY_PERIOD_MS = 10000;

let searching = null; // AbortController of the search under way
let last = null; // the request that the results on the page answer
let nextPage = "";

async function search({ append = false } = {}) {
  const query = byId("query").value.trim();
  if (!query) {
    byId("query").focus();
    return;
  }
  searching?.abort();
  const controller = new AbortController();
  searching = controller;
  if (!append) {
    if (isOpen()) closeReader();
    last = {
      query,
      mode: document.querySelector("input[name=mode]:checked").value,
      top_k: DOCUMENTS,
      tenant: access.tenant,
      group_by_document: { chunks_max: CHUNKS_OF_EACH },
      explain: true,
    };
    const filter = currentFilter();
    if (filter) last.filter = filter;
  }
  document.body.classList.add("busy");
  byId("results").setAttribute("aria-busy", "true");
  const started = performance.now();
  try {
    const answer = await call("POST", "v1/search", { ...last, page_token: append ? nextPage : "" }, controller.signal);
    if (searching !== controller) return;
    byId("message").replaceChildren();
    showGroups(answer.groups, stemsOf(last.query), openReader, { append });
    nextPage = answer.next_page_token;
    byId("more").hidden = !nextPage;
    const found = document.querySelectorAll("#results > .group").length;
    byId("summary").textContent = found ? `${count(found, "document")}${nextPage ? ", more below" : ""} · ${Math.round(performance.now() - started)} ms` : "";
    if (!found) byId("message").replaceChildren(nothingFound());
  } catch (error) {
    if (error.name === "AbortError" || searching !== controller) return;
    byId("summary").textContent = "";
    if (!append) clearResults();
    byId("message").replaceChildren(explain(error, "That search did not work", () => search({ append })));
  } finally {
    if (searching === controller) {
      searching = null;
      document.body.classList.remove("busy");
      byId("results").removeAttribute("aria-busy");
    }
  }
}

function clearResults() {
  byId("results").replaceChildren();
  byId("more").hidden = true;
}

function nothingFound() {
  return last.filter
    ? notice("empty", "Nothing found with these filters", "Remove one, or check that its field and value are those of the documents.")
    : notice("empty", "Nothing found", "Try other words, or ingest documents: “mamba-search ingest FOLDER”.");
}

function welcome() {
  return notice(
    "empty",
    "Search in long documents",
    "Ask a question, or name what you look for. Passages that answer are grouped by document; open one to read it where it stands.",
  );
}

// An error in plain words, with what can be done about it.
function explain(error, title, again) {
  if (!(error instanceof ApiError)) {
    console.error(error);
    return notice("error", title, "The page failed to read the answer; reload it.");
  }
  if (error.status === 401) return notice("error", "A key is needed", error.message, button("Give a key", openAccess, "primary"));
  if (error.status === 403) return notice("error", "Not with this key", error.message, button("Give another key", openAccess));
  const wait = error.retryAfterS ? ` Try again in ${Math.ceil(error.retryAfterS)} s.` : "";
  const words = error.message.includes("try again in") ? error.message : error.message + wait;
  return notice("error", title, words, ...(again ? [button("Try again", again)] : []));
}

function openAccess() {
  byId("access-key").value = access.key;
  byId("access-tenant").value = access.tenant;
  byId("access").showModal();
}

function showView() {
  const jobs = location.hash === "#jobs";
  byId("view-search").hidden = jobs;
  byId("view-jobs").hidden = !jobs;
  for (const [id, current] of [["to-search", !jobs], ["to-jobs", jobs]]) {
    if (current) byId(id).setAttribute("aria-current", "page");
    else byId(id).removeAttribute("aria-current");
  }
  if (jobs) {
    if (isOpen()) closeReader();
    enterJobs();
  } else {
    leaveJobs();
    byId("query").focus({ preventScroll: true });
  }
}

async function checkReady() {
  let ready = false;
  try {
    ready = (await fetch("readyz", { cache: "no-store" })).ok;
    byId("status-text").textContent = ready ? "Ready" : "Not ready";
  } catch {
    byId("status-text").textContent = "Away";
  }
  byId("status").classList.toggle("ready", ready);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("access").open) return;
  if (event.key === "Escape" && isOpen()) {
    event.preventDefault();
    closeReader();
    return;
  }
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "ArrowDown" && event.target === byId("query")) {
    event.preventDefault();
    moveFocus(1);
    return;
  }
  if (typing) return;
  if (event.key === "/") {
    event.preventDefault();
    if (location.hash === "#jobs") location.hash = "#search";
    byId("query").focus();
    byId("query").select();
    return;
  }
  const inReader = event.target.closest(".reader");
  const step = { j: 1, k: -1, ...(inReader ? {} : { ArrowDown: 1, ArrowUp: -1 }) }[event.key];
  if (step && !byId("view-search").hidden && !inReader) {
    event.preventDefault();
    moveFocus(step);
  }
}

function setUp() {
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  const again = () => last && search();
  byId("modes").addEventListener("change", again);
  byId("more").addEventListener("click", () => search({ append: true }));
  setUpFilters(again);
  setUpJobs(explain);
  byId("open-access").addEventListener("click", openAccess);
  byId("access-cancel").addEventListener("click", () => byId("access").close());
  byId("access-form").addEventListener("submit", () => {
    access.set(byId("access-key").value.trim(), byId("access-tenant").value.trim());
    byId("message").replaceChildren();
    if (location.hash === "#jobs") enterJobs();
    else again();
  });
  addEventListener("hashchange", showView);
  addEventListener("keydown", onKey);
  emptyReader();
  byId("message").replaceChildren(welcome());
  showView();
  checkReady();
  setInterval(checkReady, READY_PERIOD_MS);
}

setUp();
