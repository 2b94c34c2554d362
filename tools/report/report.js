/* Draws the page of a container, with page.js before it. */
const KIND = ["attention", "shared", "dense", "routed", "router", "norms", "head", "embedding", "unused"];

/* One stop for Tab in a group; arrow keys move inside it. grid: cells of a row, for up and down. */
function roving(items, grid) {
  items.forEach((e, i) => e.setAttribute("tabindex", i === 0 ? 0 : -1));
  items.forEach((e, i) => e.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid || 1, ArrowUp: -(grid || 1), Home: -i, End: items.length - 1 - i }[event.key];
    const next = step === undefined ? undefined : items[i + step];
    if (!next) return;
    event.preventDefault();
    e.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  }));
}

/* ---- head and contents ---- */

function drawHead() {
  document.title = D.name + " – Scout container";
  by("title").textContent = D.name;
  by("lead").textContent = `${D.model.id || "a model without a name"}: ${D.model.layers} layers, hidden ${exact(D.model.hidden)}, ` +
    `${D.model.experts} experts, vocabulary ${exact(D.model.vocabulary)}; ${exact(D.model.parameters)} parameters in ${size(D.file.bytes)}.`;
  const c = D.check, state = by("state");
  state.textContent = c.state === "ok" ? `Whole: all ${exact(c.chunks)} chunks match their checksums.`
    : c.state === "damaged" ? `Damaged: ${exact(c.damaged)} of ${exact(c.chunks)} chunks do not match their checksums.`
      : "Payload not checked (this report was made with --no-verify).";
  state.classList.add(c.state === "ok" ? "good" : c.state === "damaged" ? "bad" : "unknown");
  themeButton(drawGrid);
}

function drawContents() {
  const tiles = [[size(D.file.bytes), FILES.length > 1 ? `in ${FILES.length} files` : "the file"], [size(D.resident.gpu), "GPU memory: layers, experts, head"],
    [size(D.resident.host), "host memory: embedding rows"], [size(D.resident.unused), "stays in the file: not used by text training"],
    [size(D.file.padding), "padding between tensors"], [exact(D.tensors.length), "tensors"]];
  by("tiles").append(...tiles.map(([value, what]) => make("div", { class: "tile" }, make("b", {}, value), make("span", {}, what))));
  by("kinds").append(table("What the container holds", [["What"], ["Tensors", 1], ["Parameters", 1], ["Bytes", 1], ["Bits each", 1],
    ["Worst error", 1], ["Stored as"]],
  D.kinds.map(k => [k.kind, exact(k.tensors), exact(k.parameters), exact(k.bytes), k.parameters ? k.bits.toFixed(3) : "–",
    percent(k.worst), k.form])));
}

/* ---- the map of bytes ---- */

/* A container in several files is drawn as one row of bytes, file behind file. */
const FILES = [];
(D.files.length ? D.files : [[D.name, D.file.bytes, 0, D.file.payload_bytes]]).forEach(([name, bytes, address, payload]) => {
  const start = FILES.length ? FILES[FILES.length - 1].end : 0;
  FILES.push({ name, start, end: start + bytes, address, payload, at: start + D.file.payload_offset });
});
/* Where an address of the payload is drawn, and which file a drawn byte is in. */
function place(address) {
  const f = FILES.find(f => address >= f.address && address < f.address + f.payload);
  return f.at + address - f.address;
}
const fileOf = byte => FILES.find(f => byte < f.end) || FILES[FILES.length - 1];

/* ---- checksums of what is drawn ---- */

const badTensors = new Set(D.check.tensors), badExtents = new Set(D.check.extents);
const sums = bad => D.check.state === "not checked" ? "not compared" : bad ? "damaged" : "match";

const tensorsOf = D.extents.map(() => []);
D.tensors.forEach((t, i) => tensorsOf[t[1]].push(i));

const padding = (start, end) => ({ name: "padding", start, end, fill: "padding" });

/* Fills the holes between parts that are in order with padding. */
function withPadding(parts, start, end) {
  const out = [];
  let at = start;
  for (const p of parts) {
    if (p.start > at) out.push(padding(at, p.start));
    out.push(p);
    at = Math.max(at, p.end);
  }
  if (at < end) out.push(padding(at, end));
  return out;
}

