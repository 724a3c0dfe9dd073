// Runs the page in headless Chromium.
// Usage: node chromium.mjs CHROMIUM PAGE GATEWAY ALLOWED

import { chromium } from "playwright-core";

const [executablePath, page, gateway, allowed] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const tab = await browser.newPage();
  tab.on("pageerror", (error) => console.error(error));
  tab.on("console", (message) => console.error(message.text()));
  await tab.goto(page);
  if (allowed === "yes") {
    const lines = await tab.evaluate((gateway) => globalThis.run(gateway), gateway);
    console.log(lines.join("\n"));
  } else {
    const error = await tab.evaluate(
      (gateway) => globalThis.run(gateway).then(() => "none", (error) => String(error)),
      gateway,
    );
    console.log(`chromium is not allowed: ${error}`);
  }
} finally {
  await browser.close();
}
