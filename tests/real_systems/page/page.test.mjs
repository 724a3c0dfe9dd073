// The page in Chromium, used as a visitor uses it.
//
// The environment has the address of the page (PAGE_URL), the client token (PAGE_TOKEN), the
// browser (CHROMIUM), a Python with grpcio (PYTHON) and the directory of `drawbridge` (PROGRAMS).
// A line of standard output that begins with `> ` is a request to the test, which answers with
// a line.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const { PAGE_URL, PAGE_TOKEN, CHROMIUM, PYTHON, PROGRAMS } = process.env;
const STACKS = "openstack.orchestration.v1.StackService";
const TEMPLATE = "heat_template_version: 2021-04-16\nresources:\n  one:\n    type: OS::Heat::None\n";

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
/** Makes an upstream unreachable, or reachable again. */
async function upstream(state) {
  console.log(`> ${state}`);
  assert.equal((await answers.next()).value, "done");
}

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const complaints = [];

async function open(hash, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, permissions: ["clipboard-read", "clipboard-write"], ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(Number(process.env.PAGE_TIMEOUT ?? 120000));
  await page.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`)));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== PAGE_URL) complaints.push(`a request to ${request.url()}`);
  });
  await page.goto(`${PAGE_URL}/${hash}`);
  return page;
}

const row = (page, name) => page.locator("section", { has: page.locator("#upstreams") }).locator("tr", { has: page.getByText(name, { exact: true }) });
const state = (page) => page.locator(".response .head .badge");

/** Returns texts whose contrast is below that of WCAG AA. */
const lowContrast = (page) => page.evaluate(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (node.textContent.trim() === "" || element.closest("[hidden], .sr, .skip, noscript, :disabled") || !element.checkVisibility()) continue;
    let back = element;
    while (back && rgba(getComputedStyle(back).backgroundColor)[3] < 255) back = back.parentElement;
    const [text, ground] = [luminance(rgba(getComputedStyle(element).color)), luminance(rgba(back ? getComputedStyle(back).backgroundColor : "white"))];
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    if (ratio < 4.5) found.push(`${node.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return found;
});

async function choose(page, method) {
  await page.goto(`${PAGE_URL}/#/explorer/${method}`);
  await page.getByRole("heading", { name: method.split("/")[1] }).waitFor();
}

async function typeToken(page) {
  const token = page.getByLabel("Client token");
  await token.waitFor({ state: "attached" });
  if (!await token.isVisible()) await page.getByText("Credentials, upstream, deadline").click();
  await token.fill(PAGE_TOKEN);
}

