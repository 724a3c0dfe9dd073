// The explorer: finds a method, fills its request, calls it and shows what is received.

import { call } from "./call.js";
import { address, commands } from "./copy.js";
import { announce, attr, breakable, copy, h, latency, number, prose, text } from "./dom.js";
import { Invalid, messageControl } from "./form.js";

/** How many messages of a stream stay on the page. */
const MAX_MESSAGES = 200;

const KINDS = { unary: "", server_streaming: "stream", client_streaming: "upload", bidirectional: "bidirectional" };
const TOOLS = { curl: "curl", grpcurl: "grpcurl", drawbridge: "drawbridge call", python: "Python" };

/** What the visitor has typed for all methods. It is in memory only, and gone with the page. */
const visitor = { token: "", upstream: "", metadata: "", timeout: "" };

async function read(path) {
  const response = await fetch(path);
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(value.error ?? `HTTP ${response.status}`);
  return value;
}

/** Returns paragraphs of a comment; what is indented is code. */
function comment(value) {
  return value.split(/\n\n+/).filter((part) => part.trim() !== "").map((part) => (
    /^ {3,}/.test(part) ? h("pre", {}, part.replace(/^ {3,4}/gm, "")) : h("p", {}, prose(part))));
}

/** Returns the metadata that the visitor has typed, as names and values. */
function metadataOf() {
  const pairs = [];
  if (visitor.token !== "") pairs.push(["drawbridge-token", visitor.token.trim()]);
  if (visitor.upstream !== "") pairs.push(["drawbridge-upstream", visitor.upstream]);
  for (const line of visitor.metadata.split("\n")) {
    const colon = line.indexOf(":");
    if (line.trim() !== "" && colon > 0) pairs.push([line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()]);
    else if (line.trim() !== "") throw new Error(`Metadata: write "name: value" instead of "${line.trim()}"`);
  }
  return pairs;
}

/** The list of services and methods. */
function methodList() {
  const search = h("input", { type: "search", placeholder: "Search methods", "aria-label": "Search methods", oninput: () => draw() });
  const list = h("div", { class: "services" });
  const none = h("p", { class: "empty" }, "Nothing matches.");
  const element = h("nav", { class: "methods", "aria-label": "Methods" }, search, none, list);
  let services = [];
  let shown = "";

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (value) => words.every((word) => value.toLowerCase().includes(word));
    const found = services.map((service) => ({
      ...service, methods: service.methods.filter((method) => matches(`${service.name}/${method.name} ${method.comment.split("\n")[0]}`)),
    })).filter((service) => service.methods.length > 0);
    none.hidden = found.length > 0 || services.length === 0;
    list.replaceChildren(...found.map((service) => {
      const dot = service.name.lastIndexOf(".");
      const isOpen = words.length > 0 || shown.startsWith(`${service.name}/`) || found.length === 1;
      return h("details", { open: isOpen },
        h("summary", {}, h("span", {}, service.name.slice(dot + 1)), h("span", { class: "muted small" }, ` ${service.methods.length}`), h("div", { class: "muted small" }, breakable(service.name.slice(0, dot)))),
        h("ul", {}, service.methods.map((method) => {
          const name = `${service.name}/${method.name}`;
          return h("li", {}, h("a", { href: `#/explorer/${name}`, "aria-current": name === shown ? "page" : null },
            method.name, KINDS[method.kind] ? h("span", { class: "badge" }, KINDS[method.kind]) : ""));
        })));
    }));
  }
  return {
    element,
    fill(all) { services = all; draw(); },
    select(name) {
      shown = name;
      draw();
      const link = list.querySelector("[aria-current]");
      if (link) element.scrollTop = link.offsetTop - element.clientHeight / 2;
    },
    focus: () => search.focus(),
  };
}