function planesOf(index, wanted) {
  const t = D.tensors[index], parts = [];
  for (let i = 0; i < t[6].length; i += 3) {
    const start = place(t[6][i + 1]);
    parts.push({ name: t[0] + " · " + D.planes[t[6][i]], short: D.planes[t[6][i]], start, end: start + t[6][i + 2],
      fill: KIND[t[2]], bad: badTensors.has(index), shade: [1, 0.8, 0.62][tensorsOf[t[1]].indexOf(index) % 3], dim: wanted !== undefined && wanted !== index, tensor: index,
      children: wanted === undefined ? () => tensorParts(index) : undefined });
  }
  return parts;
}

/* The range from a tensor's first plane to its last, what lies between them dimmed. */
function tensorRange(index) {
  const own = planesOf(index);
  return [Math.min(...own.map(p => p.start)), Math.max(...own.map(p => p.end))];
}
function tensorParts(index) {
  const [start, end] = tensorRange(index);
  const parts = tensorsOf[D.tensors[index][1]].flatMap(i => planesOf(i, index)).filter(p => p.start < end && p.end > start);
  parts.sort((a, b) => a.start - b.start);
  return withPadding(parts, start, end);
}

function extentPart(i) {
  const [kind, layer, expert, address, bytes, lost] = D.extents[i];
  const start = place(address), end = start + bytes;
  const name = layer < 0 ? (kind === "shared" ? "codebooks" : kind) : expert < 0 ? `layer ${layer} ${kind}` : `layer ${layer} expert ${expert}`;
  const own = t => D.tensors[t][6].reduce((sum, n, k) => sum + (k % 3 === 2 ? n : 0), 0);
  const largest = tensorsOf[i].reduce((a, b) => a === undefined || own(b) > own(a) ? b : a, undefined);
  const fill = kind === "expert" ? "routed" : kind === "shared" || largest === undefined ? "frame" : KIND[D.tensors[largest][2]];
  const children = () => {
    let parts = tensorsOf[i].flatMap(t => planesOf(t));
    if (kind === "shared") parts = D.codebooks.map(([name, at, n]) => ({ name, start: place(at), end: place(at) + n, fill: "frame", bad: badExtents.has(i) }));
    parts.sort((a, b) => a.start - b.start);
    return withPadding(parts, start, end);
  };
  return { name, start, end, fill, lost, layer, expert, kind, bad: badExtents.has(i), children: tensorsOf[i].length || kind === "shared" ? children : undefined };
}

/* A file's own header, its extents (those of a layer together), and what stands behind them. */
function fileParts(file) {
  const parts = [{ name: "header", start: file.start, end: file.start + D.file.payload_offset, fill: "frame" }];
  D.extents.forEach((x, i) => {
    if (x[3] < file.address || x[3] >= file.address + file.payload) return;
    const part = extentPart(i), last = parts[parts.length - 1];
    if (x[1] < 0) { parts.push(part); return; }
    if (last.layer === x[1] && last.extents) { last.extents.push(part); last.end = part.end; last.lost += part.lost; last.bad ||= part.bad; return; }
    const layer = { name: `layer ${x[1]}`, start: part.start, end: part.end, fill: "routed", layer: x[1], lost: part.lost, bad: part.bad, extents: [part] };
    layer.children = () => layer.extents;
    parts.push(layer);
  });
  const end = file.at + file.payload;
  if (file.end > end) parts.push({ name: "checksums, index, metadata", start: end, end: file.end, fill: "frame" });
  return parts;
}

const setParts = () => FILES.map(f => {
  const own = fileParts(f);
  return { name: f.name, start: f.start, end: f.end, fill: f.payload ? "routed" : "frame", bad: own.some(p => p.bad),
    extents: own.flatMap(p => p.extents || [p]), children: () => own };
});
const FILE = { name: D.name, start: 0, end: FILES[FILES.length - 1].end, bad: badExtents.size > 0,
  children: () => FILES.length > 1 ? setParts() : fileParts(FILES[0]) };
let trail = [FILE];

