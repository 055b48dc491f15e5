// Draws the trials of a search and keeps the drawing: Plotly.react redraws in place, so that zoom and choice stay.
const drawn = new WeakMap();
const GROUPS = [ // drawn in this order, the last on top
  { key: "parent", name: "parent", colour: 0, symbol: "square" },
  { key: "accepted", name: "accepted", colour: 2, symbol: "circle" },
  { key: "rejected", name: "rejected", colour: 7, symbol: "diamond" },
  { key: "screened", name: "measured roughly", colour: 0, symbol: "circle-open" },
  { key: "dropped", name: "left behind", colour: 9, symbol: "circle-open" },
  { key: "failed", name: "failed", colour: 9, symbol: "x" },
];
const BELOW = "triangle-down";
const HEIGHT_PX = 430;
const NARROW_PX = 480;
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5]; // of the agreement's axis, in percentage points: ticks that end at 100 %
const MOST_STEPS = 6;
const ENDS = ["pointerup", "pointercancel"];
const STILL_PX = 4; // a pointer that moves less between press and release clicks, and does not drag
const TICKS = [0.05, 0.1, 0.2, 0.25, 0.33, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20];
const FEW_TICKS = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 20];

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function said(point) {
  const [head, ...lines] = point.text.map(escaped);
  return [`<b>${head}</b>`, ...lines].join("<br>");
}

function groupTrace(group, points, look, selected) {
  const colour = look.colours[group.colour % look.colours.length];
  const chosen = points.map((point) => point.number === selected && point.number > 0);
  // The parent is named beside its mark and takes no clicks: variants like it lie upon it.
  const parent = group.key === "parent";
  return {
    type: "scatter", mode: parent ? "markers+text" : "markers", name: group.name, x: points.map((p) => p.x), y: points.map((p) => p.y),
    customdata: points.map((p) => p.number), hovertext: points.map(said),
    hoverinfo: parent ? "skip" : "text", text: points.map((p) => p.text[0]), textposition: "bottom center", legendrank: 10,
    error_x: {
      type: "data", symmetric: false, array: points.map((p) => p.high - p.x), arrayminus: points.map((p) => p.x - p.low),
      color: colour, thickness: 1, width: 3,
    },
    marker: {
      color: colour, opacity: 0.9, size: points.map((p) => p.px), symbol: points.map((p) => (p.clipped ? BELOW : group.symbol)),
      line: { width: chosen.map((yes) => (yes ? 3 : 1.2)), color: chosen.map((yes) => (yes ? look.text : colour)) },
    },
  };
}

function frontTrace(data, look) {
  const by = new Map(data.points.map((point) => [point.number, point]));
  const line = data.front.map((number) => by.get(number)).filter(Boolean);
  return {
    type: "scatter", mode: "lines", name: "Pareto front", x: line.map((p) => p.x), y: line.map((p) => p.y), hoverinfo: "skip",
    line: { shape: "hv", color: look.text, width: 1.2, dash: "dot" }, opacity: 0.6, legendrank: 20,
  };
}

function ticks(points, values) {
  const low = Math.min(...points.map((p) => p.low)) / 1.25;
  const high = Math.max(...points.map((p) => p.high)) * 1.25;
  return { range: [Math.log10(low), Math.log10(high)], values, text: values.map((value) => `${value}×`) };
}

function layout(data, look, width, zoom) {
  const axis = { gridcolor: look.line, linecolor: look.line, zeroline: false, automargin: true };
  const narrow = width < NARROW_PX;
  const x = ticks(data.points, narrow ? FEW_TICKS : TICKS);
  const lowest = Math.min(...data.points.map((point) => point.y));
  const step = STEPS.find((each) => (100 - lowest) / each <= MOST_STEPS);
  const room = Math.max(0.15, (100 - lowest) * 0.12);
  return {
    // uirevision keeps hidden groups over updates; zoom is ours (Plotly drops it when the range grows).
    uirevision: data.view, height: narrow ? NARROW_PX : HEIGHT_PX, margin: { l: 8, r: 12, t: 8, b: 8 }, hovermode: "closest", dragmode: "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: look.font, size: 12, color: look.text },
    hoverlabel: { bgcolor: look.background, bordercolor: look.line, align: "left", font: { color: look.text } },
    showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemsizing: "constant" },
    xaxis: { ...axis, type: "log", title: { text: data.xTitle, standoff: 8, font: { size: narrow ? 11 : 13 } }, range: zoom?.x ?? x.range,
      tickvals: x.values, ticktext: x.text, tickangle: 0 },
    yaxis: { ...axis, title: { text: data.yTitle, standoff: 8, font: { size: narrow ? 11 : 13 } }, range: zoom?.y ?? [lowest - room, 100 + Math.min(room, step * 0.8)],
      tick0: 100, dtick: zoom ? undefined : step, ticksuffix: " %" },
    shapes: [{ type: "line", xref: "x", yref: "paper", x0: 1, x1: 1, y0: 0, y1: 1, line: { color: look.text, width: 1, dash: "dash" }, opacity: 0.35 }],
  };
}

