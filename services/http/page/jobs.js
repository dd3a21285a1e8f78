// Ingestion jobs, with live progress of those under way.

import { ApiError, access, call, follow, query } from "./api.js";
import { button, byId, count, element, notice } from "./elements.js";

// A browser keeps six connections to a service; some have to stay free for searches.
const FOLLOWED_MAX = 3;
const PAGE = 20;
const REFRESH_MS = 5000;
const FINAL = new Set(["JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"]);
const STATES = {
  JOB_STATE_QUEUED: "Queued",
  JOB_STATE_RUNNING: "Running",
  JOB_STATE_WAITING: "Waiting",
  JOB_STATE_SUCCEEDED: "Done",
  JOB_STATE_FAILED: "Failed",
  JOB_STATE_CANCELLED: "Cancelled",
};
const KINDS = { JOB_KIND_INGEST: "Ingest", JOB_KIND_REPLAY: "Replay", JOB_KIND_DELETE: "Delete" };
const STAGES = {
  INGEST_STAGE_READ: "reading",
  INGEST_STAGE_CHUNK: "cutting",
  INGEST_STAGE_ENCODE: "encoding",
  INGEST_STAGE_WRITE: "writing",
  INGEST_STAGE_COMMIT: "committing",
};

const shown = new Map(); // job_id to {job, row}
const followed = new Map(); // job_id to AbortController
let nextPage = "";
let timer = null;
let explain = () => {};

export function setUpJobs(explainError) {
  explain = explainError;
  byId("job-form").addEventListener("submit", startJob);
  byId("more-jobs").addEventListener("click", () => load({ append: true }));
}

export async function enterJobs() {
  await load({ append: false });
  clearInterval(timer);
  timer = setInterval(() => load({ append: false, quiet: true }), REFRESH_MS);
}

export function leaveJobs() {
  clearInterval(timer);
  for (const controller of followed.values()) controller.abort();
  followed.clear();
}

async function load({ append, quiet = false }) {
  try {
    const answer = await call("GET", `v1/jobs${query({ tenant: access.tenant, page_size: PAGE, page_token: append ? nextPage : "" })}`);
    byId("jobs-message").replaceChildren();
    const known = append || quiet ? answer.jobs.filter((job) => !shown.has(job.job_id)) : answer.jobs;
    if (!append && !quiet) {
      shown.clear();
      byId("jobs").replaceChildren();
    }
    for (const job of answer.jobs) if (shown.has(job.job_id) && !followed.has(job.job_id)) update(job);
    for (const job of known) add(job, quiet);
    if (!quiet) {
      nextPage = answer.next_page_token;
      byId("more-jobs").hidden = !nextPage;
    }
    if (!shown.size) byId("jobs-message").replaceChildren(notice("empty", "No jobs yet", "Start one above, or with “mamba-search jobs create”."));
    followThose();
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("jobs-message").replaceChildren(explain(error, "The jobs cannot be shown now", () => load({ append })));
    if (error.status === 401) leaveJobs();
  }
}

function add(job, first) {
  const row = element("li", { class: "job" });
  shown.set(job.job_id, { job, row });
  if (first) byId("jobs").prepend(row);
  else byId("jobs").append(row);
  update(job);
}

function followThose() {
  for (const { job } of shown.values()) {
    if (followed.size >= FOLLOWED_MAX) return;
    if (FINAL.has(job.state) || followed.has(job.job_id)) continue;
    const controller = new AbortController();
    followed.set(job.job_id, controller);
    const onEvent = (name, data) => name === "job" && update(data);
    follow(`v1/jobs/${encodeURIComponent(job.job_id)}/events`, onEvent, controller.signal)
      .catch(() => {}) // the list is read again in a moment, and says what is wrong
      .finally(() => followed.delete(job.job_id));
  }
}