function describe(p) {
  const share = 100 * (p.end - p.start) / D.file.bytes;
  const file = fileOf(p.start), whole = p.start === file.start && p.end >= file.end;
  let text = `${p.name}: ${exact(p.end - p.start)} bytes (${size(p.end - p.start)}), ` +
    (FILES.length === 1 ? `bytes ${exact(p.start)} to ${exact(p.end)}, ` : whole ? "" : `bytes ${exact(p.start - file.start)} to ${exact(p.end - file.start)} of ${file.name}, `) +
    `${share >= 0.01 ? share.toFixed(2) : share.toPrecision(2)} % of ${FILES.length === 1 ? "the file" : "the container"}`;
  if (p.lost) text += `; ${exact(p.lost)} bytes of padding`;
  if (p.tensor !== undefined) {
    const t = D.tensors[p.tensor];
    text += `; ${t[4]} ${t[3]}` + (t[5] === null ? "" : `, error ${percent(t[5])}`);
  }
  if (p.bad !== undefined) text += `; checksums ${sums(p.bad)}`;
  return text + ".";
}

/* Where bytes start..end of the view lie: one rectangle a line they touch. */
function boxes(view, rows, width, height, gap, start, end) {
  const line = (view.end - view.start) / rows, out = [];
  const first = Math.min(rows - 1, Math.floor((start - view.start) / line));
  for (let r = first; r < rows; r++) {
    const a = Math.max(start - view.start, r * line), b = Math.min(end - view.start, (r + 1) * line);
    if (b <= a) break;
    out.push([(a - r * line) / line * width, r * (height + gap), Math.max((b - a) / line * width, 0.4), height]);
  }
  return out;
}

function outline(list) {
  return list.map(([x, y, w, h]) => `M${x.toFixed(2)} ${y}h${w.toFixed(2)}v${h}h${(-w).toFixed(2)}z`).join("");
}

function drawMap(focus) {
  const view = trail[trail.length - 1], parts = view.children();
  const narrow = by("map").clientWidth < 600;
  const rows = narrow ? 12 : 8, width = narrow ? 400 : 1000, height = narrow ? 26 : 30, gap = 5;
  const svg = make("svg", { viewBox: `0 0 ${width} ${rows * (height + gap) - gap}`, role: "group", "aria-label": `Bytes of ${view.name}` });
  const items = parts.map((p, i) => {
    const list = boxes(view, rows, width, height, gap, p.start, p.end);
    const g = make("g", { class: "part" + (p.dim ? " dim" : ""), role: p.children ? "button" : "img", "aria-label": describe(p) });
    g.append(make("path", { d: outline(list), fill: colour(p.fill), "fill-opacity": p.shade }));
    for (const inner of p.extents || []) /* a layer shows what lies in it */
      g.append(make("path", { d: outline(boxes(view, rows, width, height, gap, inner.start, inner.end)), fill: colour(inner.fill), "fill-opacity": inner.kind === "expert" && inner.expert % 2 ? 0.72 : 1 }));
    g.append(make("path", { d: outline(list), class: "edge" }));
    if (p.bad) g.append(make("path", { d: outline(list), class: "damaged" }));
    g.addEventListener("mouseenter", () => { by("map-info").textContent = describe(p); });
    g.addEventListener("focus", () => { by("map-info").textContent = describe(p); });
    g.addEventListener("click", () => enter(p));
    g.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enter(p); }
      if (event.key === "Escape" && trail.length > 1) leave(trail.length - 2);
    });
    svg.append(g);
    return g;
  });
  roving(items);
  by("map").replaceChildren(svg);
  by("map-info").textContent = describe(view);
  drawCrumbs();
  drawParts(parts);
  if (focus && items[0]) items[0].focus();
}

function enter(p) {
  if (!p.children) return;
  trail.push(p);
  if (p.tensor !== undefined) { /* a plane opens its tensor */
    const [start, end] = tensorRange(p.tensor);
    trail[trail.length - 1] = { name: D.tensors[p.tensor][0], start, end, tensor: p.tensor, bad: p.bad, children: p.children };
  }
  drawMap(true);
}
function leave(depth) {
  trail = trail.slice(0, depth + 1);
  drawMap(true);
}

function drawCrumbs() {
  by("crumbs").replaceChildren(...trail.flatMap((p, i) => {
    const last = i === trail.length - 1;
    const button = make("button", { type: "button", "aria-current": last ? "location" : null, onclick: () => leave(i) }, i === 0 ? FILES.length > 1 ? "all files" : "whole file" : p.name);
    return last ? [button] : [button, "›"];
  }));
}

