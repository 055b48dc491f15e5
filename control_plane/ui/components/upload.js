// Sends chosen files to the REST API: create, one streamed PUT a file, complete. One form a page.
const forms = new WeakMap();
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const PROGRAM = /\.(pt|pt2|pth|ts|torchscript)$/i;
const SPEED_WINDOW_MS = 3000;

function size(bytes) {
  let power = 0;
  while (bytes >= 1023.5 && power < UNITS.length - 1) { bytes /= 1024; power += 1; }
  return `${power && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${UNITS[power]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// A chosen folder's own name is not part of the paths inside it.
function chosen(list) {
  const files = [...list].map((file) => ({ file, path: file.webkitRelativePath || file.name, size: file.size }));
  return withoutFolder(files);
}

function withoutFolder(files) {
  const first = files[0]?.path.split("/")[0];
  const nested = files.length > 0 && files.every((entry) => entry.path.startsWith(`${first}/`));
  const inner = nested ? files.map((entry) => ({ ...entry, path: entry.path.slice(first.length + 1) })) : files;
  return inner.filter((entry) => !entry.path.split("/").some((part) => part.startsWith(".")));
}

async function dropped(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return withoutFolder(found);
}

async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, path: entry.fullPath.replace(/^\//, ""), size: file.size });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return;
    for (const child of part) await walk(child, found);
  }
}

class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

function explain(body, fallback) {
  const error = body?.error;
  if (!error) return fallback;
  return [error.message, error.next_step].filter(Boolean).join(" ");
}

class UploadForm {
  constructor(root, component) {
    this.root = root;
    this.files = [];
    this.attempt = null; // { declaration, id }: an upload that was cut, to go on with
    this.whole = new Set(); // File objects that have arrived
    this.busy = false;
    this.$ = (id) => root.querySelector(`#${id}`);
    this.listen();
    this.configure(component);
  }

  configure({ data, setTriggerValue }) {
    if (data.resume?.id !== this.data?.resume?.id) this.whole.clear();
    this.data = data;
    this.sent = (id) => setTriggerValue("sent", id);
    this.$("models").replaceChildren(...data.models.map((name) => Object.assign(document.createElement("option"), { value: name })));
    if (data.resume && !this.busy) {
      this.$("model").value = data.resume.model;
      this.$("drop-title").textContent = "Choose the same files again to send the rest";
    }
    this.$("model").disabled = Boolean(data.resume);
    this.refresh();
  }

  listen() {
    const drop = this.$("drop");
    this.$("pick-file").onclick = () => this.$("file").click();
    this.$("pick-folder").onclick = () => this.$("folder").click();
    this.$("file").onchange = (event) => this.choose(chosen(event.target.files));
    this.$("folder").onchange = (event) => this.choose(chosen(event.target.files));
    drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
    drop.ondragleave = () => drop.classList.remove("over");
    drop.ondrop = async (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      this.choose(await dropped(event.dataTransfer.items));
    };
    this.$("model").oninput = () => this.refresh();
    this.$("cancel").onclick = () => this.cancel();
    this.root.onsubmit = (event) => { event.preventDefault(); this.send(); };
  }

  choose(files) {
    if (this.busy) return;
    this.files = files;
    this.problem(files.length ? "" : "There is no file in what was chosen.");
    const model = this.$("model");
    if (files.length && !model.value) model.value = this.suggestion(files);
    this.refresh();
  }

  suggestion(files) {
    const base = files.length === 1 ? files[0].path.replace(/\.[^.]*$/, "") : "";
    return base.toLowerCase().replace(/[^a-z0-9-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 63);
  }

  refresh() {
    const list = this.$("files");
    list.hidden = this.files.length === 0;
    list.replaceChildren(...this.files.slice(0, 200).map((entry) => {
      const row = document.createElement("li");
      row.append(Object.assign(document.createElement("span"), { textContent: entry.path }),
        Object.assign(document.createElement("span"), { textContent: size(entry.size) }));
      return row;
    }));
    const total = this.files.reduce((sum, entry) => sum + entry.size, 0);
    this.$("total").textContent = this.files.length ? `${this.files.length} ${this.files.length === 1 ? "file" : "files"}, ${size(total)}` : "";
    this.$("program").hidden = !this.files.some((entry) => PROGRAM.test(entry.path)) || Boolean(this.data.resume);
    this.$("more").hidden = Boolean(this.data.resume);
    this.$("send").disabled = this.busy || this.files.length === 0 || !this.$("model").value.trim();
    this.$("cancel").hidden = !this.busy;
    for (const id of ["pick-file", "pick-folder"]) this.$(id).disabled = this.busy;
  }

  problem(words) {
    this.$("problem").textContent = words;
    this.$("problem").hidden = !words;
  }

  async call(method, path, body) {
    const answer = await fetch(`${this.data.api}${path}`, {
      method, headers: { "content-type": "application/json", "x-signalbox-actor": this.data.actor },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    let parsed = null;
    try { parsed = text ? JSON.parse(text) : null; } catch { /* explained by the status below */ }
    if (!answer.ok) throw new ApiError(explain(parsed, `The dashboard answered ${answer.status}.`), answer.status);
    return parsed;
  }

  details() {
    const lines = this.$("details").value.split("\n").map((line) => line.trim()).filter(Boolean);
    return Object.fromEntries(lines.map((line) => {
      const at = line.indexOf("=");
      if (at < 1) throw new ApiError(`Metadata line “${line}” has no “=”. Write key=value.`);
      const value = line.slice(at + 1).trim();
      const number = Number(value);
      return [line.slice(0, at).trim(), value !== "" && Number.isFinite(number) ? number : value];
    }));
  }

  labels() {
    const text = this.$("labels").value.trim();
    return text.split(text.includes("\n") ? "\n" : ",").map((label) => label.trim()).filter(Boolean);
  }

  declaration() {
    return {
      model: this.$("model").value.trim(), files: this.files.map(({ path, size: bytes }) => ({ path, size_bytes: bytes })),
      details: this.details(), labels: this.labels(), accept_program: this.$("accept").checked,
    };
  }

  // The upload to send to, and whether it still takes bytes: after a failure the same one, if it is declared the same.
  async open() {
    if (this.data.resume) return { id: this.data.resume.id, receiving: true };
    const declaration = this.declaration();
    const words = JSON.stringify(declaration);
    const state = this.attempt?.declaration === words ? await this.state(this.attempt.id) : "cancelled";
    if (state !== "cancelled") return { id: this.attempt.id, receiving: state === "receiving" };
    this.whole.clear();
    const upload = await this.call("POST", "/uploads", declaration);
    this.attempt = { declaration: words, id: upload.id };
    return { id: upload.id, receiving: true };
  }

  async state(id) {
    try {
      return (await this.call("GET", `/uploads/${id}`)).state;
    } catch (error) {
      if (error.status === 404) return "cancelled";
      throw error;
    }
  }

  remaining() {
    if (!this.data.resume) return this.files;
    const wanted = new Map(this.data.resume.files.map((file) => [file.path, file]));
    const missing = this.data.resume.files.filter((file) => !file.done).filter((file) => !this.files.some((entry) => entry.path === file.path && entry.size === file.size));
    if (missing.length) throw new ApiError(`${missing[0].path} (${size(missing[0].size)}) is not among the chosen files.`);
    return this.files.filter((entry) => wanted.has(entry.path) && !wanted.get(entry.path).done);
  }

  async send() {
    if (this.busy || this.$("send").disabled) return;
    this.problem("");
    this.busy = true;
    this.cancelled = false;
    this.refresh();
    try {
      const files = this.remaining();
      this.id = null;
      const { id, receiving } = await this.open();
      this.id = id;
      if (this.cancelled) return void (await this.withdraw());
      if (receiving) {
        await this.sendAll(files.filter((entry) => !this.whole.has(entry.file)));
        await this.call("POST", `/uploads/${id}/complete`);
      }
      this.reset();
      this.sent(id);
    } catch (error) {
      if (!this.cancelled) this.problem(error instanceof ApiError ? error.message : `The upload was interrupted: ${error.message}. Press Upload to send the rest.`);
      this.$("progress").hidden = true;
    } finally {
      this.busy = false;
      this.refresh();
    }
  }

  reset() {
    this.files = [];
    this.attempt = null;
    this.whole.clear();
    for (const id of ["file", "folder", "model", "labels", "details"]) this.$(id).value = "";
    this.$("accept").checked = false;
    this.$("progress").hidden = true;
  }

  async sendAll(files) {
    this.total = files.reduce((sum, entry) => sum + entry.size, 0);
    this.done = 0;
    this.samples = [[performance.now(), 0]];
    this.$("progress").hidden = false;
    this.showProgress(0);
    for (const entry of files) {
      await this.put(entry);
      this.whole.add(entry.file);
      this.done += entry.size;
    }
  }

  put(entry) {
    const path = entry.path.split("/").map(encodeURIComponent).join("/");
    return new Promise((resolve, reject) => {
      const request = (this.request = new XMLHttpRequest());
      request.open("PUT", `${this.data.api}/uploads/${this.id}/files/${path}`);
      request.setRequestHeader("content-type", "application/octet-stream");
      request.setRequestHeader("x-signalbox-actor", this.data.actor);
      request.upload.onprogress = (event) => this.showProgress(this.done + event.loaded);
      request.onload = () => (request.status < 300 ? resolve() : reject(new ApiError(explain(parse(request.responseText), `${entry.path}: the dashboard answered ${request.status}.`), request.status)));
      request.onerror = () => reject(new Error("the connection was lost"));
      request.onabort = () => reject(new Error("cancelled"));
      request.send(entry.file);
    });
  }

  showProgress(sent) {
    const now = performance.now();
    this.samples.push([now, sent]);
    while (this.samples.length > 2 && now - this.samples[0][0] > SPEED_WINDOW_MS) this.samples.shift();
    const [since, before] = this.samples[0];
    const speed = now > since ? ((sent - before) / (now - since)) * 1000 : 0;
    const share = this.total ? Math.min(1, sent / this.total) : 1;
    this.$("fill").style.width = `${share * 100}%`;
    this.$("bar").setAttribute("aria-valuenow", Math.round(share * 100));
    const left = speed > 0 && sent < this.total ? ` · ${duration((this.total - sent) / speed)} left` : "";
    this.$("progress-words").textContent = `${size(sent)} of ${size(this.total)} · ${size(speed)}/s${left}`;
  }

  async cancel() {
    this.cancelled = true;
    this.request?.abort();
    if (this.id) await this.withdraw();
  }

  async withdraw() {
    this.attempt = null;
    if (!this.data.resume) await this.call("DELETE", `/uploads/${this.id}`).catch((error) => this.problem(error.message));
  }
}

function parse(text) {
  try { return JSON.parse(text); } catch { return null; }
}

export default function (component) {
  const root = component.parentElement.querySelector("form.up");
  const form = forms.get(root);
  if (form) form.configure(component);
  else forms.set(root, new UploadForm(root, component));
}