/** What was received. */
function responsePanel() {
  const state = h("span", { class: "badge" });
  const facts = h("span", { class: "muted small" });
  const problem = h("p", { class: "problem" });
  const details = h("div", { class: "details" });
  const skipped = h("p", { class: "muted small" });
  const list = h("ol", { class: "messages" });
  const metadata = h("details", { class: "small" }, h("summary", {}, "Response metadata"), h("dl", { class: "pairs" }));
  const element = h("section", { class: "response", "aria-labelledby": "response", hidden: true },
    h("div", { class: "head" }, h("h2", { id: "response" }, "Response"), state, facts), h("div", { class: "body" }, problem, details, skipped, list, metadata));
  let count = 0;

  function pairs(into, values) {
    into.append(...values.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }
  function show(label, kind) {
    text(state, label);
    attr(state, "class", `badge ${kind}`);
  }
  function title(message) {
    const event = message.event ?? {};
    const kind = (event.type ?? "").replace("WATCH_EVENT_TYPE_", "");
    const outcome = (event.outcome ?? "").replace("OUTCOME_", "");
    return [kind && h("span", { class: "badge busy" }, kind), " ", outcome && h("span", { class: `badge ${outcome === "SUCCEEDED" ? "good" : "bad"}` }, outcome)];
  }
  function detail(one) {
    const { "@type": type, ...members } = one;
    return h("div", { class: "detail" }, h("h3", {}, type.split(".").pop()), h("dl", { class: "pairs" }, Object.entries(members).flatMap(([name, value]) => {
      if (name === "fieldViolations") {
        return value.flatMap((one) => [h("dt", {}, one.field ?? ""), h("dd", {}, one.description ?? "")]);
      }
      if (value !== null && typeof value === "object" && !Array.isArray(value)) {
        return Object.entries(value).flatMap(([inner, of]) => [h("dt", {}, inner), h("dd", {}, breakable(String(of)))]);
      }
      return [h("dt", {}, name), h("dd", {}, typeof value === "string" ? value : JSON.stringify(value))];
    })));
  }
  return {
    element,
    begin() {
      element.hidden = false;
      count = 0;
      for (const each of [list, details, metadata.lastChild]) each.replaceChildren();
      for (const each of [problem, skipped, facts]) text(each, "");
      metadata.hidden = true;
      show("calling…", "busy");
    },
    add(line, isStream) {
      if (line.metadata) {
        pairs(metadata.lastChild, line.metadata);
        metadata.hidden = line.metadata.length === 0;
        if (isStream) show("open", "busy");
      } else if (line.message !== undefined) {
        count += 1;
        const time = new Date().toLocaleTimeString("en-GB");
        const body = h("pre", { class: "code", tabindex: "0" }, JSON.stringify(line.message, null, 2));
        if (isStream) {
          // The newest one is on top, and open.
          const newest = list.querySelector("details");
          if (newest) newest.open = false;
          list.prepend(h("li", {}, h("details", { open: true }, h("summary", {}, h("span", { class: "muted small" }, `${count} · ${time}`), " ", title(line.message)), body)));
          if (list.children.length > MAX_MESSAGES) list.lastElementChild.remove();
        } else {
          list.append(h("li", {}, body));
        }
        text(skipped, count > MAX_MESSAGES ? `The last ${MAX_MESSAGES} of ${number(count)} messages.` : "");
        if (isStream) text(facts, `${number(count)} message${count === 1 ? "" : "s"}`);
      } else {
        const { code, message, details: all, metadata: trailers } = line.status;
        show(code, code === "OK" ? "good" : "bad");
        const messages = isStream ? `${number(count)} message${count === 1 ? "" : "s"}, ` : "";
        text(facts, `${messages}${latency(line.elapsed_ms / 1000)}`);
        text(problem, message);
        details.replaceChildren(...all.map(detail));
        pairs(metadata.lastChild, trailers);
        metadata.hidden = metadata.lastChild.children.length === 0;
        announce(`${code} ${message}`);
      }
    },
    stop(label, message) {
      show(label, label === "stopped" ? "" : "bad");
      text(problem, message);
      announce(`${label} ${message}`);
    },
  };
}

/** One method: its comment, request, copies and response. */
function methodPanel(method, types, connection) {
  const isStream = method.kind === "server_streaming";
  const sendsMany = method.kind === "client_streaming";
  const requestField = { name: "messages", proto: "messages", comment: "", label: "repeated", type: { message: types.input } };
  const form = sendsMany ? messageControl("", { ...types, messages: { ...types.messages, "": [requestField] } }) : messageControl(types.input, types);
  const json = h("textarea", { class: "code", rows: "12", spellcheck: "false", "aria-label": "Request as JSON", hidden: true });
  const formArea = h("div", {}, form.element);
  const error = h("p", { class: "problem", role: "alert", hidden: true });
  const tabs = ["Form", "JSON"].map((name) => h("button", { type: "button", "aria-pressed": String(name === "Form"), onclick: () => show(name) }, name));
  const run = h("button", { type: "submit", class: "primary", disabled: connection.problem !== null || method.kind === "bidirectional" }, isStream ? "Open stream" : "Call");
  const stop = h("button", { type: "button", hidden: true, onclick: () => controller?.abort() }, "Stop");
  const response = responsePanel();
  let controller = null;

  function fail(cause) {
    text(error, cause.message);
    error.hidden = false;
    if (cause instanceof Invalid) {
      cause.control.setAttribute("aria-invalid", "true");
      cause.control.focus();
    }
  }
  /** Returns the messages as JSON values; throws what is wrong. */
  function messages() {
    error.hidden = true;
    for (const one of element.querySelectorAll("[aria-invalid]")) one.removeAttribute("aria-invalid");
    const value = json.hidden ? form.get() : JSON.parse(json.value || (sendsMany ? "[]" : "{}"));
    if (!sendsMany) return [value];
    return json.hidden ? (value.messages ?? []) : value;
  }
  function show(name) {
    try {
      const [now] = [messages()];
      if (name === "JSON" && json.hidden) json.value = JSON.stringify(sendsMany ? now : now[0], null, 2);
      if (name === "Form" && !json.hidden) form.set(sendsMany ? { messages: now } : now[0]);
    } catch (cause) {
      return fail(cause);
    }
    json.hidden = name !== "JSON";
    formArea.hidden = !json.hidden;
    for (const tab of tabs) attr(tab, "aria-pressed", String(tab.textContent === name));
  }

  const field = (label, control, hint) => h("label", { class: "field" }, h("span", {}, label), control, hint ? h("span", { class: "muted small" }, hint) : "");
  const remember = (name) => (event) => { visitor[name] = event.target.value; };
  const choices = method.upstreams.length === 0 ? [] : [field("Upstream", h("select", { onchange: remember("upstream") },
    h("option", { value: "" }, "default"), method.upstreams.map((name) => h("option", { value: name, selected: name === visitor.upstream }, name))))];
  if (!method.upstreams.includes(visitor.upstream)) visitor.upstream = "";
  const token = h("input", { type: "password", autocomplete: "off", oninput: remember("token") });
  token.value = visitor.token;
  const timeout = h("input", { type: "text", inputmode: "decimal", placeholder: isStream ? "none" : "that of the gateway", oninput: remember("timeout") });
  timeout.value = visitor.timeout;
  const more = h("textarea", { rows: "2", class: "code", placeholder: "x-auth-token: …", spellcheck: "false", oninput: remember("metadata") });
  more.value = visitor.metadata;
  const metadata = h("details", { class: "metadata", open: connection.needs_token && visitor.token === "" }, h("summary", {}, "Credentials, upstream, deadline"),
    h("div", { class: "grid" },
      field("Client token", token, connection.needs_token ? "The gateway asks for one. It stays in this page until you leave it." : "The gateway asks for none."),
      ...choices, field("Deadline in seconds", timeout), field("Further metadata, one a line", more)));

  function seconds() {
    const value = visitor.timeout.trim();
    if (value === "") return null;
    if (!(Number(value) > 0)) throw new Invalid(timeout, `The deadline ${value} is no number of seconds`);
    return Number(value);
  }

  async function submit() {
    let request;
    try {
      const timeoutSeconds = seconds();
      request = { method: method.full, messages: messages(), metadata: metadataOf(), timeout_ms: timeoutSeconds === null ? null : Math.ceil(timeoutSeconds * 1000) };
    } catch (cause) {
      return fail(cause);
    }
    controller?.abort();
    const mine = new AbortController();
    controller = mine;
    response.begin();
    stop.hidden = false;
    run.disabled = true;
    try {
      await call(request, mine.signal, (line) => response.add(line, isStream));
    } catch (cause) {
      if (mine.signal.aborted) response.stop("stopped", "");
      else response.stop("not called", cause.message);
    }
    if (controller === mine) {
      const hadFocus = document.activeElement === stop;
      stop.hidden = true;
      run.disabled = false;
      if (hadFocus) run.focus();
    }
  }

  const copied = h("pre", { class: "code copied", tabindex: "0", hidden: true });
  const copyButtons = Object.entries(TOOLS).map(([tool, name]) => h("button", { type: "button", onclick: (event) => {
    try {
      const command = commands({
        method: method.full, kind: method.kind, messages: messages(), metadata: metadataOf(), timeout: seconds(),
        address: address(connection, location.hostname), hasTls: connection.has_tls,
      })[tool];
      copied.textContent = command;
      copied.hidden = false;
      copy(event.currentTarget, command);
    } catch (cause) {
      fail(cause);
    }
  } }, name));

  const requestForm = h("form", {
    class: "request",
    novalidate: true,
    onsubmit: (event) => { event.preventDefault(); submit(); },
    onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !run.disabled) { event.preventDefault(); submit(); } },
  },
  h("div", { class: "head" }, h("h2", {}, "Request"), h("span", { class: "muted small" }, types.input), h("div", { class: "tabs", role: "group", "aria-label": "Edit as" }, tabs)),
  h("div", { class: "body" }, formArea, json, metadata, error,
    connection.problem ? h("p", { class: "banner bad" }, connection.problem) : "",
    h("div", { class: "actions" }, run, stop, h("span", { class: "muted small" }, "Ctrl+Enter")),
    h("div", { class: "actions" }, h("span", { class: "muted small" }, "Copy as"), copyButtons), copied));
  const [service, name] = method.full.split("/");
  const element = h("article", {},
    h("p", { class: "back" }, h("a", { href: "#/explorer" }, "← All methods")),
    h("h1", { tabindex: "-1" }, name, KINDS[method.kind] ? h("span", { class: "badge" }, KINDS[method.kind]) : ""),
    h("p", { class: "muted" }, breakable(service)),
    h("div", { class: "comment" }, comment(method.comment)),
    h("section", {}, requestForm), response.element);
  return { element };
}