function drawParts(parts) {
  const rows = parts.map(p => [p.children ? make("button", { type: "button", class: "name", onclick: () => enter(p) }, p.name) : p.name,
    exact(p.start - fileOf(p.start).start), exact(p.end - p.start), size(p.end - p.start), p.bad === undefined ? "–" : sums(p.bad)]);
  by("parts-table").replaceChildren(table(trail[trail.length - 1].name,
    [["Part"], [FILES.length > 1 ? "Offset in its file" : "Offset", 1], ["Bytes", 1], ["Size", 1], ["Checksums"]], rows));
}

function drawLegend() {
  const there = KIND.filter((k, i) => D.tensors.some(t => t[2] === i));
  const names = Object.fromEntries(KIND.map((k, i) => [k, D.kind_names[i]]));
  by("legend").append(...[...there, "frame", "padding"].map(k => make("span", {}, make("i", { style: `background:${colour(k)}` }),
    names[k] || { frame: "the container's own", padding: "padding" }[k])),
  ...(badExtents.size ? [make("span", {}, make("i", { class: "damaged" }), "damaged")] : []));
}

/* ---- experts ---- */

function channel(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).split(",").map(Number);
}

/* From a view down to an expert; through the file that holds it, where there are several. */
function way(view, layer, expert) {
  for (const p of view.children ? view.children() : []) {
    if (p.layer === layer && p.expert === expert) return [p];
    if (p.layer !== undefined && p.layer !== layer || p.tensor !== undefined || p.kind) continue;
    const rest = way(p, layer, expert);
    if (rest) return [p, ...rest];
  }
}

function drawGrid() {
  const cells = new Map();
  D.extents.forEach(([kind, layer, expert, , bytes], i) => {
    if (kind !== "expert") return;
    const errors = tensorsOf[i].map(t => D.tensors[t][5]).filter(e => e !== null);
    cells.set(layer + "/" + expert, { i, bytes, bad: badExtents.has(i), error: errors.length ? Math.max(...errors) : null });
  });
  const errors = [...cells.values()].map(c => c.error).filter(e => e !== null);
  if (!cells.size) { by("experts-lead").textContent = "This model has no routed experts."; return; }
  const least = Math.min(...errors), most = Math.max(...errors), low = channel("--least"), high = channel("--worst");
  const layers = [...new Set(D.extents.filter(x => x[0] === "expert").map(x => x[1]))];
  const experts = Math.max(...D.extents.map(x => x[2])) + 1;
  const mix = e => low.map((v, k) => Math.round(v + (high[k] - v) * (most > least ? (e - least) / (most - least) : 0)));
  by("experts-lead").replaceChildren(errors.length ? "Worst error of each expert’s matrices: " + percent(least) : "Not quantized.",
    ...(errors.length ? [make("span", { class: "ramp", style: `background:linear-gradient(90deg,rgb(${low}),rgb(${high}))`, role: "img", "aria-label": "to" }), percent(most) + ". Choose one to see its bytes."] : []));
  const items = [];
  const body = layers.map(layer => make("tr", {}, make("th", { scope: "row" }, layer), ...Array.from({ length: experts }, (unused, e) => {
    const c = cells.get(layer + "/" + e);
    if (!c) return make("td", {});
    const rgb = c.error === null ? null : mix(c.error), bright = rgb && rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 125;
    const text = `Layer ${layer} expert ${e}: worst error ${percent(c.error)}, ${exact(c.bytes)} bytes, checksums ${sums(c.bad)}.`;
    const show = () => { by("grid-info").textContent = text; };
    const open = () => {
      trail = [FILE, ...way(FILE, layer, e)];
      drawMap(true);
      by("layout").scrollIntoView();
    };
    const td = make("td", { class: c.bad ? "damaged" : null, role: "button", "aria-label": text, style: rgb ? `background:rgb(${rgb});color:${bright ? "#1c2126" : "#ffffff"}` : null,
      onmouseenter: show, onfocus: show, onclick: open,
      onkeydown: event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } } },
    make("span", {}, c.error === null ? "–" : (100 * c.error).toFixed(2)));
    items.push(td);
    return td;
  })));
  by("grid").replaceChildren(make("table", { class: "grid" }, make("caption", {}, "Rows: layers; columns: experts; error in percent"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""), ...Array.from({ length: experts }, (unused, e) => make("th", { scope: "col" }, e)))),
    make("tbody", {}, ...body)));
  roving(items, experts);
}

/* ---- error by layer and kind ---- */

