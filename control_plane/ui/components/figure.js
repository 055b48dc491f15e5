// Draws one Plotly figure and keeps it. Colours come as "@3" (of the palette), "@text", "@line", "@background",
// and "@positive" and "@negative" for the ends of a heat map, on which text can be read.
const figures = new WeakMap();
const RESTS_MS = 60;

function coloured(value, look) {
  if (typeof value === "string" && value.startsWith("@")) {
    const name = value.slice(1);
    return /^\d$/.test(name) ? look.colours[Number(name)] : look[name] ?? value;
  }
  if (Array.isArray(value)) return value.length > 64 ? value : value.map((each) => coloured(each, look));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, look)]));
  return value;
}

function axes(layout, look) {
  const common = { gridcolor: look.line, linecolor: look.line, zeroline: false, automargin: true };
  const found = Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name));
  return Object.fromEntries(found.map((name) => [name, { ...common, ...layout[name] }]));
}

class Figure {
  constructor(root) {
    this.root = root;
    this.chart = element("div", "sbf-chart");
    this.chart.setAttribute("role", "img");
    this.note = element("p", "sbf-note");
    this.ends = { positive: element("i", "sbf-positive"), negative: element("i", "sbf-negative") };
    root.replaceChildren(this.chart, this.note, ...Object.values(this.ends));
    this.themeWatch = onTheme(root, () => this.data && this.draw());
    this.sizes = new ResizeObserver(() => { if (this.chart.data) window.Plotly.Plots.resize(this.chart); });
    this.sizes.observe(root);
  }

  async show(data, pick) {
    this.pick = pick;
    const said = JSON.stringify(data);
    if (this.said === said) return;
    this.said = said;
    this.data = data;
    this.chart.style.minHeight = `${data.height}px`;
    this.chart.setAttribute("aria-label", data.alt);
    this.note.textContent = data.note ?? "";
    try {
      await loadPlotly(data.plotly);
      if (!this.gone) this.draw();
    } catch (error) {
      this.said = null;
      this.note.textContent = `The chart is not there: ${error.message}. ${data.alt}`;
    }
  }

  draw() {
    const look = theme(this.root);
    for (const [name, end] of Object.entries(this.ends)) look[name] = getComputedStyle(end).color;
    const layout = coloured(this.data.layout, look);
    const fresh = !this.chart.data;
    window.Plotly.react(this.chart, coloured(this.data.traces, look), {
      uirevision: this.data.view, margin: { l: 8, r: 12, t: 8, b: 8 }, hovermode: "closest", showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: look.font, size: 12, color: look.text },
      hoverlabel: { bgcolor: look.background, bordercolor: look.line, align: "left", font: { color: look.text } },
      ...layout, ...axes(layout, look), height: this.data.height,
    }, { displayModeBar: false, responsive: false });
    this.chart.dataset.view = this.data.view;
    if (fresh) this.chart.on("plotly_click", (event) => this.clicked(event));
  }

  clicked(event) {
    const [point] = event.points;
    const told = point.customdata ?? (point.data.type === "heatmap" ? [point.pointIndex[0], point.pointIndex[1]] : undefined);
    if (told !== undefined) setTimeout(() => this.pick(told), RESTS_MS); // once Plotly has ended its own drag
  }

  stop() {
    this.gone = true;
    this.themeWatch.disconnect();
    this.sizes.disconnect();
    if (window.Plotly && this.chart.data) window.Plotly.purge(this.chart);
  }
}

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".sbf");
  let figure = figures.get(root);
  if (!figure) figures.set(root, (figure = new Figure(root)));
  figure.show(data, (told) => setTriggerValue("picked", told));
  return () => { figure.stop(); figures.delete(root); };
}
