// Sends chosen files with tus-js-client: create, one tus upload a file, complete. One form a page.
//
// The server knows how far each file has come, so nothing is kept here: the same files (path, size, time of the
// last change), chosen again in any tab, go on where they stopped. Each piece is sent with its SHA-256.
const forms = new WeakMap();
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const PROGRAM = /\.(pt|pt2|pth|ts|torchscript|onnx)$/i;
const SPEED_WINDOW_MS = 3000;
const PIECE_BYTES = 16 * 1024 * 1024;
const RETRY_MS = [0, 1000, 2000, 4000, 8000, 15000, ...Array(40).fill(30000)];
let tusLoading = null;

function loadTus(address) {
  if (window.tus) return Promise.resolve(window.tus);
  tusLoading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = () => resolve(window.tus);
    script.onerror = () => { tusLoading = null; reject(new Error("the upload script could not be loaded")); };
    document.head.append(script);
  });
  return tusLoading;
}

async function checksum(piece) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await piece.arrayBuffer()));
  return `sha256 ${btoa(String.fromCharCode(...digest))}`;
}

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
  const files = [...list].map((file) => ({ file, path: file.webkitRelativePath || file.name, size: file.size, modified: file.lastModified }));
  return withoutFolder(files);
}

// Nobody means to send hidden files, but for those that distributed checkpoints keep their directory in.
function hidden(part) {
  return part.startsWith(".") && part !== ".metadata" && part !== ".hf_metadata";
}