class Pareto {
  constructor(root) {
    this.root = root;
    this.zoom = null; // {x, y} ranges as Plotly has them
    this.chart = element("div", "sbo-chart");
    this.chart.setAttribute("role", "img");
    this.note = element("p", "sbo-note");
    root.replaceChildren(this.chart, this.note);
    this.themeWatch = onTheme(root, () => this.data && this.draw());
    this.sizes = new ResizeObserver(() => { if (this.chart.data && !this.pressed) window.Plotly.Plots.resize(this.chart); });
    this.released = (event) => this.release(event);
    this.sizes.observe(root);
  }

  async show(data, pick) {
    this.pick = pick;
    const said = JSON.stringify(data);
    if (this.said === said) return; // a redraw would take away the label under the pointer
    this.said = said;
    if (this.data?.view !== data.view) this.zoom = null;
    this.data = data;
    try {
      await loadPlotly(data.plotly);
      if (!this.gone) this.draw();
    } catch (error) {
      this.said = null;
      this.note.textContent = `The chart is not there: ${error.message}. The table below says the same.`;
    }
  }

  draw() {
    this.late = Boolean(this.pressed); // a redraw in the middle of a drag would break it
    if (this.late) return;
    const { data } = this;
    const look = theme(this.root);
    const traces = [frontTrace(data, look)];
    for (const group of GROUPS) {
      const points = data.points.filter((point) => point.group === group.key);
      if (points.length) traces.push(groupTrace(group, points, look, data.selected));
    }
    this.chart.setAttribute("aria-label", `${data.xTitle} against ${data.yTitle} of ${data.points.length} versions; the table below says the same`);
    const clipped = data.points.filter((point) => point.clipped).length;
    const below = clipped ? ` ▼ ${clipped} below ${data.floor} %, drawn at the edge.` : "";
    this.note.textContent = `Left is better, up is better; a larger bubble is a larger artefact. Click a point for its report, drag to zoom, double-click to zoom out.${below}`;
    const fresh = !this.chart.data;
    const picture = layout(data, look, this.root.clientWidth, this.zoom);
    window.Plotly.react(this.chart, traces, picture, { displayModeBar: false, responsive: false, doubleClick: false });
    if (fresh) this.listen();
  }

  listen() {
    this.chart.addEventListener("pointerdown", (event) => this.press(event), true);
    this.chart.on("plotly_doubleclick", () => { this.zoom = null; this.draw(); });
    this.chart.on("plotly_relayout", (change) => {
      if (change["xaxis.range[0]"] === undefined && change["yaxis.range[0]"] === undefined) return;
      const { xaxis, yaxis } = this.chart.layout;
      this.zoom = { x: [...xaxis.range], y: [...yaxis.range] };
    });
  }

  // Plotly forgets what is under the pointer when it redraws, and would lose a click just after: so clicks are ours.
  press(event) {
    this.pressed = [event.clientX, event.clientY];
    for (const kind of ENDS) document.addEventListener(kind, this.released, true); // Plotly covers the page meanwhile
  }

  release(event) {
    for (const kind of ENDS) document.removeEventListener(kind, this.released, true);
    const [x, y] = this.pressed;
    const still = event.type === "pointerup" && Math.hypot(event.clientX - x, event.clientY - y) <= STILL_PX;
    const number = still ? this.under(event) : null;
    if (number !== null) this.pick(number);
    setTimeout(() => { // once Plotly has ended its own drag
      this.pressed = null;
      if (this.late && !this.gone) this.draw();
    });
  }

  // Number of the variant under the pointer: where several are, the one whose centre is nearest.
  under(event) {
    const { xaxis, yaxis } = this.chart._fullLayout;
    const box = this.chart.getBoundingClientRect();
    const far = (point) => Math.hypot(
      box.left + xaxis._offset + xaxis.d2p(point.x) - event.clientX, box.top + yaxis._offset + yaxis.d2p(point.y) - event.clientY);
    const near = this.data.points
      .filter((point) => point.number > 0 && far(point) <= point.px / 2 + STILL_PX)
      .sort((one, other) => far(one) - far(other));
    return near[0]?.number ?? null;
  }

  stop() {
    this.gone = true;
    for (const kind of ENDS) document.removeEventListener(kind, this.released, true);
    this.themeWatch.disconnect();
    this.sizes.disconnect();
    if (window.Plotly && this.chart.data) window.Plotly.purge(this.chart);
  }
}

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".sbo");
  let chart = drawn.get(root);
  if (!chart) drawn.set(root, (chart = new Pareto(root)));
  chart.show(data, (number) => setTriggerValue("picked", number));
  return () => { chart.stop(); drawn.delete(root); };
}
