// Pictures as buttons; the picked index is the component's state.
export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".pick");
  const select = (index) => {
    for (const button of root.children) button.setAttribute("aria-selected", String(Number(button.dataset.index) === index));
  };
  const fingerprint = JSON.stringify(data.items.map((item) => [item.index, item.title]));
  if (root.dataset.fingerprint !== fingerprint) {
    root.dataset.fingerprint = fingerprint;
    root.replaceChildren(...data.items.map((item) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.index = item.index;
      button.setAttribute("role", "option");
      button.setAttribute("aria-label", item.title);
      button.title = item.title;
      button.append(Object.assign(document.createElement("img"), { src: item.picture, alt: "" }));
      button.onclick = () => { select(item.index); setStateValue("picked", item.index); };
      return button;
    }));
    select(data.chosen);
  }
}
