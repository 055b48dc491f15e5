// All layers of a run as one table: built once, then only the chosen row changes. Filtering happens here.
const tables = new WeakMap();
const known = new Map(); // what was sent, by view: it comes once
const KEPT = 8;
const SVG = "http://www.w3.org/2000/svg";
const HIST_HEIGHT = 16;
const BAR_PX = 2;

function made(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Heights of the bars come as digits, "0" for nothing.
function histogram(digits, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${digits.length * BAR_PX} ${HIST_HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", [...digits].map((digit, i) => {
    const height = (Number(digit) / 9) * HIST_HEIGHT;
    return height ? `M${i * BAR_PX} ${HIST_HEIGHT}v${-height.toFixed(1)}h${BAR_PX}v${height.toFixed(1)}z` : "";
  }).join(""));
  svg.append(path);
  return svg;
}

function cell(column, row) {
  const value = row[column.key];
  const td = made("td", column.look);
  if (column.key === "name") {
    const button = made("button", "", row.name);
    button.type = "button";
    button.style.setProperty("--depth", Math.min(row.depth, 8));
    button.title = row.id;
    td.append(button);
    for (const mark of row.marks) {
      const pill = made("span", `mark ${mark.tone}`);
      const icon = made("i", "", mark.icon);
      icon.setAttribute("aria-hidden", "true");
      pill.append(icon, mark.word);
      td.append(pill);
    }
    return td;
  }
  if (column.key === "hist") {
    if (value) td.append(histogram(value, row.histLabel));
    return td;
  }
  td.textContent = value ?? "";
  if (row.wrong.includes(column.key)) td.classList.add("wrong");
  return td;
}

class Table {
  constructor(box) {
    this.box = box;
    this.find = box.querySelector("input");
    this.count = box.querySelector(".count");
    this.frame = box.querySelector(".frame");
    this.find.oninput = () => this.filter();
    this.find.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      const first = this.lines.find((line) => !line.hidden);
      if (first) this.choose(first.dataset.id);
    };
    this.frame.onclick = (event) => {
      const line = event.target.closest("tr[data-id]");
      if (line) this.choose(line.dataset.id);
    };
    this.frame.onkeydown = (event) => this.arrow(event);
  }

  show(data, pick) {
    this.pick = pick;
    if (this.view !== data.view) this.build(data);
    else if (this.told !== data.selected) this.mark(data.selected, true);
    this.told = data.selected;
  }

  build(data) {
    this.view = data.view;
    const table = made("table");
    table.setAttribute("aria-label", data.label);
    const head = table.createTHead().insertRow();
    for (const column of data.columns) {
      const th = made("th", column.look.includes("num") ? "num" : "", column.title);
      th.scope = "col";
      if (column.help) th.title = column.help;
      head.append(th);
    }
    const body = table.createTBody();
    for (const row of data.rows) {
      const line = made("tr");
      line.dataset.id = row.id;
      line.dataset.words = `${row.id} ${row.kind}`.toLowerCase();
      if (row.why) line.title = row.why;
      line.append(...data.columns.map((column) => cell(column, row)));
      body.append(line);
    }
    this.frame.replaceChildren(table);
    this.lines = [...body.rows];
    this.filter();
    this.mark(data.selected, true);
    this.box.dataset.view = data.view;
  }

  filter() {
    const wanted = this.find.value.trim().toLowerCase();
    let shown = 0;
    for (const line of this.lines) {
      line.hidden = Boolean(wanted) && !line.dataset.words.includes(wanted);
      shown += line.hidden ? 0 : 1;
    }
    const all = this.lines.length;
    this.count.textContent = wanted ? `${shown} of ${all}` : `${all} in all`;
  }

  mark(id, scroll) {
    for (const line of this.lines) {
      const here = line.dataset.id === id;
      if (here) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
      line.querySelector("button").tabIndex = here ? 0 : -1;
      if (here && scroll) this.reveal(line);
    }
    if (!this.lines.some((line) => line.hasAttribute("aria-current")) && this.lines[0]) this.lines[0].querySelector("button").tabIndex = 0;
  }

  // Only the table's own frame scrolls, never the page.
  reveal(line) {
    const head = this.frame.querySelector("thead").offsetHeight;
    const top = line.offsetTop - head;
    const bottom = line.offsetTop + line.offsetHeight;
    if (top < this.frame.scrollTop) this.frame.scrollTop = top;
    else if (bottom > this.frame.scrollTop + this.frame.clientHeight) this.frame.scrollTop = bottom - this.frame.clientHeight;
  }

  choose(id) {
    this.mark(id, true);
    this.told = id;
    this.pick(id);
  }

  arrow(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const lines = this.lines.filter((line) => !line.hidden);
    const at = lines.findIndex((line) => line.contains(document.activeElement) || line.contains(this.box.getRootNode().activeElement));
    const next = lines[at + by];
    if (next) {
      this.choose(next.dataset.id);
      next.querySelector("button").focus({ preventScroll: true });
    }
  }
}

export default function ({ parentElement, data, setTriggerValue }) {
  const box = parentElement.querySelector(".points");
  let table = tables.get(box);
  if (!table) tables.set(box, (table = new Table(box)));
  if (data.rows) {
    known.delete(data.view);
    known.set(data.view, { columns: data.columns, rows: data.rows, label: data.label });
    if (known.size > KEPT) known.delete(known.keys().next().value);
  }
  const rows = known.get(data.view);
  if (rows) table.show({ ...rows, view: data.view, selected: data.selected }, (id) => setTriggerValue("picked", id));
  else setTriggerValue("missing", data.view);
  return () => tables.delete(box);
}