const cases = {
  async "an upstream goes down and returns"() {
    const page = await open("");
    const north = row(page, "sandbox-heat");
    await north.getByText("up", { exact: true }).waitFor();
    await upstream("down");
    try {
      await north.getByText("down", { exact: true }).waitFor();
      await north.getByText(/reached from here/).filter({ visible: true }).waitFor();
      await page.getByText("1 down").first().waitFor();
      assert.match(await page.locator("#news").textContent(), /sandbox-heat is unhealthy/);
    } finally {
      await upstream("up");
    }
    await north.getByText("up", { exact: true }).waitFor();
    await north.getByText(/^went down at/).waitFor();
  },

  async "a call without the token is rejected, and the token stays in memory"() {
    const page = await open(`#/explorer/${STACKS}/ListStacks`);
    await page.getByRole("button", { name: "Call", exact: true }).click();
    await state(page).getByText("UNAUTHENTICATED").waitFor();
    await typeToken(page);
    await page.getByRole("button", { name: "Call", exact: true }).click();
    await state(page).getByText("OK", { exact: true }).waitFor();
    const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
    assert(!stored.includes(PAGE_TOKEN));
    for (const tool of ["curl", "grpcurl", "drawbridge call", "Python"]) {
      await page.getByRole("button", { name: tool, exact: true }).click();
      await page.locator(".copied").waitFor();
      const copied = await page.evaluate(() => navigator.clipboard.readText());
      assert.equal(copied, await page.locator(".copied").textContent());
      assert(!copied.includes(PAGE_TOKEN), copied);
      assert(copied.includes(`${STACKS}`), copied);
      const env = { DRAWBRIDGE_TOKEN: PAGE_TOKEN, NO_PROXY: "127.0.0.1", PATH: `${PROGRAMS}:${process.env.PATH}` };
      if (tool === "Python") assert.doesNotThrow(() => JSON.parse(execFileSync(PYTHON, ["-c", copied], { env })));
      if (tool === "drawbridge call" || tool === "curl") assert.doesNotThrow(() => JSON.parse(execFileSync("sh", ["-euc", copied], { env })));
    }
    await page.reload();
    await page.getByRole("button", { name: "Call", exact: true }).click();
    await state(page).getByText("UNAUTHENTICATED").waitFor();
    await page.goto(`${PAGE_URL}/#/status`);
    const failed = page.locator("section", { has: page.locator("#failures") });
    await failed.getByText("UNAUTHENTICATED").first().waitFor();
    assert(!(await page.content()).includes(PAGE_TOKEN));
  },

  async "a stack is created in the form and watched to its end"() {
    const page = await open(`#/explorer/${STACKS}/CreateStack`);
    await typeToken(page);
    await page.getByLabel("stack_name").fill("from-the-page");
    await page.getByLabel("Which of template_as").selectOption("template");
    await page.getByLabel("template string").fill(TEMPLATE);
    const tags = page.locator("fieldset", { has: page.getByText("tags", { exact: true }) });
    await tags.getByRole("button", { name: "Add" }).click();
    await tags.getByRole("textbox").fill("page");
    // There and back: the form keeps what was typed.
    await page.getByRole("button", { name: "JSON" }).click();
    const json = JSON.parse(await page.getByLabel("Request as JSON").inputValue());
    assert.deepEqual(json, { stackName: "from-the-page", template: TEMPLATE, tags: ["page"] });
    await page.getByRole("button", { name: "Form" }).click();
    assert.equal(await page.getByLabel("stack_name").inputValue(), "from-the-page");
    await page.getByRole("button", { name: "Call", exact: true }).click();
    await state(page).getByText("OK", { exact: true }).waitFor();

    await choose(page, `${STACKS}/WatchStack`);
    await page.getByLabel("stack_name").fill("from-the-page");
    await page.getByRole("button", { name: "Open stream" }).click();
    await state(page).getByText("OK", { exact: true }).waitFor();
    await page.locator(".messages").getByText("SUCCEEDED").first().waitFor();
    assert.match(await page.locator(".messages pre").first().textContent(), /CREATE_COMPLETE/);

    await page.getByRole("button", { name: "curl", exact: true }).click();
    await page.locator(".copied").waitFor();
    const curl = await page.locator(".copied").textContent();
    const stream = execFileSync("sh", ["-euc", curl], { env: { ...process.env, DRAWBRIDGE_TOKEN: PAGE_TOKEN, NO_PROXY: "127.0.0.1" } }).toString();
    assert.match(stream, /CREATE_COMPLETE/);

    // A watch that goes on is on the status, and ends when it is stopped.
    await page.getByLabel("follow").check();
    await page.getByRole("button", { name: "Open stream" }).click();
    await state(page).getByText("open", { exact: true }).waitFor();
    const other = await open("");
    const watches = other.locator("section", { has: other.locator("#watches") });
    await watches.getByText("CREATE_COMPLETE").waitFor();
    await watches.getByText(/from-the-page/).waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await state(page).getByText("stopped").waitFor();
    await watches.getByText("No watch is open.").waitFor();
  },

  async "an error shows its details"() {
    const page = await open(`#/explorer/${STACKS}/GetStack`);
    await typeToken(page);
    await page.getByLabel("stack_name").fill("none");
    await page.keyboard.press("Control+Enter");
    await state(page).getByText("NOT_FOUND").waitFor();
    const details = page.locator(".details");
    for (const text of ["ErrorInfo", "EntityNotFound", "sandbox-heat", "RequestInfo"]) await details.getByText(text).first().waitFor();
    await page.getByLabel("stack_name").fill("");
    await page.keyboard.press("Control+Enter");
    await state(page).getByText("INVALID_ARGUMENT").waitFor();
    await details.getByText("stack_name").first().waitFor();
    // What cannot be sent is said at its field.
    await choose(page, `${STACKS}/CreateStack`);
    await page.getByLabel("timeout_mins").fill("soon");
    await page.getByRole("button", { name: "Call", exact: true }).click();
    await page.getByText("soon is no int32").waitFor();
    assert.equal(await page.getByLabel("timeout_mins").getAttribute("aria-invalid"), "true");
  },

  async "a form has a control for each kind of field"() {
    const page = await open("");
    const [given, read, empty] = await page.evaluate(async () => {
      const { messageControl } = await import("/page/form.js");
      const field = (name, type, more = {}) => ({ name, proto: name, comment: "Text.", type, ...more });
      const known = (name) => ({ message: `google.protobuf.${name}` });
      const types = {
        enums: { E: [{ name: "E_ZERO", number: 0, comment: "" }, { name: "E_ONE", number: 1, comment: "" }] },
        messages: {
          M: [
            field("text", "string"), field("count", "int32"), field("big", "uint64"), field("share", "double"), field("yes", "bool"),
            field("maybe", "bool", { label: "optional" }), field("raw", "bytes"), field("kind", { enum: "E" }),
            field("self", { message: "M" }, { label: "optional" }), field("list", { message: "M" }, { label: "repeated" }),
            field("kinds", { enum: "E" }, { label: "repeated" }), field("names", "string", { label: "map", key: "string" }),
            field("things", { message: "M" }, { label: "map", key: "int64" }), field("flags", "bool", { label: "map", key: "bool" }),
            field("a", "string", { oneof: "which" }), field("b", { message: "M" }, { oneof: "which" }),
            field("wrapped", known("Int64Value")), field("on", known("BoolValue")), field("at", known("Timestamp")), field("for", known("Duration")),
            field("free", known("Struct")), field("any", known("Value")), field("mask", known("FieldMask")),
          ],
        },
      };
      const inner = { text: "in", self: { count: 1 }, b: { yes: true } };
      const given = {
        text: "a\nb", count: -7, big: "18446744073709551615", share: 1.5e300, yes: true, maybe: false, raw: "AAE=", kind: "E_ONE", self: inner, list: [inner, {}],
        kinds: ["E_ONE", "E_ZERO"], names: { "": "", "k": "v" }, things: { "9007199254740993": inner }, flags: { true: false }, b: inner,
        wrapped: "9007199254740993", on: false, at: "2026-11-30T12:00:00Z", for: "1.5s", free: { a: [1, null] }, any: [1], mask: "a,b",
      };
      const form = messageControl("M", types);
      form.set(given);
      const read = form.get();
      form.set({});
      return [given, read, form.get()];
    });
    assert.deepEqual(read, given);
    assert.deepEqual(empty, {});
  },

  async "the keyboard suffices"() {
    const page = await open("");
    await row(page, "sandbox-heat").waitFor();
    const focused = () => page.evaluate(() => {
      const style = getComputedStyle(document.activeElement);
      const name = document.activeElement.textContent || document.activeElement.getAttribute("aria-label") || "";
      return { name: name.trim(), visible: document.activeElement === document.body || style.outlineStyle !== "none" };
    });
    async function tabTo(wanted) {
      for (let count = 0; count < 100; count += 1) {
        await page.keyboard.press("Tab");
        const { name, visible } = await focused();
        assert(visible, `no focus is seen on ${name}`);
        if (name.startsWith(wanted)) return;
      }
      assert.fail(`Tab does not reach ${wanted}`);
    }
    await page.keyboard.press("Tab");
    assert.equal((await focused()).name, "Skip to content");
    await tabTo("Explorer");
    await page.keyboard.press("Enter");
    await page.getByLabel("Search methods").waitFor();
    await tabTo("Search methods");
    await page.keyboard.type("liststacks");
    await tabTo("ListStacks");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "ListStacks" }).waitFor();
    assert.equal((await focused()).name.startsWith("ListStacks"), true);
    await page.getByLabel("Client token").focus();
    await page.keyboard.type(PAGE_TOKEN);
    await tabTo("Call");
    await page.keyboard.press("Enter");
    await state(page).getByText("OK", { exact: true }).waitFor();
  },

  async "it is readable at 400 pixels, in light and in dark"() {
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [400, 1280]) {
        const page = await open("", { colorScheme, viewport: { width, height: 800 } });
        await row(page, "sandbox-heat").waitFor();
        const check = async (what) => {
          const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          assert(overflow <= 0, `${what} is ${overflow} pixels too wide at ${width}`);
          assert.deepEqual(await lowContrast(page), [], `${what}, ${colorScheme}`);
        };
        await check("the status");
        await page.goto(`${PAGE_URL}/#/explorer`);
        await page.getByText("StackService", { exact: true }).waitFor();
        await check("the list of methods");
        await choose(page, `${STACKS}/CreateStack`);
        await page.getByRole("button", { name: "Call", exact: true }).click();
        await state(page).getByText("UNAUTHENTICATED").waitFor();
        await check("a method");
        assert.equal(await page.getByRole("link", { name: "All methods" }).isVisible(), width === 400);
        await page.context().close();
      }
    }
    const page = await open("", { colorScheme: "light" });
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.getByLabel("Colours").selectOption("dark");
    assert.notEqual(await ground(), light);
    await page.reload();
    assert.notEqual(await ground(), light, "the choice is remembered");
  },
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  if (!name.includes(process.argv[2] ?? "")) continue;
  try {
    await run();
    assert.deepEqual(complaints.splice(0), []);
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}\n${error.stack}`);
  }
}
await browser.close();
process.exit(failed === 0 ? 0 : 1);
