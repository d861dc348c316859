"use strict";
// Draws the figures in the reader's colours, redraws them when those change, and opens what a link points into.
const figures = JSON.parse(document.getElementById("drawings").textContent);
const shown = {};
const dark = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

function theme(variant) {
  const night = dark.matches && !printing;
  const narrow = document.body.clientWidth < 560;
  const grid = night ? "#30353e" : "#e4e6ea", ink = night ? "#d5d8de" : "#33373d";
  const axis = (given) => ({
    gridcolor: grid, zerolinecolor: grid, linecolor: ink, automargin: true, nticks: narrow ? 5 : 9,
    exponentformat: given && given.type === "log" ? "power" : "SI", ...given,
    title: { standoff: 12, ...(given || {}).title, font: { size: narrow ? 11 : 13 } },
  });
  const layout = variant.layout;
  return {
    ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis), autosize: true, hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: narrow ? 11 : 13, family: getComputedStyle(document.body).fontFamily },
    margin: { l: 48, r: 12, t: 10, b: 44 }, hoverlabel: { font: { size: 12 } },
    legend: narrow || variant.data.length > 400
      ? { orientation: "h", y: -0.22, yanchor: "top", font: { size: 11 }, tracegroupgap: 0 }
      : { x: 1.02, y: 1, font: { size: 12 }, tracegroupgap: 0 },
  };
}

function draw(name) {
  const box = document.getElementById("plot-" + name);
  const variant = figures[name][shown[name]];
  if (variant.layout.height) box.style.height = variant.layout.height + "px";
  Plotly.react(box, variant.data, theme(variant), { displaylogo: false, responsive: true, displayModeBar: false });
}

function choose(name, index) {
  shown[name] = index;
  document.querySelectorAll(`[data-figure="${name}"]`).forEach((button, i) => {
    button.setAttribute("aria-pressed", String(i === index));
  });
  draw(name);
}

function openTarget() {
  const target = document.getElementById(location.hash.slice(1)); // our ids are percent-encoded as they stand
  for (let box = target; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
  if (target) target.scrollIntoView();
}

for (const name of Object.keys(figures)) choose(name, 0);
document.querySelectorAll("[data-figure]").forEach((button) => {
  button.addEventListener("click", () => choose(button.dataset.figure, Number(button.dataset.index)));
});
const redraw = () => Object.keys(figures).forEach(draw);
dark.addEventListener("change", redraw);
addEventListener("beforeprint", () => { printing = true; redraw(); });
addEventListener("afterprint", () => { printing = false; redraw(); });
addEventListener("hashchange", openTarget);
openTarget();
