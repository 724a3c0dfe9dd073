// The status: upstreams, watches, failed calls, rates.

import { attr, breakable, clock, copy, h, keyed, latency, number, operation, rate, span, text } from "./dom.js";

/** For how long rates and latencies are averaged. */
const WINDOW_MS = 60000;
/** How many rows a table shows at first. */
const FIRST_ROWS = 12;
/** From how many upstreams on there is a filter. */
const FILTER_FROM = 8;
/** Codes that are no failure of the gateway or of an upstream. */
const FINE = new Set(["OK", "CANCELLED"]);
const SERIOUS = new Set(["INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED"]);

/** Returns the class of a code's badge. */
function severity(code) {
  if (code === "OK") return "good";
  if (FINE.has(code)) return "";
  return SERIOUS.has(code) ? "bad" : "warn";
}

const sum = (counts) => Object.values(counts).reduce((all, one) => all + one, 0);
const failures = (counts) => sum(counts) - (counts.OK ?? 0) - (counts.CANCELLED ?? 0);

/** The snapshots of the last minute. */
class History {
  #all = [];

  add(status) {
    // A gateway that was started again counts from zero.
    if (this.#all.length > 0 && this.#all.at(-1).gateway.started_at !== status.gateway.started_at) this.#all = [];
    this.#all.push(status);
    while (this.#all.length > 2 && status.now - this.#all[1].now >= WINDOW_MS) this.#all.shift();
  }

  /** Returns by how much a number has grown per second; none with one snapshot. */
  perSecond(read) {
    const [first, last] = [this.#all[0], this.#all.at(-1)];
    const seconds = (last.now - first.now) / 1000;
    return seconds > 0 ? Math.max(0, read(last) - read(first)) / seconds : null;
  }

  /** Returns the growth of a list of counts; all of them where nothing has grown. */
  growth(read) {
    const last = read(this.#all.at(-1)) ?? [];
    const first = read(this.#all[0]) ?? [];
    const grown = last.map((count, index) => count - (first[index] ?? 0));
    return grown.some((count) => count > 0) ? { counts: grown, recent: true } : { counts: last, recent: false };
  }
}

/** Returns the bound under which this share of the counts is; none without counts. */
function quantile(counts, bounds, share) {
  const total = counts.reduce((all, one) => all + one, 0);
  let seen = 0;
  for (const [index, count] of counts.entries()) {
    seen += count;
    if (total > 0 && seen >= share * total) {
      return index < bounds.length ? `≤ ${latency(bounds[index])}` : `> ${latency(bounds.at(-1))}`;
    }
  }
  return null;
}

/** Returns a table that shows its first rows, and all of them on demand. */
function table(caption, columns, empty) {
  const body = h("tbody");
  const head = h("tr", {}, columns.map(([label, kind]) => h("th", { scope: "col", class: kind }, label)));
  const element = h("table", {}, h("caption", { class: "sr" }, caption), h("thead", {}, head), body);
  const none = h("p", { class: "empty" }, empty);
  let isLong = false;
  let redraw = () => {};
  const more = h("button", { class: "more", onclick: () => { isLong = !isLong; redraw(); } });
  return {
    element: h("div", { class: "table" }, element, none, more),
    rows(all, key, cells, update) {
      redraw = () => this.rows(all, key, cells, update);
      element.hidden = all.length === 0;
      none.hidden = all.length > 0;
      more.hidden = all.length <= FIRST_ROWS;
      text(more, isLong ? "Show fewer" : `Show all ${number(all.length)}`);
      attr(more, "aria-expanded", String(isLong));
      const items = isLong ? all : all.slice(0, FIRST_ROWS);
      const create = (item) => h("tr", {}, cells(item).map((cell, index) => {
        const [label, kind] = columns[index];
        return h(index === 0 ? "th" : "td", { class: kind, "data-label": label, scope: index === 0 ? "row" : null }, cell);
      }));
      keyed(body, items, key, create, update);
    },
    empty: (value) => text(none, value),
  };
}

const part = (node, name) => node.querySelector(`[data-part="${name}"]`);
const slot = (name, props = {}, tag = "span") => h(tag, { "data-part": name, ...props });

function setBadge(node, label, kind) {
  text(node, label);
  attr(node, "class", `badge ${kind}`);
}

/** Upstreams, those with problems first. */
function upstreamsPanel(history) {
  const list = table("Upstreams", [
    ["Upstream", "w3"], ["State", "w4"], ["Latency p50 / p95", "w5"], ["Permits", "w1"], ["Credential", "w2"], ["Calls", "num w2"],
  ], "No upstream is configured.");
  const filter = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter upstreams", hidden: true, oninput: () => draw() });
  const count = h("span", { class: "muted" });
  let status = null;
  const weight = (one) => (one.state === "unhealthy" ? 0 : one.is_breaker_open ? 1 : 2);

  const cells = (one) => [
    [h("div", { class: "name" }, breakable(one.name)), h("div", { class: "muted small" }, [one.family, one.dialect].filter(Boolean).join(" · "), one.is_default ? " · default" : ""),
      slot("endpoint", { class: "muted small url" }, "div")],
    [slot("state"), " ", slot("breaker", { class: "badge bad" }), slot("since", { class: "muted small" }, "div"),
      slot("failure", { class: "small reason" }, "div"), h("details", { class: "small muted", "data-part": "past" }, h("summary", { "data-part": "was" }), slot("why", { class: "reason" }, "div"))],
    [slot("latency", {}, "div"), slot("window", { class: "muted small" }, "div")],
    [h("meter", { "data-part": "meter", min: "0" }), slot("permits", { class: "small" }, "div"), slot("queued", { class: "small" }, "div")],
    [one.credentials, slot("expiry", { class: "muted small" }, "div")],
    [slot("rate", {}, "div"), slot("failed", { class: "small" }, "div")],
  ];

  function update(row, one) {
    const of = (name) => part(row, name);
    text(of("endpoint"), one.endpoint ?? "");
    attr(of("endpoint"), "title", one.endpoint);
    setBadge(of("state"), { healthy: "up", unhealthy: "down", unknown: "not known" }[one.state], { healthy: "good", unhealthy: "bad", unknown: "" }[one.state]);
    of("breaker").hidden = !one.is_breaker_open;
    text(of("breaker"), "breaker open");
    text(of("since"), `for ${span(status.now - one.since)}`);
    const failure = one.last_failure;
    const isDown = one.state === "unhealthy";
    of("failure").hidden = !failure || !isDown;
    of("past").hidden = !failure || isDown;
    text(of("failure"), failure?.reason ?? "");
    text(of("was"), failure ? `went down at ${clock(failure.at, status.now)}` : "");
    text(of("why"), failure?.reason ?? "");
    const read = (all) => all.upstreams.find((other) => other.name === one.name);
    const { counts, recent } = history.growth((all) => read(all)?.latencies);
    const bounds = status.latency_bounds;
    const half = quantile(counts, bounds, 0.5);
    text(of("latency"), half === null ? "–" : `${half} / ${quantile(counts, bounds, 0.95)}`);
    text(of("window"), half === null ? "no response yet" : recent ? "last minute" : "since the start");
    const meter = of("meter");
    meter.max = one.max_in_flight;
    meter.high = one.max_in_flight * 0.8;
    meter.value = one.in_flight;
    attr(meter, "aria-label", `Permits of ${one.name} in use`);
    text(of("permits"), `${number(one.in_flight)} of ${number(one.max_in_flight)}`);
    text(of("queued"), one.queued > 0 ? `${number(one.queued)} queued` : "");
    const left = one.expires_at === null ? 0 : one.expires_at - status.now;
    text(of("expiry"), { never: "does not expire", not_logged_in: "not logged in", at: left > 0 ? `expires in ${span(left)}` : "expired" }[one.expiry]);
    const perSecond = history.perSecond((all) => sum(read(all)?.calls ?? {}));
    text(of("rate"), perSecond === null ? "–" : rate(perSecond));
    const failed = failures(one.calls);
    text(of("failed"), failed > 0 ? `${number(failed)} of ${number(sum(one.calls))} failed` : `${number(sum(one.calls))} in all`);
    attr(of("failed"), "class", `small ${failed > 0 ? "warn-text" : "muted"}`);
  }

  function draw() {
    if (status === null) return;
    const wanted = filter.value.trim().toLowerCase();
    const all = status.upstreams;
    filter.hidden = all.length < FILTER_FROM;
    const found = all.filter((one) => [one.name, one.family, one.endpoint, one.state].join(" ").toLowerCase().includes(wanted));
    const down = all.filter((one) => one.state === "unhealthy").length;
    text(count, `${number(all.length)}${down > 0 ? `, ${number(down)} down` : ""}`);
    list.empty(all.length === 0 ? "No upstream is configured." : "No upstream matches the filter.");
    list.rows([...found].sort((a, b) => weight(a) - weight(b)), (one) => one.name, cells, update);
  }

  const element = h("section", { "aria-labelledby": "upstreams" },
    h("div", { class: "head" }, h("h2", { id: "upstreams" }, "Upstreams"), count, filter), list.element);
  return { element, update(next) { status = next; draw(); } };
}

/** Calls by code. */
function codesPanel(history) {
  const list = table("Calls by code", [["Code", "w2"], ["Last minute", "num w1"], ["Since the start", "num w1"], ["Share", "wide"]], "No call has ended yet.");
  const element = h("section", { "aria-labelledby": "codes" },
    h("div", { class: "head" }, h("h2", { id: "codes" }, "Calls by code")), list.element);
  return {
    element,
    update(status) {
      const total = sum(status.calls);
      const codes = Object.entries(status.calls).sort(([, a], [, b]) => b - a);
      list.rows(codes, ([code]) => code, ([code]) => [
        h("span", { class: `badge ${severity(code)}` }, code), slot("rate"), slot("total"), h("progress", { "data-part": "share", "aria-label": `Share of ${code}` }),
      ], (row, [code, count]) => {
        const perSecond = history.perSecond((all) => all.calls[code] ?? 0);
        text(part(row, "rate"), perSecond === null ? "–" : rate(perSecond));
        text(part(row, "total"), number(count));
        part(row, "share").max = total;
        part(row, "share").value = count;
      });
    },
  };
}

/** Open watches. */
function watchesPanel() {
  const list = table("Open watches", [["Watch", "w3"], ["Resource", "w3"], ["State", "w5"], ["Streams", "num w1"], ["Reads", "num w1"], ["Open for", "w1"]], "No watch is open.");
  const count = h("span", { class: "muted" });
  const element = h("section", { "aria-labelledby": "watches" },
    h("div", { class: "head" }, h("h2", { id: "watches" }, "Open watches"), count), list.element);

  function state(one) {
    if (one.kind === null) return ["first read", ""];
    if (one.is_unconfirmed) return ["cannot be read", "bad"];
    if (one.kind === "list") return [`${number(one.items)} item${one.items === 1 ? "" : "s"}`, ""];
    if (one.kind === "log") return ["log", ""];
    return [one.state ?? one.outcome, { pending: "busy", succeeded: "good", failed: "bad" }[one.outcome]];
  }

  return {
    element,
    update(status) {
      const { total, listed, streams } = status.watches;
      const shown = listed.length < total ? `${number(listed.length)} of ${number(total)} shown, ` : "";
      text(count, total + streams === 0 ? "" : `${shown}${number(streams)} stream${streams === 1 ? "" : "s"}`);
      // Watches that begin with a call may be equal: the number tells them apart.
      const seen = new Map();
      const keys = new Map(listed.map((one) => {
        const key = [one.operation, one.upstream, one.path, one.since].join(" ");
        seen.set(key, (seen.get(key) ?? 0) + 1);
        return [one, `${key} ${seen.get(key)}`];
      }));
      list.rows(listed, (one) => keys.get(one), (one) => [
        operation(one.operation),
        [h("div", { class: "path" }, breakable(one.path)), h("div", { class: "muted small" }, one.upstream)],
        [slot("state"), slot("read", { class: "muted small" }, "div")], slot("streams"), slot("reads"), slot("age"),
      ], (row, one) => {
        setBadge(part(row, "state"), ...state(one));
        text(part(row, "read"), one.observed_at === null ? "" : `read ${span(status.now - one.observed_at)} ago`);
        text(part(row, "streams"), number(one.streams));
        text(part(row, "reads"), number(one.reads));
        text(part(row, "age"), span(status.now - one.since));
      });
    },
  };
}

/** The last failed calls. */
function failuresPanel() {
  const list = table("Last failed calls", [["Time", "w1"], ["Code", "w5"], ["Operation", "w3"], ["Upstream", "w2"], ["Request id", "w4"], ["Took", "num w1"]], "No call has failed.");
  const note = h("span", { class: "muted" });
  const element = h("section", { "aria-labelledby": "failures" },
    h("div", { class: "head" }, h("h2", { id: "failures" }, "Last failed calls"), note), list.element);
  return {
    element,
    update(status) {
      const calls = status.failed_calls;
      text(note, calls.length > 0 ? `the last ${number(calls.length)}; the log has their reasons` : "");
      list.rows(calls, (call) => `${call.at} ${call.request_id} ${call.operation}`, (call) => [
        h("time", { datetime: new Date(call.at).toISOString() }, clock(call.at, status.now)),
        [h("span", { class: `badge ${severity(call.code)}` }, call.code), h("div", { class: "muted small" }, call.kind)],
        call.operation === "" ? h("span", { class: "muted" }, "none") : operation(call.operation),
        call.upstream === "" ? h("span", { class: "muted" }, "none") : h("span", {}, breakable(call.upstream)),
        call.request_id === "" ? "" : h("button", {
          class: "link id", title: `Copy ${call.request_id}`, onclick: (event) => copy(event.currentTarget, call.request_id),
        }, call.request_id),
        call.elapsed_ms === null ? h("span", { class: "muted" }, call.count > 1 ? `rejected, ${number(call.count)} in a row` : "rejected") : latency(call.elapsed_ms / 1000),
      ], () => {});
    },
  };
}

/** Large numbers at the top. */
function summary(history) {
  const card = (label, id) => h("div", { class: "card" }, h("dt", {}, label), h("dd", {}, slot(id), slot(`${id}-more`, { class: "muted small" }, "div")));
  const element = h("dl", { class: "cards" },
    card("Gateway", "ready"), card("Upstreams up", "up"), card("Calls", "calls"), card("Failed", "failed"), card("In flight", "flight"), card("Watches", "watch"));
  const set = (id, value, more, kind = "") => {
    text(part(element, id), value);
    attr(part(element, id), "class", `big ${kind}`);
    text(part(element, `${id}-more`), more);
  };
  return {
    element,
    update(status) {
      const { gateway, upstreams, calls, watches } = status;
      set("ready", gateway.is_ready ? "ready" : "draining", `for ${span(status.now - gateway.started_at)}`, gateway.is_ready ? "good-text" : "warn-text");
      const up = upstreams.filter((one) => one.state === "healthy").length;
      const unknown = upstreams.filter((one) => one.state === "unknown").length;
      const down = upstreams.length - up - unknown;
      set("up", `${number(up)} of ${number(upstreams.length)}`, [down > 0 ? `${number(down)} down` : "", unknown > 0 ? `${number(unknown)} not known` : ""].filter(Boolean).join(", "), down > 0 ? "bad-text" : "");
      const perSecond = history.perSecond((all) => sum(all.calls));
      set("calls", perSecond === null ? "–" : rate(perSecond), `${number(sum(calls))} in all`);
      const failing = history.perSecond((all) => failures(all.calls));
      set("failed", failing === null ? "–" : rate(failing), `${number(failures(calls))} in all`, failing > 0 ? "warn-text" : "");
      const rejected = gateway.unauthenticated + gateway.unsupported;
      set("flight", number(gateway.calls_in_flight), rejected > 0 ? `${number(rejected)} rejected before` : "");
      set("watch", number(watches.total), `${number(watches.streams)} stream${watches.streams === 1 ? "" : "s"}`);
    },
  };
}

/** Returns the view of the status. */
export function statusView() {
  const history = new History();
  const parts = [summary(history), upstreamsPanel(history), watchesPanel(), failuresPanel(), codesPanel(history)];
  const loading = h("p", { class: "empty" }, "Loading…");
  const element = h("div", { class: "view" }, h("h1", { class: "sr" }, "Status"), loading);
  let isDrawn = false;
  return {
    element,
    update(status) {
      history.add(status);
      for (const each of parts) each.update(status);
      if (!isDrawn) loading.replaceWith(...parts.map((each) => each.element));
      isDrawn = true;
    },
  };
}