function layerErrors() {
  const out = new Map();
  for (const t of D.tensors) {
    const layer = D.extents[t[1]][1];
    if (t[5] === null || layer < 0) continue;
    const key = t[2];
    if (!out.has(key)) out.set(key, new Map());
    const at = out.get(key);
    if (!at.has(layer)) at.set(layer, []);
    at.get(layer).push(t[5]);
  }
  return out;
}

function drawChart() {
  const kinds = layerErrors(), all = [...kinds.values()].flatMap(m => [...m.values()].flat());
  if (!all.length) { by("chart").textContent = "Nothing is quantized."; return; }
  const width = by("chart").clientWidth < 600 ? 420 : 900, height = 260, left = 56, bottom = 28, top = 10, layers = Math.max(D.model.layers, 2);
  let low = Math.min(...all), high = Math.max(...all);
  const room = (high - low || high || 1) * 0.08;
  low = Math.max(0, low - room); high += room;
  const x = l => left + (width - left - 12) * (D.model.layers > 1 ? l / (layers - 1) : 0.5);
  const y = e => top + (height - top - bottom) * (1 - (e - low) / (high - low));
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", style: "width:100%",
    "aria-label": `Error by layer for ${[...kinds.keys()].map(k => D.kind_names[k]).join(", ")}; the table below has the numbers` });
  for (let i = 0; i <= 4; i++) {
    const e = low + (high - low) * i / 4;
    svg.append(make("line", { class: "axis", x1: left, x2: width - 12, y1: y(e), y2: y(e) }), make("text", { x: left - 6, y: y(e) + 4, "text-anchor": "end" }, percent(e, 2)));
  }
  const step = Math.ceil(D.model.layers / (width < 600 ? 8 : 16));
  for (let l = 0; l < D.model.layers; l += step) svg.append(make("text", { x: x(l), y: height - 8, "text-anchor": "middle" }, l));
  const rows = [], legend = make("div", { class: "legend" });
  for (const [k, map] of [...kinds].sort((a, b) => a[0] - b[0])) {
    const points = [...map].sort((a, b) => a[0] - b[0]).map(([l, list]) => [l, Math.min(...list), list.reduce((a, b) => a + b) / list.length, Math.max(...list)]);
    const go = (list, pick) => list.map(p => `${x(p[0]).toFixed(1)} ${y(p[pick]).toFixed(1)}`).join("L");
    svg.append(make("path", { d: "M" + go(points, 1) + "L" + go([...points].reverse(), 3) + "z", fill: colour(KIND[k]), "fill-opacity": 0.16 }));
    svg.append(make("path", { d: "M" + go(points, 2), fill: "none", stroke: colour(KIND[k]), "stroke-width": 2 }));
    for (const p of points) svg.append(make("rect", { x: x(p[0]) - 3, y: y(p[2]) - 3, width: 6, height: 6, fill: colour(KIND[k]) },
      make("title", {}, `Layer ${p[0]}, ${D.kind_names[k]}: ${percent(p[1])} to ${percent(p[3])}, mean ${percent(p[2])}`)));
    legend.append(make("span", {}, make("i", { style: `background:${colour(KIND[k])}` }), D.kind_names[k]));
    rows.push(...points.map(p => [D.kind_names[k], p[0], percent(p[1]), percent(p[2]), percent(p[3])]));
  }
  by("chart").append(svg, legend);
  by("chart-table").append(table("Error by kind and layer", [["Kind"], ["Layer", 1], ["Least", 1], ["Mean", 1], ["Worst", 1]], rows));
}

/* ---- codes and scales ---- */

