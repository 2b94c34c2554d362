/* Last script of a run's page under test: what it saw goes into the page as <pre id="probe">. */
"use strict";
const probeLines = [];
const want = (what, good) => { if (!good) probeLines.push("probe: " + what); };
const all = selector => [...document.querySelectorAll(selector)];

try {
  const figures = all("figure svg").map(f => f.getAttribute("aria-label"));
  for (const title of ["Loss: ", "Learning rate: ", "Gradient norm", "Expert load", "Tokens a second: ", "Memory in use: "])
    want(`no figure ${title} in ${figures.join(" | ")}`, figures.some(label => label.startsWith(title)));
  for (const svg of all("figure svg")) {
    want("a figure draws nothing", svg.querySelector("path[d], circle"));
    want("a figure's path is broken: " + svg.outerHTML.slice(0, 300), !/NaN|undefined|Infinity/.test(svg.outerHTML));
  }
  want("held-out losses are a table of " + D.evals.length, all("#evals tbody tr").length === D.evals.length);
  want("a row for every option", all("#run tbody tr").length === D.run.length && D.run.length > 15);
  const svg = document.querySelector("#loss svg"), box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, clientY: box.top + 5 }));
  want("a pointer reads values: " + document.querySelector("#loss .read").textContent, /step \d+/.test(document.querySelector("#loss .read").textContent));
  const before = getComputedStyle(document.body).backgroundColor;
  document.querySelector("#theme").click();
  want("the theme changes", getComputedStyle(document.body).backgroundColor !== before);
  want(`the page is ${document.documentElement.scrollWidth} wide in a window of ${innerWidth}`, document.documentElement.scrollWidth <= innerWidth);
  want("nothing was loaded", performance.getEntriesByType("resource").length === 0);
  for (const e of all("nav, section")) want("a region without a name", e.hasAttribute("aria-label") || e.hasAttribute("aria-labelledby"));
  want("one main heading", all("h1").length === 1 && all("h1")[0].textContent.length > 0);
} catch (e) {
  probeLines.push("probe: " + e.stack.replace(/\s+/g, " "));
}
probeLines.push(...probeErrors.map(e => "probe: error: " + e));
document.body.append(Object.assign(document.createElement("pre"), { id: "probe",
  textContent: `\n${probeLines.length ? probeLines.join("\n") : "probe: good"}\nprobe state: ${document.querySelector("#state").textContent}\n` }));
