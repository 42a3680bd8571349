"use strict";

// The report is whole without this: the pages are shown by :target. It sorts and filters the table, and keeps the title
// and the focus where a reader is. It makes no HTML of any text.

const title = document.title;
const table = document.getElementById("table");

function follow() {
  const place = document.getElementById(location.hash.slice(1));
  const page = place && place.classList.contains("page") ? place : null;
  document.title = page ? page.querySelector("h2").textContent + " – " + title : title;
  if (page) {
    page.querySelector("h2").focus({ preventScroll: true });
    window.scrollTo(0, 0);
  } else if (place && place.matches("#table tr")) {
    const link = place.querySelector("a");
    if (link) link.focus({ preventScroll: true });
    place.scrollIntoView({ block: "center" });
  }
}

function sortBy(header) {
  const body = table.tBodies[0];
  const column = header.cellIndex;
  const text = header.dataset.kind === "text";
  const down = header.getAttribute("aria-sort") === "ascending";
  const order = new Intl.Collator(undefined, { numeric: true });
  const entries = Array.from(body.rows, (row) => {
    const shown = row.cells[column].textContent;
    return { row, value: text ? shown : Number.parseFloat(shown) };
  });
  const missing = (entry) => !text && Number.isNaN(entry.value);
  entries.sort((a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const compared = text ? order.compare(a.value, b.value) : a.value - b.value;
    return down ? -compared : compared;
  });
  const sorted = document.createDocumentFragment();
  for (const { row } of entries) sorted.append(row);
  body.append(sorted);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  const direction = down ? "descending" : "ascending";
  header.setAttribute("aria-sort", direction);
  document.getElementById("sorted").textContent = `Sorted by ${header.textContent.trim()}, ${direction}`;
}

function filter(wanted) {
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = !row.cells[1].textContent.toLowerCase().includes(wanted);
    if (!row.hidden) shown += 1;
  }
  const all = table.tBodies[0].rows.length;
  document.getElementById("shown").textContent = wanted ? `${shown} of ${all}` : "";
}

if (table) {
  for (const header of table.tHead.rows[0].cells) {
    const button = header.querySelector("button");
    if (button) button.addEventListener("click", () => sortBy(header));
  }
  const field = document.getElementById("filter");
  field.addEventListener("input", () => filter(field.value.trim().toLowerCase()));
}
window.addEventListener("hashchange", follow);
if (location.hash) follow();