function update(job) {
  const entry = shown.get(job.job_id);
  if (!entry) return;
  entry.job = job;
  const { row } = entry;
  const progress = job.progress ?? {};
  const state = job.state.replace("JOB_STATE_", "").toLowerCase();
  const letters = row.querySelector(".letters");
  const isFinal = FINAL.has(job.state);
  row.replaceChildren(
    element(
      "div",
      { class: "job-head" },
      element("span", { class: `badge ${state}` }, STATES[job.state] ?? job.state),
      element("span", { class: "job-what" }, `${KINDS[job.kind] ?? job.kind} ${job.sources.join(", ")}`),
      element("time", { class: "muted", datetime: job.created_at }, new Date(job.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })),
      isFinal ? null : button(job.cancel_requested ? "Cancelling" : "Cancel", () => act(job, "cancel")),
    ),
    isFinal ? "" : progressBar(progress),
    element("p", { class: "job-counts" }, told(progress)),
    job.reason ? element("p", { class: "job-reason" }, job.reason) : "",
    progress.failed ? letters ?? lettersOf(job) : "",
  );
}

function progressBar(progress) {
  const known = progress.bytes_total > 0;
  return element("progress", {
    "aria-label": "Progress",
    max: known ? progress.bytes_total : null,
    value: known ? Math.min(progress.bytes_done, progress.bytes_total) : null,
  });
}

function told(progress) {
  const parts = [count(progress.documents ?? 0, "document")];
  for (const name of ["ingested", "updated", "unchanged", "superseded", "deleted", "failed"]) {
    if (progress[name]) parts.push(`${progress[name].toLocaleString("en-GB")} ${name}`);
  }
  if (progress.chunks) parts.push(count(progress.chunks, "chunk"));
  if (progress.tokens_per_s) parts.push(`${Math.round(progress.tokens_per_s).toLocaleString("en-GB")} tokens/s`);
  if (progress.time_left) parts.push(`${duration(parseFloat(progress.time_left))} left`);
  return parts.join(" · ");
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(Math.round(seconds), 1)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function lettersOf(job) {
  const list = element("ul", {});
  const details = element("details", { class: "letters" }, element("summary", {}, "What could not be ingested"), list);
  details.addEventListener("toggle", async () => {
    if (!details.open) return;
    try {
      const answer = await call("GET", `v1/dead-letters${query({ job_id: job.job_id, tenant: access.tenant, page_size: 100 })}`);
      const items = answer.dead_letters.map((letter) =>
        element(
          "li",
          {},
          element("span", { class: "id" }, letter.document_id || letter.source),
          ` ${letter.reason} `,
          element("span", { class: "muted" }, `(${STAGES[letter.stage] ?? "ingesting"})`),
        ),
      );
      if (answer.next_page_token) items.push(element("li", { class: "muted" }, "and more: mamba-search dead-letters list"));
      items.push(element("li", {}, answer.dead_letters.length ? button("Try these again", () => act(job, "replay", {})) : "None any more."));
      list.replaceChildren(...items);
    } catch (error) {
      list.replaceChildren(element("li", {}, explain(error, "They cannot be shown now", null)));
    }
  });
  return details;
}

async function act(job, what, body) {
  try {
    const answer = await call("POST", `v1/jobs/${encodeURIComponent(job.job_id)}/${what}`, body);
    if (answer.job_id === job.job_id) update(answer);
    else await load({ append: false, quiet: true });
  } catch (error) {
    byId("jobs-message").replaceChildren(explain(error, `The job cannot be ${what === "cancel" ? "cancelled" : "replayed"}`, null));
  }
}

async function startJob(event) {
  event.preventDefault();
  const sources = byId("job-sources").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const note = byId("job-note");
  if (!sources.length) {
    note.textContent = "Name at least one source.";
    byId("job-sources").focus();
    return;
  }
  note.textContent = "";
  try {
    await call("POST", "v1/jobs", { sources, tenant: access.tenant });
    byId("job-sources").value = "";
    note.textContent = "Started.";
    await load({ append: false, quiet: true });
  } catch (error) {
    note.textContent = error instanceof ApiError ? error.message : "The page failed to read the answer.";
  }
}
