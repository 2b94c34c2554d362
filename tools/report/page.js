"use strict";
/* What the pages share. Text goes in as text, never as markup; D is the object in #data. */
const D = JSON.parse(document.getElementById("data").textContent);
const by = id => document.getElementById(id);

function make(tag, attributes, ...children) {
  const svg = ["svg", "g", "rect", "path", "line", "circle", "text", "title"].includes(tag);
  const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {}))
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) e.setAttribute(key, value);
  for (const child of children) if (child !== undefined && child !== null) e.append(child);
  return e;
}
const exact = n => n.toLocaleString("en-US");
function size(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let k = 0;
  while (n >= 999.5 && k < 4) { n /= 1000; k++; }
  return (k === 0 ? n : n >= 100 ? n.toFixed(1) : n.toFixed(2)) + " " + units[k];
}
const percent = (x, digits = 3) => x === null ? "–" : (100 * x).toFixed(digits) + " %";
const colour = key => "var(--" + key + ")";

/* heads: [title, number?]; rows of cells: text, or an element. */
function table(caption, heads, rows) {
  const cell = (tag, value, i) => make(tag, { class: heads[i][1] ? "n" : heads[i][2] || null, scope: tag === "th" ? "col" : null }, value);
  return make("table", {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map((h, i) => cell("th", h[0], i)))),
    make("tbody", {}, ...rows.map(r => make("tr", {}, ...r.map((v, i) => cell("td", v, i))))));
}

/* The button that turns dark into light; `then` draws what does not follow by itself. */
function themeButton(then) {
  by("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    then();
  });
}

