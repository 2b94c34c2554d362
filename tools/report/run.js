/* Draws the page of a run, with page.js before it. */
const COLUMN = Object.fromEntries(D.columns.map((name, i) => [name, i]));
/* [step, value] where there is a value. */
const series = name => D.rows.map(r => [r[COLUMN.step], r[COLUMN[name]]]).filter(p => p[1] !== null && p[0] !== null);
const digits = (x, n = 4) => x === null || x === undefined ? "–" : Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-4) ? String(Number(x.toPrecision(n)).toExponential()) : String(Number(x.toPrecision(n)));

/* ---- a chart ---- */

/* Round numbers between low and high, about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(m => m * power >= raw) * power, out = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) out.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return out;
}

function bounds(values, zero) {
  let low = Math.min(...values), high = Math.max(...values);
  if (zero) low = Math.min(0, low);
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [zero && low >= 0 ? 0 : low - room, high + room];
}

/* Mean over neighbours, so that a trend shows in noise. */
function smooth(points) {
  const reach = Math.max(1, Math.round(points.length / 60));
  return points.map((p, i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [p[0], near.reduce((a, q) => a + q[1], 0) / near.length];
  });
}

/* lines: { name, points, key, faint, dots }; option: { title, show, zero, wide }. */
function chart(lines, option) {
  lines = lines.filter(l => l.points.length);
  if (!lines.length) return null;
  const narrow = document.documentElement.clientWidth < 600;
  const width = option.wide && !narrow ? 900 : 420, height = option.wide ? 300 : 210, left = 62, right = 12, top = 10, bottom = 26;
  const steps = lines.flatMap(l => l.points.map(p => p[0])), first = Math.min(...steps), last = Math.max(...steps);
  const [low, high] = bounds(lines.flatMap(l => l.points.map(p => p[1])), option.zero);
  const x = s => left + (width - left - right) * (last > first ? (s - first) / (last - first) : 0.5);
  const y = v => top + (height - top - bottom) * (1 - (v - low) / (high - low));
  const told = l => `${l.name} ${option.show(l.points[0][1])} at step ${l.points[0][0].toFixed(0)}, ${option.show(l.points[l.points.length - 1][1])} at step ${l.points[l.points.length - 1][0].toFixed(0)}`;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${option.title}: ${lines.filter(l => !l.faint || lines.length === 1).map(told).join("; ")}` });
  for (const v of ticks(low, high, 5))
    svg.append(make("line", { class: "axis", x1: left, x2: width - right, y1: y(v), y2: y(v) }), make("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, option.show(v)));
  for (const s of ticks(first, last > first ? last : first + 1, narrow || !option.wide ? 4 : 9))
    if (s <= last && Number.isInteger(s)) svg.append(make("text", { x: x(s), y: height - 7, "text-anchor": x(s) > width - 40 ? "end" : "middle" }, exact(s)));
  for (const l of lines) {
    const path = l.points.map(p => `${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("L");
    if (l.points.length > 1) svg.append(make("path", { d: "M" + path, fill: "none", stroke: colour(l.key), "stroke-width": l.faint ? 1 : 2, "stroke-opacity": l.faint ? 0.35 : 1, "stroke-linejoin": "round" }));
    if (l.dots || l.points.length === 1) for (const p of l.points) svg.append(make("circle", { cx: x(p[0]), cy: y(p[1]), r: 3.5, fill: colour(l.key) }));
  }
  const rule = make("line", { class: "axis", y1: top, y2: height - bottom, visibility: "hidden", style: "stroke:var(--soft)" });
  const info = make("p", { class: "read", "aria-hidden": "true" }, "\u00a0");
  svg.append(rule);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), at = first + (last - first) * ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
    const near = l => l.points.reduce((a, p) => Math.abs(p[0] - at) < Math.abs(a[0] - at) ? p : a);
    const base = near(lines[0]);
    rule.setAttribute("x1", x(base[0]));
    rule.setAttribute("x2", x(base[0]));
    rule.setAttribute("visibility", "visible");
    info.textContent = lines.map(l => [l, near(l)]).map(([l, p]) => `${l.name} ${option.show(p[1])} (step ${p[0].toFixed(0)})`).join(", ");
  });
  svg.addEventListener("pointerleave", () => { rule.setAttribute("visibility", "hidden"); info.textContent = "\u00a0"; });
  const legend = lines.length > 1 ? make("div", { class: "legend" }, ...lines.map(l => make("span", {}, make("i", { style: `background:${colour(l.key)};opacity:${l.faint ? 0.4 : 1}` }), l.name))) : null;
  return make("figure", {}, make("figcaption", {}, option.title), svg, legend, info);
}

/* ---- the page ---- */

