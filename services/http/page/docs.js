// The HTTP API, read from openapi.json: each method with its fields, and an example that can be pasted into a shell.

import { byId, element, notice } from "./elements.js";

const DEPTH_MAX = 3;

const name = (schema) => schema?.$ref?.split("/").pop();
let schemas = {};

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return name(schema);
  if (schema.anyOf) return schema.anyOf.filter((part) => part.type !== "null").map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.enum) return schema.enum.join(", ");
  if (schema.const) return schema.const;
  if (schema.additionalProperties) return `map to ${typeOf(schema.additionalProperties)}`;
  return schema.format ? `${schema.type} (${schema.format})` : schema.type ?? "any";
}

function inner(schema) {
  const found = schema?.anyOf?.find((part) => part.$ref || part.items?.$ref) ?? schema;
  return schemas[name(found) ?? name(found?.items) ?? name(found?.additionalProperties)];
}

function fields(schema, depth) {
  const properties = Object.entries(schema?.properties ?? {});
  if (!properties.length) return null;
  return element(
    "dl",
    { class: "fields" },
    ...properties.flatMap(([field, described]) => {
      const below = depth < DEPTH_MAX && inner(described) !== schema ? inner(described) : null;
      return [
        element("dt", {}, element("code", {}, field), element("span", { class: "muted" }, ` ${typeOf(described)}`)),
        element(
          "dd",
          {},
          described.description ?? "",
          below?.properties ? element("details", {}, element("summary", {}, "its fields"), fields(below, depth + 1)) : null,
        ),
      ];
    }),
  );
}

function parameters(operation) {
  const listed = operation.parameters ?? [];
  if (!listed.length) return null;
  const properties = Object.fromEntries(listed.map((one) => [one.name, { ...one.schema, description: one.description ?? one.schema.description ?? `In the ${one.in}.` }]));
  return fields({ properties }, DEPTH_MAX);
}

function example(method, path, body) {
  const lines = [`curl ${location.origin}${path}`];
  if (method === "post") {
    lines[0] += body ? " -H 'content-type: application/json'" : " -X POST";
    if (body?.properties?.query) lines.push(`  -d '{"query": "How much of the electricity is geothermal?"}'`);
  }
  return element("pre", { tabindex: "0" }, lines.join(" \\\n"));
}

function operationElement(method, path, operation) {
  const body = inner(operation.requestBody?.content?.["application/json"]?.schema);
  const answer = inner(Object.entries(operation.responses ?? {}).find(([status]) => status.startsWith("2"))?.[1].content?.["application/json"]?.schema);
  return element(
    "section",
    { class: "operation", id: operation.operationId },
    element("h2", {}, element("span", { class: `method ${method}` }, method.toUpperCase()), element("code", {}, path)),
    element("p", {}, operation.description ?? operation.summary ?? ""),
    example(method, path, body),
    parameters(operation),
    body ? element("details", { open: true }, element("summary", {}, "Request"), fields(body, 0)) : null,
    answer ? element("details", {}, element("summary", {}, "Answer"), fields(answer, 0)) : null,
  );
}

async function show() {
  const api = await (await fetch("openapi.json")).json();
  schemas = api.components?.schemas ?? {};
  const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => operationElement(method, path, operation)),
  );
  byId("docs").replaceChildren(element("h1", {}, "HTTP API"), element("p", { class: "preamble" }, api.info.description), ...operations);
}

show().catch(() => byId("docs").replaceChildren(notice("error", "openapi.json cannot be read", "Is the service running?")));
