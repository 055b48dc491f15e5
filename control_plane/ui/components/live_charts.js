// Draws one Plotly chart a panel and keeps it: data arrive by fetch, Plotly.react redraws in place.
const SECOND = 1000;
const STALE_AFTER_MS = 8 * SECOND;
const states = new WeakMap();

// A share is shown in percent, seconds in milliseconds, bytes in the binary unit that fits the largest value.
function scaleOf(panel) {
  if (panel.unit === "share") return { factor: 100, unit: "%" };
  if (panel.unit === "s") return { factor: 1000, unit: "ms" };
  if (panel.unit === "bytes") {
    const top = Math.max(1, ...panel.lines.flatMap((line) => line.y.filter((y) => y !== null)));
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    const power = Math.min(units.length - 1, Math.floor(Math.log2(top) / 10));
    return { factor: 1 / 1024 ** power, unit: units[power] };
  }
  return { factor: 1, unit: panel.unit };
}

// Plotly draws milliseconds as UTC: shifted by the zone's offset they read as the viewer's own time.
function local(ms) {
  return ms - new Date(ms).getTimezoneOffset() * 60 * SECOND;
}

const NO_ENDPOINT_COLOUR = 9; // the palette's grey

// Requests that named no endpoint come last and in grey: they are nobody's traffic.
function namesNone(line) {
  return line.labels?.endpoint === "";
}

function traces(panel, look, scale, colourOf) {
  const lines = [...panel.lines].sort((a, b) => namesNone(a) - namesNone(b));
  return lines.map((line) => ({
    type: "scatter", mode: "lines", name: line.name, x: line.x.map(local), connectgaps: false,
    y: line.y.map((y) => (y === null ? null : y * scale.factor)),
    line: { width: 1.6, color: look.colours[(namesNone(line) ? NO_ENDPOINT_COLOUR : colourOf(line.name)) % look.colours.length] },
    hovertemplate: `%{y:.4~g} ${scale.unit}<extra>%{fullData.name}</extra>`,
  }));
}

function layout(look, scale, range, id) {
  const axis = { gridcolor: look.line, linecolor: look.line, zeroline: false, fixedrange: false, automargin: true };
  return {
    // uirevision keeps hidden lines over updates; zoom is ours (Plotly drops it when the range moves on).
    uirevision: id, height: 216, margin: { l: 8, r: 10, t: 8, b: 8 }, hovermode: "x unified",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: look.font, size: 11, color: look.text },
    hoverlabel: { bgcolor: look.background, bordercolor: look.line, font: { color: look.text } },
    showlegend: true, legend: { orientation: "h", x: 0, y: -0.13, yanchor: "top", font: { size: 11 } },
    xaxis: { ...axis, type: "date", range, showgrid: false, nticks: 7, hoverformat: "%H:%M:%S",
      tickformatstops: [{ dtickrange: [null, 30000], value: "%H:%M:%S" }, { dtickrange: [30000, null], value: "%H:%M" }] },
    yaxis: { ...axis, fixedrange: true, rangemode: "tozero", ticksuffix: scale.unit.length < 4 ? ` ${scale.unit}` : "", nticks: 5 },
  };
}

const LIMIT_COLOUR = "#d6453c"; // seen on light and dark; its label is in the text's own colour

// Moments as vertical lines, limits as dashed ones; each says what it is.
function lines(data, panel, look, scale, range) {
  const [from, to] = range.map((edge) => new Date(edge).getTime());
  const marks = (data.marks ?? []).filter((mark) => local(mark.x) >= from && local(mark.x) <= to);
  const limits = data.limits?.[panel.id] ?? [];
  const label = { font: { size: 10, color: look.text }, showarrow: false, bgcolor: look.background, borderpad: 1 };
  return {
    shapes: [
      ...marks.map((mark) => ({ type: "line", xref: "x", yref: "paper", x0: local(mark.x), x1: local(mark.x), y0: 0, y1: 1,
        line: { color: look.text, width: 1, dash: "dot" }, opacity: 0.55 })),
      ...limits.map((limit) => ({ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: limit.y * scale.factor, y1: limit.y * scale.factor,
        line: { color: LIMIT_COLOUR, width: 1.4, dash: "dash" } })),
    ],
    annotations: [
      ...marks.map((mark) => ({ ...label, xref: "x", yref: "paper", x: local(mark.x), y: 1, yanchor: "top", xanchor: "left", text: mark.text })),
      ...limits.map((limit) => ({ ...label, xref: "paper", yref: "y", x: 0, y: limit.y * scale.factor, xanchor: "left", yanchor: "bottom", text: limit.text })),
    ],
  };
}