function withoutFolder(files) {
  const first = files[0]?.path.split("/")[0];
  const nested = files.length > 0 && files.every((entry) => entry.path.startsWith(`${first}/`));
  const inner = nested ? files.map((entry) => ({ ...entry, path: entry.path.slice(first.length + 1) })) : files;
  return inner.filter((entry) => !entry.path.split("/").some(hidden));
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
    found.push({ file, path: entry.fullPath.replace(/^\//, ""), size: file.size, modified: file.lastModified });
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
    this.busy = this.paused = false;
    this.$ = (id) => root.querySelector(`#${id}`);
    this.listen();
    this.configure(component);
  }

  configure({ data, setTriggerValue }) {
    this.data = data;
    this.sent = (id) => setTriggerValue("sent", id);
    this.$("models").replaceChildren(...data.models.map((name) => Object.assign(document.createElement("option"), { value: name })));
    if (data.resume && !this.busy) {
      this.$("model").value = data.resume.model;
      this.$("drop-title").textContent = "Choose the same files again to send the rest";
    }
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
    this.$("pause").onclick = () => this.pause();
    this.root.onsubmit = (event) => { event.preventDefault(); this.send(); };
  }

  choose(files) {
    if (this.busy) return;
    this.files = files;
    this.problem(files.length ? "" : "There is no file in what was chosen.");
    const model = this.$("model");
    this.known = this.data.resume ? null : this.unfinished(files);
    if (this.known) model.value = this.known.model;
    else if (files.length && !model.value) model.value = this.suggestion(files);
    this.refresh();
  }

  // An upload that takes exactly these files and has not come to its end.
  unfinished(files) {
    const chosen = new Map(files.map((entry) => [entry.path, entry]));
    return this.data.unfinished.find(({ files: wanted }) => wanted.length === chosen.size && wanted.every((file) => {
      const entry = chosen.get(file.path);
      return entry && entry.size === file.size && entry.modified === file.modified;
    })) ?? null;
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
    const goesOn = Boolean(this.data.resume || this.known);
    this.$("known").hidden = !this.known || this.busy;
    this.$("known").textContent = this.known ? `${size(this.known.received)} of this arrived earlier. Upload sends the rest.` : "";
    this.$("program").hidden = !this.files.some((entry) => PROGRAM.test(entry.path)) || goesOn;
    this.$("more").hidden = goesOn;
    this.$("model").disabled = goesOn || this.busy;
    this.$("pause").hidden = !this.busy;
    this.$("pause").textContent = this.paused ? "Resume" : "Pause";
    this.$("send").disabled = this.busy || this.files.length === 0 || !this.$("model").value.trim();
    this.$("cancel").hidden = !this.busy && !this.data.resume;
    this.$("cancel").textContent = this.busy ? "Cancel" : "Cancel this upload";
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
      model: this.$("model").value.trim(), files: this.files.map(({ path, size: bytes, modified }) => ({ path, size_bytes: bytes, modified_ms: modified })),
      details: this.details(), labels: this.labels(), accept_program: this.$("accept").checked,
    };
  }

  // The upload to send to: the one to go on with, the one that was cut if it is declared the same, or a new one.
  async open() {
    if (this.data.resume) return this.call("GET", `/uploads/${this.data.resume.id}`);
    if (this.known) {
      const upload = await this.former(this.known.id);
      if (upload?.state === "receiving") return upload;
      this.known = null; // it has ended since the page was drawn
    }
    const declaration = this.declaration();
    const words = JSON.stringify(declaration);
    const former = this.attempt?.declaration === words ? await this.former(this.attempt.id) : null;
    if (former) return former;
    const upload = await this.call("POST", "/uploads", declaration);
    this.attempt = { declaration: words, id: upload.id };
    return upload;
  }

  async former(id) {
    try {
      const upload = await this.call("GET", `/uploads/${id}`);
      return upload.state === "cancelled" ? null : upload;
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  // What is to be sent, each with the file that was chosen for it.
  remaining(upload) {
    const chosen = new Map(this.files.map((entry) => [entry.path, entry]));
    return upload.files.filter((file) => file.sha256 === null).map((file) => {
      const entry = chosen.get(file.path);
      if (entry?.size !== file.size_bytes) throw new ApiError(`${file.path} (${size(file.size_bytes)}) is not among the chosen files.`);
      if (file.modified_ms !== null && file.received_bytes > 0 && file.modified_ms !== entry.modified) {
        throw new ApiError(`${file.path} has changed since a part of it was sent. Cancel this upload and begin a new one.`);
      }
      return { ...entry, transfer: file.transfer_id, received: file.received_bytes };
    });
  }

  async send() {
    if (this.busy || this.$("send").disabled) return;
    this.problem("");
    this.busy = true;
    this.cancelled = this.paused = false;
    this.refresh();
    try {
      this.id = null;
      const [tus, upload] = await Promise.all([loadTus(this.data.tus), this.open()]);
      this.id = upload.id;
      if (this.cancelled) return void (await this.withdraw());
      if (upload.state === "receiving") {
        await this.sendAll(tus, upload);
        await this.call("POST", `/uploads/${upload.id}/complete`);
      }
      this.reset();
      this.sent(upload.id);
    } catch (error) {
      if (!this.cancelled) this.problem(error instanceof ApiError ? error.message : `The upload was interrupted: ${error.message}. Press Upload to send the rest.`);
      this.$("progress").hidden = true;
    } finally {
      this.busy = this.paused = false;
      this.transfer = null;
      this.refresh();
    }
  }

  reset() {
    this.files = [];
    this.attempt = this.known = null;
    for (const id of ["file", "folder", "model", "labels", "details"]) this.$(id).value = "";
    this.$("accept").checked = false;
    this.$("progress").hidden = true;
  }

  async sendAll(tus, upload) {
    const files = this.remaining(upload);
    this.total = upload.size_bytes;
    this.done = this.total - files.reduce((sum, entry) => sum + entry.size, 0);
    const before = this.done + files.reduce((sum, entry) => sum + entry.received, 0);
    this.samples = [[performance.now(), before]];
    this.$("progress").hidden = false;
    this.showProgress(before);
    for (const entry of files) {
      await this.put(tus, entry);
      this.done += entry.size;
    }
  }

  put(tus, entry) {
    return new Promise((resolve, reject) => {
      this.stop = () => reject(new Error("cancelled"));
      this.transfer = new tus.Upload(entry.file, {
        endpoint: `${this.data.api}/tus`,
        uploadUrl: entry.transfer ? `${this.data.api}/tus/${entry.transfer}` : null,
        metadata: { upload: this.id, path: entry.path },
        headers: { "x-signalbox-actor": this.data.actor },
        storeFingerprintForResuming: false,
        chunkSize: PIECE_BYTES,
        retryDelays: RETRY_MS,
        onBeforeRequest: (request) => this.sign(request, entry.file),
        onShouldRetry: (error) => this.patient(error),
        onProgress: (sent) => this.showProgress(this.done + sent),
        onSuccess: resolve,
        onError: (error) => reject(refusal(error, entry.path)),
      });
      if (!this.paused) this.transfer.start();
    });
  }

  // Where the browser can hash (on this machine and over https), the server compares every piece.
  async sign(request, file) {
    if (request.getMethod() !== "PATCH" || !crypto.subtle) return;
    const offset = Number(request.getHeader("Upload-Offset"));
    request.setHeader("Upload-Checksum", await checksum(file.slice(offset, offset + PIECE_BYTES)));
  }

  patient(error) {
    const status = error.originalResponse?.getStatus() ?? 0;
    const moved = status === 409 && parse(error.originalResponse.getBody())?.error?.details?.offset !== undefined;
    const passing = status === 0 || moved || [423, 460].includes(status) || (status >= 500 && status !== 507);
    if (passing && !this.paused) this.say("Connection lost. Trying again …");
    return passing && !this.cancelled;
  }

  async pause() {
    this.paused = !this.paused;
    this.refresh();
    this.$("pause").focus();
    if (!this.paused) {
      this.samples = [];
      this.transfer?.start();
      return;
    }
    await this.transfer?.abort();
    this.say(`Paused at ${size(this.shown)} of ${size(this.total)}`);
  }

  say(words) {
    this.$("progress-words").textContent = words;
  }

  showProgress(sent) {
    if (this.paused) return;
    const now = performance.now();
    this.shown = sent;
    this.samples.push([now, sent]);
    while (this.samples.length > 2 && now - this.samples[0][0] > SPEED_WINDOW_MS) this.samples.shift();
    const [since, before] = this.samples[0];
    const speed = now > since ? ((sent - before) / (now - since)) * 1000 : 0;
    const share = this.total ? Math.min(1, sent / this.total) : 1;
    this.$("fill").style.width = `${share * 100}%`;
    this.$("bar").setAttribute("aria-valuenow", Math.round(share * 100));
    const left = speed > 0 && sent < this.total ? ` · ${duration((this.total - sent) / speed)} left` : "";
    this.say(`${size(sent)} of ${size(this.total)} · ${size(speed)}/s${left}`);
  }

  async cancel() {
    if (!this.busy) this.id = this.data.resume.id;
    this.cancelled = true;
    await this.transfer?.abort();
    this.stop?.();
    if (this.id) await this.withdraw();
  }

  async withdraw() {
    this.attempt = this.known = null;
    await this.call("DELETE", `/uploads/${this.id}`).catch((error) => this.problem(error.message));
    this.$("progress").hidden = true;
    if (this.data.resume) this.sent(this.id);
  }
}

function refusal(error, path) {
  const answer = error.originalResponse;
  if (!answer) return new Error("the connection was lost");
  return new ApiError(explain(parse(answer.getBody()), `${path}: the dashboard answered ${answer.getStatus()}.`), answer.getStatus());
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
