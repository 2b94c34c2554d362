/* Last script of the page under test: does what a reader would and writes what it saw into the page
 * as <pre id="probe">: "probe: good", or one line a failure. */
"use strict";
const probeLines = [];
const want = (what, good) => { if (!good) probeLines.push("probe: " + what); };
const one = selector => document.querySelector(selector);
const all = selector => [...document.querySelectorAll(selector)];
const press = (element, key) => element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const crumbs = () => all("#crumbs button").map(b => b.textContent).join(" > ");

/* The parts of every view lie side by side and cover it. */
function tiles(view, depth) {
  if (!view.children) return;
  const parts = view.children();
  let at = view.start;
  for (const p of parts) {
    want(`${view.name}: ${p.name} begins at ${p.start}, not ${at}`, p.start === at || p.dim);
    at = Math.max(at, p.end);
    if (depth > 0 && p.tensor === undefined) tiles(p, depth - 1);
  }
  want(`${view.name}: its parts end at ${at}, not ${view.end}`, at === view.end);
}

function probeMap() {
  const layers = D.model.layers, top = D.files.length ? "all files" : "whole file";
  let parts = all("#map .part"), above = top;
  if (D.files.length) { /* a set: into the second of its files, which holds layer 0 */
    want("a part for every file", parts.length === D.files.length);
    parts[1].dispatchEvent(new MouseEvent("click", { bubbles: true }));
    above = top + " > " + D.files[1][0];
    want("a click opens a file, not: " + crumbs(), crumbs() === above);
    parts = all("#map .part");
  } else
    want("the file's parts are there", parts.length > layers);
  parts[1].dispatchEvent(new MouseEvent("mouseenter"));
  want("hovering tells of layer 0, not: " + one("#map-info").textContent, one("#map-info").textContent.startsWith("layer 0: "));
  parts[1].dispatchEvent(new MouseEvent("click", { bubbles: true }));
  want("a click zooms in, not to: " + crumbs(), crumbs() === above + " > layer 0");
  want("a layer shows its extents", D.files.length > 0 || all("#map .part").length === D.extents.filter(x => x[1] === 0).length);
  want("focus went along", document.activeElement === one("#map .part"));
  if (all("#map .part").length > 1) {
    press(document.activeElement, "ArrowRight");
    want("an arrow moves on", document.activeElement === all("#map .part")[1]);
  }
  want("one part takes Tab", all('#map .part[tabindex="0"]').length === 1);
  press(document.activeElement, "Enter");
  want("Enter zooms in, not to: " + crumbs(), crumbs().startsWith(above + " > layer 0 > layer 0 ") && /(expert 0|dense)$/.test(crumbs()));
  press(document.activeElement, "Enter");
  want("a plane zooms to its tensor, not to: " + crumbs(), crumbs().split(" > ").pop().endsWith(".weight"));
  press(document.activeElement, "Escape");
  press(document.activeElement, "Escape");
  want("Escape goes back, not to: " + crumbs(), crumbs() === above + " > layer 0");
  one("#crumbs button").click();
  want("the first crumb is the file", crumbs() === top);
  tiles(FILE, D.files.length ? 4 : 3);
  want("what is damaged is marked, nothing else",
    (all("#map path.damaged").length > 0) === (D.check.state === "damaged"));
  if (D.check.state === "damaged")
    want("a damaged part says so", /checksums damaged/.test(one("#map path.damaged").parentNode.getAttribute("aria-label")));
}

function probeGrid() {
  const cells = all("#grid td[role=button]");
  want("a cell for every expert", cells.length === D.extents.filter(x => x[0] === "expert").length);
  if (!cells.length) return;
  cells[cells.length - 1].dispatchEvent(new MouseEvent("mouseenter"));
  want("hovering tells of an expert", /^Layer \d+ expert \d+: /.test(one("#grid-info").textContent));
  cells[1].click();
  want("a cell opens its bytes, not: " + crumbs(), / > layer \d+ expert 1$/.test(crumbs()));
  one("#crumbs button").click();
}

function probeReach() {
  for (const e of all("svg, .part, [role=img], [role=button]"))
    want(`${e.tagName} ${e.getAttribute("class")} has no label`, (e.getAttribute("aria-label") || "").length > 1);
  for (const e of all("nav, section")) want("a region without a name", e.hasAttribute("aria-label") || e.hasAttribute("aria-labelledby"));
  want("one main heading", all("h1").length === 1 && one("h1").textContent.length > 0);
  want("a language", document.documentElement.lang === "en");
  want(`the page is ${document.documentElement.scrollWidth} wide in a window of ${innerWidth}`,
    document.documentElement.scrollWidth <= innerWidth);
  want("nothing was loaded", performance.getEntriesByType("resource").length === 0);
}

function probeTheme() {
  const before = getComputedStyle(document.body).backgroundColor;
  one("#theme").click();
  want("the theme changes", getComputedStyle(document.body).backgroundColor !== before);
  one("#theme").click();
  want("and changes back", getComputedStyle(document.body).backgroundColor === before);
}

function probePlan() {
  want("four cards", all("#cards .card").length === 4);
  want("a card tells what is left", /: fits, .* left|: does not fit: /.test(one("#cards .card").textContent));
}

try {
  probePlan();
  probeMap();
  probeGrid();
  probeTheme();
  probeReach();
} catch (e) {
  probeLines.push("probe: " + e.stack.replace(/\s+/g, " "));
}
probeLines.push(...probeErrors.map(e => "probe: error: " + e));
document.body.append(Object.assign(document.createElement("pre"), { id: "probe",
  textContent: `\n${probeLines.length ? probeLines.join("\n") : "probe: good"}\nprobe state: ${document.querySelector("#state").textContent}\n` }));