class LiveCharts {
  constructor(root) {
    this.root = root;
    this.panels = new Map();
    this.colours = new Map();
    this.last = null;
    this.receivedAt = 0;
    this.problem = null;
    this.zoom = null; // [from, to] as Plotly dates, the same on every chart
    this.status = element("div", "sbl-status");
    this.status.setAttribute("role", "status");
    this.grid = element("div", "sbl-grid");
    root.replaceChildren(this.status, this.grid);
    this.onVisible = () => { if (!document.hidden) this.tick(); };
    document.addEventListener("visibilitychange", this.onVisible);
    this.themeWatch = onTheme(root, () => this.last && this.draw());
    this.sizes = new ResizeObserver(() => this.fit());
    this.sizes.observe(this.grid);
    this.ager = setInterval(() => this.showStatus(), SECOND);
  }

  configure(data) {
    const changed = !this.data || ["rangeS", "endpoint", "url"].some((key) => this.data[key] !== data[key]);
    const resumed = this.data?.paused && !data.paused;
    const marked = this.data && JSON.stringify([this.data.marks, this.data.limits]) !== JSON.stringify([data.marks, data.limits]);
    this.data = data;
    if (changed) {
      this.view = `${data.rangeS}-${data.endpoint ?? ""}`;
      this.zoom = null;
    }
    if (changed || resumed || !this.timer) this.tick();
    else if (marked && this.last) this.draw();
    this.showStatus();
  }

  fit() {
    for (const kept of this.panels.values()) if (!kept.chart.hidden && kept.chart.data) window.Plotly.Plots.resize(kept.chart);
  }

