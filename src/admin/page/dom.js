// Builds elements. Text is always set as text: nothing from the gateway is read as HTML.

/** Returns an element with these properties and children. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Sets the text of a node, unless it has it already: a selection in it stays. */
export function text(node, value) {
  const string = String(value);
  if (node.textContent !== string) node.textContent = string;
}

/** Sets an attribute, or removes it. */
export function attr(node, name, value) {
  if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Makes the children of `parent` those of `items`, and keeps the nodes of known keys. */
export function keyed(parent, items, key, create, update) {
  const known = new Map();
  for (const node of [...parent.children]) known.set(node.dataset.key, node);
  let at = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let node = known.get(id);
    known.delete(id);
    if (!node) {
      node = create(item);
      node.dataset.key = id;
    }
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
    update(node, item);
  }
  for (const node of known.values()) node.remove();
}

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** Returns a duration in its two largest units: `2 h 5 min`. */
export function span(ms) {
  let seconds = Math.max(0, Math.round(ms / 1000));
  const parts = [];
  for (const [size, unit] of UNITS) {
    const count = Math.floor(seconds / size);
    if (count > 0 || (unit === "s" && parts.length === 0)) parts.push(`${count} ${unit}`);
    else if (parts.length > 0) break;
    seconds -= count * size;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** Returns the latency of so many seconds. */
export function latency(seconds) {
  return seconds < 1 ? `${Number((seconds * 1000).toPrecision(2))} ms` : `${Number(seconds.toPrecision(2))} s`;
}

const NUMBER = new Intl.NumberFormat("en");

/** Returns a number with its thousands apart. */
export const number = (value) => NUMBER.format(value);

/** Returns calls per second. */
export function rate(perSecond) {
  if (perSecond === 0) return "0/s";
  return perSecond < 0.1 ? "<0.1/s" : `${NUMBER.format(Number(perSecond.toPrecision(2)))}/s`;
}

/** Returns the time of day; with the date if it is another day. */
export function clock(ms, now = Date.now()) {
  const time = new Date(ms);
  const hours = time.toLocaleTimeString("en-GB");
  return time.toDateString() === new Date(now).toDateString() ? hours : `${time.toLocaleDateString("en-CA")} ${hours}`;
}

/** Returns a name with a break after each dot and slash, so that it wraps where it can be read. */
export function breakable(name) {
  const parts = name.split(/(?<=[./])/);
  return parts.flatMap((part, index) => (index === 0 ? [part] : [document.createElement("wbr"), part]));
}

/** Returns the text of a comment; what is between backticks is code. */
export function prose(value) {
  return value.replaceAll("\n", " ").split("`").map((part, index) => (index % 2 === 1 ? h("code", {}, part) : part));
}

/** Returns `Service/Method` of an operation with its package in small type. */
export function operation(name) {
  const slash = name.lastIndexOf("/");
  const dot = name.lastIndexOf(".", slash < 0 ? name.length : slash);
  return h("span", { class: "op", title: name },
    h("span", { class: "muted" }, breakable(name.slice(0, dot + 1))),
    h("span", {}, breakable(name.slice(dot + 1))));
}

/** Copies text, and says so in the button. */
export async function copy(button, value) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(value);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Cannot copy";
  }
  announce(button.textContent);
  setTimeout(() => { button.textContent = label; }, 1500);
}

/** Tells users of screen readers. */
export function announce(value) {
  text(document.getElementById("news"), value);
}
