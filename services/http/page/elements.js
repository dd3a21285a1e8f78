// Elements of the page. Everything that comes from documents goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

// element("p", {class: "muted"}, "text", child): children are elements or texts; null and false are left out.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== false && child !== undefined && child !== ""));
  return made;
}

// A place that may be an address: a link only where it leads to the web.
export function place(text) {
  let address = null;
  try {
    address = new URL(text);
  } catch {
    return element("span", {}, text);
  }
  if (address.protocol !== "https:" && address.protocol !== "http:") return element("span", {}, text);
  return element("a", { href: address.href, rel: "noopener noreferrer", target: "_blank" }, text);
}

export function notice(kind, title, text, ...actions) {
  return element(
    "div",
    { class: `notice ${kind}`, role: kind === "error" ? "alert" : null },
    element("h2", {}, title),
    text ? element("p", {}, text) : null,
    actions.length ? element("p", { class: "actions" }, ...actions) : null,
  );
}

export const button = (label, onclick, kind = "quiet") => element("button", { type: "button", class: kind, onclick }, label);

const numbers = new Intl.NumberFormat("en-GB");
export const count = (number, one, many = `${one}s`) => `${numbers.format(number)} ${number === 1 ? one : many}`;
