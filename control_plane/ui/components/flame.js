// An icicle. Each node: {name, kind, parent, width, heat, look, told}; parents stand before their children.
const views = new WeakMap();
const ROW_PX = 22;
const LEAST_PX = 1.2;
const LABEL_PX = 34;
const DEEPEST = 80;

class Flame {
  constructor(root) {
    this.root = root;
    this.boxes = root.querySelector(".boxes");
    this.told = root.querySelector(".told");
    this.count = root.querySelector(".count");
    this.search = root.querySelector("input");
    this.out = root.querySelector(".out");
    this.focus = -1;
    this.search.addEventListener("input", () => this.mark());
    this.out.addEventListener("click", () => this.zoom(-1));
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(root);
  }

  show(data) {
    const said = JSON.stringify(data);
    if (said === this.said) return;
    this.said = said;
    this.nodes = data.nodes;
    this.focus = -1;
    this.boxes.setAttribute("aria-label", data.alt);
    this.root.querySelector(".note").textContent = data.note;
    this.draw();
  }

  zoom(at) {
    this.focus = at;
    this.draw();
    const box = this.boxes.querySelector(`[data-at="${at}"]`);
    if (box) box.focus();
  }

  // Left edge and width of every box as shares of the view; boxes beside the one zoomed into have none.
  layout() {
    const nodes = this.nodes, above = new Set();
    for (let at = this.focus; at >= 0; at = nodes[at].parent) above.add(at);
    const whole = this.focus >= 0 ? nodes[this.focus].width : nodes.filter((n) => n.parent < 0).reduce((sum, n) => sum + n.width, 0);
    const places = [], filled = new Map();
    nodes.forEach((node, at) => {
      const parent = node.parent >= 0 ? places[node.parent] : { left: 0, depth: -1, inside: this.focus < 0 };
      if (above.has(at)) {
        places.push({ left: 0, width: 1, depth: parent.depth + 1, inside: at === this.focus, above: at !== this.focus });
      } else if (parent && parent.inside) {
        const left = filled.get(node.parent) ?? parent.left;
        const width = whole > 0 ? node.width / whole : 0;
        filled.set(node.parent, left + width);
        places.push({ left, width, depth: parent.depth + 1, inside: true });
      } else places.push(null);
    });
    return places;
  }

  draw() {
    if (!this.nodes) return;
    const width = this.boxes.clientWidth || this.root.clientWidth;
    if (!width) return;
    let deepest = 0;
    const drawn = document.createDocumentFragment();
    this.layout().forEach((place, at) => {
      if (!place || place.width * width < LEAST_PX || place.depth > DEEPEST) return;
      deepest = Math.max(deepest, place.depth);
      drawn.append(this.box(at, place, width));
    });
    this.boxes.replaceChildren(drawn);
    this.boxes.style.height = `${(deepest + 1) * ROW_PX}px`;
    this.out.disabled = this.focus < 0;
    this.mark();
  }

  box(at, place, width) {
    const node = this.nodes[at], px = place.width * width;
    const box = document.createElement("div");
    box.className = `box ${node.kind} ${node.look}${place.above ? " above" : ""}${px < LABEL_PX ? " narrow" : ""}`;
    box.style.cssText = `left:${place.left * 100}%;width:calc(${place.width * 100}% - ${px > 4 ? 1 : 0}px);top:${place.depth * ROW_PX}px`;
    box.style.setProperty("--heat", node.heat);
    box.dataset.at = at;
    box.title = node.told;
    box.setAttribute("role", "treeitem");
    box.setAttribute("aria-label", node.told);
    if (px >= LABEL_PX) { box.textContent = node.name; box.tabIndex = 0; }
    box.addEventListener("click", () => this.zoom(at));
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.zoom(at);
      if (event.key === "Escape") this.zoom(-1);
    });
    for (const kind of ["mouseenter", "focus"]) box.addEventListener(kind, () => { this.told.textContent = node.told; });
    return box;
  }

  mark() {
    const wanted = this.search.value.trim().toLowerCase();
    this.boxes.classList.toggle("searching", Boolean(wanted));
    let found = 0;
    for (const box of this.boxes.children) {
      const hit = Boolean(wanted) && this.nodes[box.dataset.at].name.toLowerCase().includes(wanted);
      box.classList.toggle("found", hit);
      found += hit;
    }
    this.count.textContent = wanted ? `${found} found` : "";
  }

  stop() { this.sizes.disconnect(); }
}

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".flame");
  let view = views.get(root);
  if (!view) views.set(root, (view = new Flame(root)));
  view.show(data);
  return () => { view.stop(); views.delete(root); };
}