function drawHead() {
  const s = D.state, state = by("state");
  document.title = D.name + " – Scout run";
  by("title").textContent = D.name;
  by("lead").textContent = `LoRA on ${D.model || "a model without a name"}: ${exact(s.step)} of ${exact(D.steps)} steps, ${exact(s.tokens)} tokens.`;
  state.textContent = D.is === "done" ? "Done." : D.is === "stopped" ? `Stopped behind step ${exact(s.step)}; the same command with --resume goes on.`
    : `As it was when step ${exact(s.step)} was saved.`;
  state.classList.add(s.skipped ? "bad" : "good");
  if (s.skipped) state.textContent += ` ${exact(s.skipped)} steps were skipped: their loss or gradient was no number.`;
}

function drawTiles() {
  const s = D.state, rates = series("tokens_per_second").map(p => p[1]), memory = series("memory_bytes").map(p => p[1]);
  const median = list => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
  const tiles = [[`${digits(s.first_loss)} → ${digits(s.last_loss)}`, "loss, first and last step"]];
  if (s.eval_before !== null) tiles.push([`${digits(s.eval_before)} → ${digits(s.eval_last)}`, "held-out loss, before and last"]);
  if (s.best_step >= 0) tiles.push([digits(s.best_loss), `lowest held-out loss, at step ${exact(s.best_step)}`]);
  if (rates.length) tiles.push([exact(Math.round(median(rates))), "tokens a second, median"]);
  if (memory.length) tiles.push([size(Math.max(...memory)), "memory in use, most"]);
  const share = series("matmul_share").map(p => p[1]);
  if (share.length) tiles.push([percent(median(share), 1), "of the machine's product rate, median"]);
  by("tiles").replaceChildren(...tiles.map(([value, what]) => make("div", { class: "tile" }, make("b", {}, value), make("span", {}, what))));
}

function drawCharts() {
  const loss = series("loss"), plain = x => digits(x);
  by("losses-lead").textContent = "Mean over the targets of each step" + (D.each > 1 ? `, every ${D.each} steps averaged to one point` : "") +
    (D.evals.length ? "; dots are the held-out loss." : ".");
  const put = (id, ...figures) => by(id).replaceChildren(...figures.filter(f => f));
  put("loss", chart([{ name: "each step", points: loss, key: "attention", faint: true }, { name: "smoothed", points: smooth(loss), key: "attention" },
    { name: "held out", points: D.evals, key: "routed", dots: true }], { title: "Loss", show: plain, wide: true }));
  put("step-figures",
    chart([{ name: "learning rate", points: series("learning_rate"), key: "shared" }], { title: "Learning rate", show: plain, zero: true }),
    chart([{ name: "each step", points: series("grad_norm"), key: "dense", faint: true }, { name: "smoothed", points: smooth(series("grad_norm")), key: "dense" }],
      { title: "Gradient norm, before clipping", show: plain, zero: true }),
    chart([{ name: "mean over layers", points: series("expert_load_mean"), key: "routed" }, { name: "largest layer", points: series("expert_load_max"), key: "router" }],
      { title: "Expert load: rows of the fullest expert over the mean", show: plain }));
  put("machine-figures",
    chart([{ name: "tokens a second", points: series("tokens_per_second"), key: "head" }], { title: "Tokens a second", show: x => exact(Math.round(x)), zero: true }),
    chart([{ name: "TFLOP/s", points: series("model_flops_per_second").map(p => [p[0], p[1] / 1e12]), key: "embedding" }],
      { title: "Model TFLOP/s", show: plain, zero: true }),
    chart([{ name: "share", points: series("matmul_share"), key: "embedding" }], { title: "Share of the machine's product rate", show: x => percent(x, 0), zero: true }),
    chart([{ name: "memory", points: series("memory_bytes"), key: "norms" }], { title: "Memory in use", show: size, zero: true }));
}

function drawTables() {
  if (D.evals.length)
    by("evals").append(table("Held-out loss", [["Step", 1], ["Loss", 1], ["Perplexity", 1]], D.evals.map(e => [exact(e[0]), e[1].toFixed(5), digits(Math.exp(e[1]))])));
  const names = ["step", "loss", "grad_norm", "learning_rate", "tokens_per_second"], every = Math.max(1, Math.ceil(D.rows.length / 200));
  by("steps").append(table(every > 1 ? `Every ${every}th point` : "All points", names.map(n => [n.replaceAll("_", " "), 1]),
    D.rows.filter((r, i) => i % every === 0 || i === D.rows.length - 1).map(r => names.map(n => digits(r[COLUMN[n]], 5)))));
  by("run").append(table("The run", [["What"], ["Value", 0, "hash"]], D.run));
  by("place").append(table("Where it was written", [["What"], ["Value", 0, "hash"]], D.place));
}

drawHead();
drawTiles();
drawCharts();
drawTables();
themeButton(() => {});
let wasNarrow = document.documentElement.clientWidth < 600;
addEventListener("resize", () => {
  const narrow = document.documentElement.clientWidth < 600;
  if (narrow !== wasNarrow) drawCharts();
  wasNarrow = narrow;
});
