"use strict";

// The report is whole without this: the pages are shown by :target. It sorts and filters the table, and keeps the title
// and the focus where a reader is. It makes no HTML of any text.

const title = document.title;
const table = document.getElementById("table");

// All rows in their present order, what their names must contain, and how many of them to show. The others are taken out
// of the page: a browser handles some hundred rows at once, and thousands in seconds.
const rows = table ? Array.from(table.tBodies[0].rows) : [];
let wanted = "";
let limit = 0;

function show(atLeast) {
  limit = Math.max(atLeast, Number(table.dataset.step));
  const matching = rows.filter((row) => row.cells[1].textContent.toLowerCase().includes(wanted));
  table.tBodies[0].replaceChildren(...matching.slice(0, limit));
  document.getElementById("shown").textContent = wanted ? `${matching.length} of ${rows.length}` : "";
  document.getElementById("more").hidden = matching.length <= limit;
  document.getElementById("rest").textContent = `${limit} of ${matching.length} are shown`;
}

function reveal(row) {
  if (row.isConnected) return;
  document.getElementById("filter").value = wanted = "";
  show(rows.indexOf(row) + 1);
}

function sortBy(header) {
  const column = header.cellIndex;
  const text = header.dataset.kind === "text";
  const down = header.getAttribute("aria-sort") === "ascending";
  const order = new Intl.Collator(undefined, { numeric: true });
  const values = new Map();
  for (const row of rows) {
    const shown = row.cells[column].textContent;
    values.set(row, text ? shown : Number.parseFloat(shown));
  }
  const missing = (value) => !text && Number.isNaN(value);
  rows.sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const compared = text ? order.compare(a, b) : a - b;
    return down ? -compared : compared;
  });
  show(0);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  const direction = down ? "descending" : "ascending";
  header.setAttribute("aria-sort", direction);
  document.getElementById("sorted").textContent = `Sorted by ${header.textContent.trim()}, ${direction}`;
}

function follow() {
  const place = document.getElementById(location.hash.slice(1));
  const page = place && place.classList.contains("page") ? place : null;
  document.title = page ? page.querySelector("h2").textContent + " – " + title : title;
  if (page) {
    page.querySelector("h2").focus({ preventScroll: true });
    window.scrollTo(0, 0);
    return;
  }
  const row = rows.find((one) => "#" + one.id === location.hash);
  if (row) {
    reveal(row);
    const link = row.querySelector("a");
    if (link) link.focus({ preventScroll: true });
    row.scrollIntoView({ block: "center" });
  }
}

if (table) {
  for (const header of table.tHead.rows[0].cells) {
    const button = header.querySelector("button");
    if (button) button.addEventListener("click", () => sortBy(header));
  }
  document.getElementById("filter").addEventListener("input", (event) => {
    wanted = event.target.value.trim().toLowerCase();
    show(0);
  });
  document.getElementById("more").querySelector("button").addEventListener("click", () => {
    show(limit + Number(table.dataset.step));
  });
  show(0);
}
// What a chart shows where the pointer is: the frame, its time, and the values that are drawn there.
function values(svg) {
  const points = svg.querySelector("path").getAttribute("d").matchAll(/[ML]([-\d.e+]+) ([-\d.e+]+)/g);
  return Array.from(points, (point) => [Number(point[1]), Number(point[2])]);
}

function tell(panel, event) {
  const svg = event.target.closest("svg[data-top]");
  const line = panel.querySelector(".hover");
  if (!svg) {
    line.textContent = "";
    return;
  }
  const bounds = svg.getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (event.clientX - bounds.left) / bounds.width));
  const { first, last, fps } = panel.dataset;
  const frame = Math.round(Number(first) + share * (last - first));
  const told = [`frame ${frame}`];
  if (fps) told.push(`${(frame / fps).toFixed(2)} s`);
  for (const chart of panel.querySelectorAll("svg[data-top]")) {
    const { width, height } = chart.viewBox.baseVal;
    const points = values(chart);
    if (!points.length) continue;
    const near = points.reduce((best, point) => (Math.abs(point[0] - share * width) < Math.abs(best[0] - share * width) ? point : best));
    const value = (Number(chart.dataset.top) * (height - 1 - near[1])) / (height - 2);
    const name = chart.previousElementSibling.textContent;
    told.push(name === "area" ? `area about ${Math.round(value)} px` : `${name} about ${value.toFixed(2)}`);
  }
  line.textContent = told.join(" · ");
}

for (const panel of document.querySelectorAll(".panel")) {
  panel.addEventListener("pointermove", (event) => tell(panel, event));
  panel.addEventListener("pointerleave", () => { panel.querySelector(".hover").textContent = ""; });
}

// A click enlarges a picture, another one, or Escape, closes it.
const large = document.getElementById("large");
for (const button of document.querySelectorAll("figure button")) {
  button.addEventListener("click", () => {
    const picture = button.querySelector("img").cloneNode();
    const caption = document.createElement("p");
    caption.textContent = picture.alt;
    large.replaceChildren(picture, caption);
    large.showModal();
  });
}
large.addEventListener("click", () => large.close());

window.addEventListener("hashchange", follow);
if (location.hash) follow();