/** Returns the view of the explorer. */
export function explorerView() {
  const list = methodList();
  const welcome = h("p", { class: "empty" }, "Choose a method.");
  const place = h("div", { class: "method" }, welcome);
  const element = h("div", { class: "explorer" }, list.element, place);
  const panels = new Map();
  let catalog = null;
  let shown = null;

  async function load() {
    catalog ??= await read("/api/services");
    list.fill(catalog.services);
    return catalog;
  }

  async function show(name) {
    shown = name;
    attr(element, "data-chosen", String(name !== ""));
    try {
      const { services, connection } = await load();
      if (shown !== name) return;
      list.select(name);
      if (name === "") return place.replaceChildren(welcome);
      const [serviceName, methodName] = name.split("/");
      const method = services.find((one) => one.name === serviceName)?.methods.find((one) => one.name === methodName);
      if (!method) {
        // It may name a similar one.
        const problem = await read(`/api/method?name=${encodeURIComponent(name)}`).then(() => "", (cause) => cause.message);
        if (shown !== name) return;
        const near = /, did you mean ([^ ?]+)\?$/.exec(problem)?.[1];
        const full = near && (near.includes(".") ? `${near}/${methodName ?? ""}` : `${serviceName}/${near}`);
        const known = services.some((one) => full === `${one.name}/${one.methods.find((each) => full === `${one.name}/${each.name}`)?.name}`);
        return place.replaceChildren(h("p", { class: "empty" }, problem, known ? [" ", h("a", { href: `#/explorer/${full}` }, full)] : ""));
      }
      // A form keeps what was typed, and a stream goes on.
      if (!panels.has(name)) {
        const types = await read(`/api/method?name=${encodeURIComponent(name)}`);
        panels.set(name, methodPanel({ ...method, full: name }, types, connection));
      }
      if (shown !== name) return;
      place.replaceChildren(panels.get(name).element);
      document.title = `${methodName} · Drawbridge`;
      place.querySelector("h1").focus();
    } catch (cause) {
      catalog = null;
      place.replaceChildren(h("p", { class: "banner bad" }, `Cannot read the methods: ${cause.message}`));
    }
  }
  return { element, show, update() {} };
}
