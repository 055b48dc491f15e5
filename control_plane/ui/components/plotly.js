// What every chart needs: Plotly itself, loaded once from our own origin, small elements, and the page's colours.
let plotlyLoading = null;

function loadPlotly(url) {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  plotlyLoading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { plotlyLoading = null; reject(new Error("charts could not be loaded")); };
    document.head.append(script);
  });
  return plotlyLoading;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function theme(root) {
  const style = getComputedStyle(root);
  const colours = style.getPropertyValue("--st-chart-categorical-colors").split(",").map((c) => c.trim()).filter(Boolean);
  return {
    text: style.getPropertyValue("--st-text-color").trim() || "#666",
    line: style.getPropertyValue("--st-border-color").trim() || "#ccc",
    background: style.getPropertyValue("--st-background-color").trim() || "#fff",
    font: style.fontFamily,
    colours,
  };
}

// Calls *draw* when the page changes between light and dark; returns the observer, to be disconnected.
function onTheme(root, draw) {
  const watch = new MutationObserver(draw);
  const app = root.closest(".stApp");
  if (app) watch.observe(app, { attributes: true, attributeFilter: ["class", "style"] });
  return watch;
}

