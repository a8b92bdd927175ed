"use strict";

// Tables: a press on a heading sorts by it. Numbers by what they are exactly; cells without a value stay at the end.
function sortBy(heading) {
  const head = heading.closest("tr");
  const column = Array.from(head.cells).indexOf(heading);
  const down = heading.getAttribute("aria-sort") === "ascending";
  const numbers = heading.classList.contains("number");
  const body = heading.closest("table").tBodies[0];
  const words = new Intl.Collator("en", { numeric: true });
  const valueOf = (row) => {
    const cell = row.cells[column];
    const text = numbers ? cell.dataset.value : cell.textContent.trim();
    return text === "" ? null : numbers ? Number(text) : text;
  };
  const rows = Array.from(body.rows, (row) => ({ row, value: valueOf(row) }));
  rows.sort((one, two) => {
    if (one.value === null || two.value === null) return (one.value === null) - (two.value === null);
    const order = numbers ? one.value - two.value || 0 : words.compare(one.value, two.value);
    return down ? -order : order;
  });
  for (const cell of head.cells) cell.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows.map(({ row }) => row));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("th button");
  if (button) sortBy(button.closest("th"));
});

// Figures: their colours are names of those of the page, so that both follow the scheme.
const plots = JSON.parse(document.getElementById("plot-data").textContent);

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name.slice(1)).trim();
}

function coloured(value, key) {
  if (Array.isArray(value)) return value.map((part) => coloured(part, key));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, coloured(part, name)]));
  }
  return key === "color" && typeof value === "string" && value.startsWith("$") ? colour(value) : value;
}

function look(narrow) {
  const axis = {
    gridcolor: colour("$grid"), linecolor: colour("$edge"), zerolinecolor: colour("$edge"), tickcolor: colour("$edge"),
    automargin: true, title: { standoff: 8 },
  };
  return {
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("$ink"), size: narrow ? 12 : 13, family: getComputedStyle(document.body).fontFamily },
      xaxis: axis, yaxis: axis,
      colorway: [colour("$value"), colour("$query"), colour("$key")],
    },
  };
}

// What a phone has no room for: names in full (a tooltip has them), titles in one line, every power of ten.
function fit(layout) {
  const cut = (line) => {
    const letters = line.match(/&\w+;|./gu) ?? []; // an entity is one letter
    return letters.length > 22 ? `${letters.slice(0, 21).join("")}…` : line;
  };
  const names = layout.yaxis.categoryarray;
  if (names) {
    const ticktext = names.map((name) => name.split("<br>").map(cut).join("<br>"));
    layout.yaxis = { ...layout.yaxis, tickvals: names, ticktext };
  }
  const { type, dtick, title } = layout.xaxis;
  if (title?.text.length > 24) {
    const words = title.text.split(" ");
    const half = Math.floor(words.length / 2);
    const text = `${words.slice(0, half).join(" ")}<br>${words.slice(half).join(" ")}`;
    layout.xaxis = { ...layout.xaxis, title: { text } };
  }
  if (type === "log" && typeof dtick === "number") layout.xaxis = { ...layout.xaxis, dtick: 2 * dtick, tickangle: 0 };
}

const isNarrow = (place) => place.clientWidth < 460;

function draw(place) {
  const plot = coloured(plots[place.dataset.plot], "");
  const narrow = isNarrow(place);
  const layout = {
    autosize: true,
    margin: { l: 10, r: 16, t: 8, b: 10, pad: 2 },
    showlegend: false,
    hovermode: "closest",
    ...plot.layout,
    template: look(narrow),
    // A finger that moves over a figure scrolls the page.
    dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
  };
  if (narrow) fit(layout);
  // Plotly's bar of buttons would lie on top of the marks at the right.
  return Plotly.react(place, plot.data, layout, { responsive: true, displayModeBar: false });
}

// A tooltip beside the pointer. Plotly's own labels are left out where a figure is lower than they are.
const tip = document.getElementById("tip");

function tell({ points, event }) {
  const [title, ...lines] = String(points[0].hovertext ?? "").split("\n");
  const strong = document.createElement("strong");
  strong.textContent = title;
  tip.replaceChildren(strong, ...lines.flatMap((line) => [document.createElement("br"), line]));
  tip.hidden = false;
  const right = event.clientX + 16 + tip.offsetWidth < document.documentElement.clientWidth;
  const left = right ? event.clientX + 16 : Math.max(4, event.clientX - 16 - tip.offsetWidth);
  const top = Math.min(event.clientY + 12, window.innerHeight - tip.offsetHeight - 4);
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

const hush = () => { tip.hidden = true; };
window.addEventListener("scroll", hush, { passive: true });
window.addEventListener("pointerdown", hush);

const places = Array.from(document.querySelectorAll("[data-plot]"));
const drawAll = () => Promise.all(places.map(draw));
if (places.length) {
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  // Plotly follows the width by itself, but what there is room for may be another thing now, as when a phone is turned.
  let wasNarrow = places.map(isNarrow);
  window.addEventListener("resize", () => {
    const turned = places.filter((place, at) => isNarrow(place) !== wasNarrow[at]);
    wasNarrow = places.map(isNarrow);
    turned.forEach(draw);
  });
  drawAll().then(() => {
    for (const place of places) {
      place.on("plotly_hover", tell);
      place.on("plotly_click", tell); // a finger points at nothing before it is there
      place.on("plotly_unhover", hush);
    }
    document.documentElement.setAttribute("data-drawn", places.length);
  });
}