  schedule() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tick(), this.data.refreshMs);
  }

  async tick() {
    if (this.gone) return;
    this.schedule();
    if (document.hidden || (this.data.paused && this.last) || this.fetching) return;
    this.fetching = true;
    const asked = this.view;
    try {
      const query = new URLSearchParams({ range_s: this.data.rangeS });
      if (this.data.endpoint) query.set("endpoint", this.data.endpoint);
      const [answer] = await Promise.all([
        fetch(`${this.data.url}?${query}`, { headers: { accept: "application/json" }, signal: AbortSignal.timeout(10 * SECOND) }),
        loadPlotly(this.data.plotly),
      ]);
      if (!answer.ok) throw new Error(`the dashboard answered ${answer.status}`);
      const bundle = await answer.json();
      if (this.gone || asked !== this.view) return;
      this.last = bundle;
      this.receivedAt = Date.now();
      this.problem = null;
      this.draw();
    } catch (error) {
      this.problem = error.name === "TimeoutError" ? "no answer within 10 s" : error.message;
    } finally {
      this.fetching = false;
      this.showStatus();
      if (asked !== this.view && !this.gone) this.tick();
    }
  }

  colourOf(name) {
    if (!this.colours.has(name)) this.colours.set(name, this.colours.size);
    return this.colours.get(name);
  }

  draw() {
    const look = theme(this.root);
    const to = this.last.now * SECOND;
    const range = this.zoom ?? [local(to - this.last.range_s * SECOND), local(to)];
    const shown = this.last.panels.filter((panel) => !this.data.panels || this.data.panels.includes(panel.id));
    const ids = new Set(shown.map((panel) => panel.id));
    for (const [id, kept] of this.panels) {
      if (!ids.has(id)) { window.Plotly.purge(kept.chart); kept.box.remove(); this.panels.delete(id); }
    }
    for (const panel of shown) this.panelFor(panel); // all boxes first, so that each chart knows its width
    for (const panel of shown) this.drawPanel(panel, look, range);
  }

  panelFor(panel) {
    let kept = this.panels.get(panel.id);
    if (!kept) {
      const box = element("section", "sbl-panel");
      const unit = element("span");
      const title = element("h4", "", panel.title);
      title.append(unit);
      const chart = element("div", "sbl-chart");
      const empty = element("div", "sbl-empty");
      chart.dataset.panel = panel.id;
      chart.setAttribute("role", "img");
      box.append(title, chart, empty);
      this.grid.append(box);
      kept = { box, unit, chart, empty };
      this.panels.set(panel.id, kept);
    }
    return kept;
  }

  drawPanel(panel, look, range) {
    const kept = this.panelFor(panel);
    const nothing = panel.lines.length === 0;
    kept.empty.hidden = !nothing;
    kept.chart.hidden = nothing;
    if (nothing) {
      kept.unit.textContent = "";
      kept.empty.textContent = panel.empty || "No data in this range yet.";
      return;
    }
    const scale = scaleOf(panel);
    kept.unit.textContent = scale.unit;
    kept.chart.setAttribute("aria-label", `${panel.title} in ${scale.unit} over time; the table below the charts says the same`);
    const options = { displayModeBar: false, responsive: false, doubleClick: false };
    const picture = { ...layout(look, scale, range, this.view), ...lines(this.data, panel, look, scale, range) };
    const fresh = !kept.chart.data;
    window.Plotly.react(kept.chart, traces(panel, look, scale, (name) => this.colourOf(name)), picture, options);
    if (fresh) this.listen(kept.chart);
  }

  // Dragging over one chart zooms all of them; a double click shows the whole range again.
  listen(chart) {
    chart.on("plotly_relayout", (change) => {
      const from = change["xaxis.range[0]"];
      if (from === undefined) return;
      this.zoom = [from, change["xaxis.range[1]"]];
      this.draw();
    });
    chart.on("plotly_doubleclick", () => { this.zoom = null; this.draw(); });
  }

  showStatus() {
    const dataAge = this.last ? Date.now() - this.receivedAt : null;
    const [kind, words] = this.statusWords(dataAge);
    const badge = element("span", `sbl-badge ${kind}`, words);
    const said = this.status.firstChild;
    if (said?.textContent !== words || said.className !== badge.className) this.status.replaceChildren(badge);
  }

  statusWords(age) {
    if (this.data?.paused) return ["paused", "❚❚ Paused"];
    const seconds = age === null ? null : Math.round(age / SECOND);
    if (this.problem) return ["stale", `▲ Not updating: ${this.problem}` + (seconds === null ? "" : ` · data ${seconds} s old`)];
    if (age === null) return ["paused", "Loading …"];
    if (age > STALE_AFTER_MS) return ["stale", `▲ Data ${seconds} s old`];
    const collected = this.measuredAgo();
    if (collected * SECOND > STALE_AFTER_MS + this.last.step_s * 2 * SECOND) return ["stale", `▲ Last measurement ${collected} s ago: is the controller running?`];
    return ["live", "● Live · every 2 s"];
  }

  // Seconds between the newest measured value and the answer; 0 when nothing was ever measured.
  measuredAgo() {
    let newest = 0;
    for (const panel of this.last.panels) for (const line of panel.lines) {
      for (let i = line.y.length - 1; i >= 0; i -= 1) if (line.y[i] !== null) { newest = Math.max(newest, line.x[i]); break; }
    }
    return newest ? Math.round(this.last.now - newest / SECOND) : 0;
  }

  stop() {
    this.gone = true;
    clearTimeout(this.timer);
    clearInterval(this.ager);
    this.themeWatch.disconnect();
    this.sizes.disconnect();
    document.removeEventListener("visibilitychange", this.onVisible);
    if (window.Plotly) for (const kept of this.panels.values()) window.Plotly.purge(kept.chart);
  }
}

export default function (component) {
  const { parentElement, data } = component;
  const root = parentElement.querySelector(".sbl");
  let charts = states.get(root);
  if (!charts) states.set(root, (charts = new LiveCharts(root)));
  charts.configure(data);
  return () => { charts.stop(); states.delete(root); };
}
