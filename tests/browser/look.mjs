// Opens a page in Chromium, in light and dark, on a phone and on a desk, and prints as JSON what a reader would meet:
//   node look.mjs PAGE
// The browser comes with the package @sparticuz/chromium, which brings the libraries and the font that a bare machine
// may lack, and unpacks all of it into the folder for temporary files.
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";

process.env.AWS_EXECUTION_ENV = "AWS_Lambda_nodejs24.x"; // else it leaves out the libraries
// Its own list of fonts knows /tmp alone.
process.env.FONTCONFIG_FILE = join(tmpdir(), "fonts.conf");
writeFileSync(
  process.env.FONTCONFIG_FILE,
  `<fontconfig><dir>${tmpdir()}/fonts</dir><cachedir>${tmpdir()}/fonts-cache</cachedir></fontconfig>`,
);
const { default: chromium } = await import("@sparticuz/chromium");
const { default: puppeteer } = await import("puppeteer-core");

const AXE = createRequire(import.meta.url).resolve("axe-core");
const WIDTHS = { phone: 360, desk: 1280 };

chromium.setGraphicsMode = false;
const browser = await puppeteer.launch({
  executablePath: await chromium.executablePath(),
  args: chromium.args,
  headless: "shell",
});
try {
  const looks = [];
  for (const [screen, width] of Object.entries(WIDTHS)) {
    for (const scheme of ["light", "dark"]) {
      looks.push({ screen, scheme, ...(await look(width, scheme)) });
    }
  }
  console.log(JSON.stringify(looks));
} finally {
  await browser.close();
}

async function look(width, scheme) {
  const page = await browser.newPage();
  const requests = [];
  const messages = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => messages.push(message.text()));
  page.on("pageerror", (error) => messages.push(String(error)));
  await page.setViewport({ width, height: 800 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(process.argv[2]).href);
  const shown = await page.evaluate(() => ({
    title: document.querySelector("h1").innerText,
    paper: getComputedStyle(document.body).backgroundColor,
    overflow: document.documentElement.scrollWidth - innerWidth,
    plots: [...document.querySelectorAll("svg")].map((plot) => {
      const box = plot.getBoundingClientRect();
      const texts = [...plot.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
      return {
        texts: texts.length,
        smallest: Math.min(...texts.map(([, at]) => at.height)),
        cut: texts
          .filter(([, at]) => at.left < box.left - 1 || at.right > box.right + 1 || at.bottom > box.bottom + 1)
          .map(([text]) => text),
      };
    }),
  }));
  const scrolled = [];
  const regions = await page.$$(".wide");
  for (const region of regions) {
    do {
      await page.keyboard.press("Tab");
    } while (await page.evaluate(() => document.activeElement.tagName === "SUMMARY"));
    await page.keyboard.press("ArrowRight");
    await setTimeout(300); // it glides
    scrolled.push(
      await region.evaluate((it) => ({
        focused: it === document.activeElement,
        beyond: it.scrollWidth - it.clientWidth,
        moved: it.scrollLeft,
      })),
    );
  }
  await page.addScriptTag({ path: AXE });
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  await page.close();
  return {
    ...shown,
    requests,
    messages,
    scrolled,
    violations: violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html.slice(0, 200))]),
  };
}
