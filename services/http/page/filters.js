// A small builder of filters: rows of field, operator and value, all of which must hold.

import { button, byId, element } from "./elements.js";

const FIELDS = ["title", "source", "document_id", "ingested_at"];
const OPERATORS = {
  is: "is",
  is_not: "is not",
  at_least: "at least",
  at_most: "at most",
  above: "above",
  below: "below",
  prefix: "id begins with",
  exists: "is there",
  missing: "is not there",
};
const WITHOUT_VALUE = new Set(["exists", "missing"]);
const NUMBER = /^[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?$/i;
const DATE = /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?)?$/;
const known = new Set(FIELDS);

export function setUpFilters(onChange) {
  byId("add-filter").addEventListener("click", () => addRow(onChange));
  offer();
}

// Names of fields that documents were seen to have.
export function learnFields(metadata) {
  const before = known.size;
  for (const name of Object.keys(metadata ?? {})) if (known.size < 200) known.add(`metadata.${name}`);
  if (known.size > before) offer();
}

function offer() {
  byId("filter-fields").replaceChildren(...[...known].map((name) => element("option", { value: name })));
}

function addRow(onChange) {
  const field = element("input", { class: "field", list: "filter-fields", placeholder: "metadata.year", "aria-label": "Field", maxlength: 80, spellcheck: "false" });
  const operator = element("select", { class: "operator", "aria-label": "Condition" });
  for (const [value, label] of Object.entries(OPERATORS)) operator.append(element("option", { value }, label));
  const value = element("input", { class: "value", placeholder: "value", "aria-label": "Value", maxlength: 1024, spellcheck: "false" });
  const remove = button("Remove", () => {
    row.remove();
    byId("add-filter").focus();
    onChange();
  });
  const row = element("div", { class: "filter-row" }, field, operator, value, remove);
  operator.addEventListener("change", () => {
    field.disabled = operator.value === "prefix";
    if (field.disabled) field.value = "document_id";
    value.disabled = WITHOUT_VALUE.has(operator.value);
  });
  row.addEventListener("change", onChange);
  byId("filters").append(row);
  field.focus();
}

// The filter that the rows say; undefined where they say nothing yet.
export function currentFilter() {
  const parts = [...document.querySelectorAll(".filter-row")].map(condition).filter(Boolean);
  return parts.length > 1 ? { all_of: { filters: parts } } : parts[0];
}

function condition(row) {
  const field = row.querySelector(".field").value.trim();
  const operator = row.querySelector(".operator").value;
  const value = row.querySelector(".value").value.trim();
  if (!field || (!value && !WITHOUT_VALUE.has(operator))) return undefined;
  switch (operator) {
    case "exists":
      return { exists: field };
    case "missing":
      return { negated: { exists: field } };
    case "prefix":
      return { document_id_prefix: value };
    case "is":
      return equals(field, value);
    case "is_not":
      return { negated: equals(field, value) };
    default:
      return { range: { field, [operator]: readings(value)[0] } };
  }
}

// What was typed may be a text or something else: whichever the field holds.
function equals(field, value) {
  const options = readings(value).map((reading) => ({ equals: { field, value: reading } }));
  return options.length > 1 ? { any_of: { filters: options } } : options[0];
}

function readings(value) {
  const quoted = /^"(.*)"$/.exec(value);
  if (quoted) return [{ text: quoted[1] }];
  const text = { text: value };
  if (value === "true" || value === "false") return [{ truth: value === "true" }, text];
  if (NUMBER.test(value)) {
    const number = Number(value);
    return [Number.isSafeInteger(number) && !/[.e]/i.test(value) ? { integer: number } : { number }, text];
  }
  const time = DATE.test(value) ? new Date(value.length === 10 ? `${value}T00:00:00Z` : value) : null;
  return time && !Number.isNaN(time.getTime()) ? [{ time: time.toISOString() }, text] : [text];
}
