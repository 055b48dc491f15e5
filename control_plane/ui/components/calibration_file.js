// Posts one file of rows and tells the digest it is kept by; the server checks every row and says what is wrong.
const MEBIBYTE = 1024 * 1024;

async function send(data, file) {
  const answer = await fetch(data.url, {
    method: "POST", body: file, headers: { "content-type": "application/octet-stream", "x-signalbox-actor": data.actor },
  });
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const error = body.error ?? { message: `the server answered ${answer.status}` };
  throw new Error([error.message, error.next_step].filter(Boolean).join(" "));
}

export default function ({ parentElement, data, setStateValue }) {
  const box = parentElement.querySelector(".rows");
  const field = box.querySelector("input");
  const words = box.querySelector("p");
  const say = (text, problem) => { words.textContent = text; words.className = problem ? "problem" : "hint"; };
  if (box.dataset.url !== data.url) {
    box.dataset.url = data.url;
    field.value = "";
    say(data.kept ? `${data.kept.rows.toLocaleString("en")} rows were sent and fit.` : data.hint, false);
  }
  field.onchange = async () => {
    const [file] = field.files;
    if (!file) return;
    if (file.size > data.maxBytes) {
      say(`${file.name} is larger than ${Math.floor(data.maxBytes / MEBIBYTE)} MiB. Send fewer rows: at most ${data.usedRows} are used.`, true);
      return;
    }
    field.disabled = true;
    say(`Sending and checking ${file.name} …`, false);
    try {
      const kept = await send(data, file);
      say(`${kept.rows.toLocaleString("en")} rows of ${file.name} were sent and fit.`, false);
      setStateValue("kept", { digest: kept.digest, rows: kept.rows });
    } catch (error) {
      say(`${file.name} is not used: ${error.message}`, true);
      setStateValue("kept", null);
    } finally {
      field.disabled = false;
    }
  };
}