function histogram(counts, label, low, high, key) {
  const width = 320, height = 110, bottom = 18, most = Math.max(...counts, 1), all = counts.reduce((a, b) => a + b, 0);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${label}: ${counts.map(n => (100 * n / (all || 1)).toFixed(1)).join(", ")} percent` });
  counts.forEach((n, i) => {
    const h = (height - bottom - 4) * n / most;
    svg.append(make("rect", { x: i * width / counts.length + 0.5, y: height - bottom - h, width: width / counts.length - 1, height: h, fill: colour(key) },
      make("title", {}, `${label} ${i + 1} of ${counts.length}: ${exact(n)}, ${(100 * n / (all || 1)).toFixed(2)} %`)));
  });
  svg.append(make("line", { class: "axis", x1: 0, x2: width, y1: height - bottom, y2: height - bottom }),
    make("text", { x: 1, y: height - 4 }, low), make("text", { x: width - 1, y: height - 4, "text-anchor": "end" }, high),
    make("text", { x: width / 2, y: height - 4, "text-anchor": "middle" }, label));
  return svg;
}

function drawHistograms() {
  by("histograms-lead").textContent = D.histograms.length ? "How often each of the 16 codes occurs, and how the scales of the blocks are distributed. " +
    (D.histograms_chosen ? "The tensors that were asked for." : "Of each kind the tensor of median error and the one of the greatest.") : "Nothing is quantized.";
  for (const h of D.histograms) {
    const t = D.tensors[h.tensor], key = KIND[t[2]];
    by("bars").append(make("figure", {}, make("figcaption", {}, `${t[0]}: ${t[3]}, error ${percent(t[5])}`),
      histogram(h.codes, "codes", h.least_value.toFixed(2), h.greatest_value.toFixed(2), key),
      histogram(h.scales, "scales", "0", h.greatest_scale.toPrecision(3), key)));
  }
}

/* ---- memory ---- */

function drawPlan() {
  const p = D.plan;
  by("plan-lead").textContent = p ? "Training LoRA of rank 16 on every matrix, one row of 2,048 tokens a micro-batch, as much recomputed as the card needs: " +
    "what scout-inspect plan MODEL --max-seq-length 2048 --per-device-train-batch-size 1 tells." : "No plan could be made of this container; scout-inspect plan tells why.";
  for (const card of p ? p.cards : []) {
    const used = card.parts.reduce((a, part) => a + part[1], 0);
    const text = `${card.name}, ${size(card.bytes)}: ` + (card.fits ? `fits, ${size(card.bytes - used)} left (${card.parts.map(part => part[0] + " " + size(part[1])).join(", ")}).`
      : `does not fit: ${card.why}.`);
    by("cards").append(make("div", { class: "card" }, make("p", {}, make("span", { class: card.fits ? "good" : "bad" }, card.fits ? "✓ " : "✗ "), text),
      card.fits ? make("div", { class: "bar", "aria-hidden": "true" }, ...card.parts.map(part => make("i", { title: `${part[0]}: ${size(part[1])}`,
        style: `width:${100 * part[1] / card.bytes}%;background:${colour(part[2])}` }))) : null));
  }
}

/* ---- checksums, provenance ---- */

function drawChecksums() {
  const c = D.check;
  by("checksums-lead").textContent = "Header, index and metadata match their hashes. " + by("state").textContent +
    ` Chunks are ${size(D.file.chunk_bytes)} of payload, each with a seeded XXH3.`;
  if (c.listed.length)
    by("damage").append(table(c.listed.length < c.damaged ? `The first ${exact(c.listed.length)}` : "Damaged chunks",
      [["Chunk", 1], ["Offset", 1], ["Bytes", 1], ["What lies there"], ...(FILES.length > 1 ? [["File"]] : [])],
      c.listed.map(d => [exact(d[0]), exact(d[1]), exact(d[2]), d[3], ...(FILES.length > 1 ? [d[4]] : [])])));
}

function drawProvenance() {
  const p = D.provenance;
  by("facts").append(table("The container", [["What"], ["Value", 0, "hash"]], [["identity", D.file.identity], ["format", D.file.version],
    ["converter", p.converter], ["options", p.options || "none that change content"],
    ["source", `${size(p.source_bytes)} of tensors`], ["architecture", `${D.model.architecture} (${D.model.family})`]]));
  by("shards").append(table("Tensor bytes read at conversion", [["File"], ["Bytes", 1], ["XXH3-128", 0, "hash"]], p.source.map(s => [s[0], exact(s[1]), s[2]])));
  by("carried").append(table("Files inside the container", [["File"], ["Bytes", 1]], p.carried.map(s => [s[0], exact(s[1])])));
}

drawHead();
drawContents();
drawLegend();
drawMap(false);
drawGrid();
drawChart();
drawHistograms();
drawPlan();
drawChecksums();
drawProvenance();
let drawnWidth = by("map").clientWidth;
addEventListener("resize", () => { /* focus stays where it is unless the map's form changes */
  if ((by("map").clientWidth < 600) !== (drawnWidth < 600)) drawMap(false);
  drawnWidth = by("map").clientWidth;
});
