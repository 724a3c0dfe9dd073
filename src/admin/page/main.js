// Shows the view that the address names, and follows the status of the gateway.

import { announce, attr, clock, h, text } from "./dom.js";
import { explorerView } from "./explorer.js";
import { statusView } from "./status.js";

/** The pause between two reads of the status, and the time that one may take. */
const PAUSE_MS = 2000;
const TIMEOUT_MS = 10000;

const content = document.getElementById("content");
const offline = document.getElementById("offline");
const views = { status: statusView(), explorer: explorerView() };
let shown = null;
let lastUpdate = null;
let states = new Map();

function route() {
  const [, view, ...rest] = decodeURIComponent(location.hash).split("/");
  const name = view in views ? view : "status";
  for (const link of document.querySelectorAll("[data-view]")) {
    attr(link, "aria-current", link.dataset.view === name ? "page" : null);
  }
  const next = views[name];
  if (shown !== next) {
    content.replaceChildren(next.element);
    shown = next;
    document.title = `${name === "status" ? "Status" : "Explorer"} · Drawbridge`;
  }
  next.show?.(rest.join("/"));
}

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  try {
    if (theme) localStorage.setItem("theme", theme);
    else localStorage.removeItem("theme");
  } catch {
    // Storage is off.
  }
}

/** Announces upstreams that have gone down or returned. */
function announceStates(upstreams) {
  const next = new Map(upstreams.map((one) => [one.name, one.state]));
  const isNews = (before, now) => before !== undefined && before !== now && [before, now].includes("unhealthy");
  const changed = [...next].filter(([name, state]) => isNews(states.get(name), state));
  if (changed.length > 0) announce(changed.map(([name, state]) => `${name} is ${state}`).join(", "));
  states = next;
}

async function update() {
  try {
    const response = await fetch("/api/status", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const status = await response.json();
    lastUpdate = Date.now();
    offline.hidden = true;
    content.classList.remove("stale");
    text(document.getElementById("version"), status.gateway.version);
    document.getElementById("sandbox").hidden = !status.gateway.is_sandbox;
    announceStates(status.upstreams);
    views.status.update(status);
    views.explorer.update(status);
  } catch {
    const since = lastUpdate === null ? "" : ` This is its state of ${clock(lastUpdate)}.`;
    text(offline, `The gateway does not respond.${since}`);
    offline.hidden = false;
    content.classList.add("stale");
  }
}

async function follow() {
  for (;;) {
    // A hidden page costs the gateway nothing.
    if (!document.hidden) await update();
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

const theme = document.getElementById("theme");
theme.value = document.documentElement.dataset.theme ?? "";
theme.addEventListener("change", () => applyTheme(theme.value));
document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});
window.addEventListener("hashchange", route);
content.replaceChildren(h("p", { class: "empty" }, "Loading…"));
route();
follow();
