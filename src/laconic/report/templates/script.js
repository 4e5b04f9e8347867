"use strict";
// Points have hints, for a mouse and for a keyboard.
const hint = document.getElementById("hint");
for (const point of document.querySelectorAll(".point")) {
  const show = () => {
    hint.textContent = point.getAttribute("aria-label");
    hint.hidden = false;
    const at = point.getBoundingClientRect(), room = document.documentElement.clientWidth - hint.offsetWidth - 8;
    hint.style.left = `${Math.max(8, Math.min(at.left, room)) + scrollX}px`;
    hint.style.top = `${at.top - hint.offsetHeight - 8 + scrollY}px`;
  };
  const hide = () => { hint.hidden = true; };
  point.addEventListener("mouseenter", show);
  point.addEventListener("focus", show);
  point.addEventListener("mouseleave", hide);
  point.addEventListener("blur", hide);
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hint.hidden = true; });

// Headings sort their table: first the largest, or the first letter, then the other way.
const value = (row, column) => {
  const text = row.cells[column].textContent.trim(), number = parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(number) ? text : number;
};
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), table = heading.closest("table"), column = heading.cellIndex;
    const rows = [...table.tBodies[0].rows], last = rows.filter((row) => row.classList.contains("total"));
    const body = rows.filter((row) => !row.classList.contains("total"));
    const known = heading.getAttribute("aria-sort");
    const numbers = body.every((row) => typeof value(row, column) === "number");
    const falling = known ? known === "ascending" : numbers;
    const order = (a, b) => (numbers ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    body.sort((a, b) => (falling ? -1 : 1) * order(value(a, column), value(b, column)));
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    table.tBodies[0].append(...body, ...last);
  });
}

// A table that goes on beyond its edge says so.
const mark = (scroll) => {
  const rest = scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft;
  scroll.classList.toggle("goes-on", rest > 1);
};
const sizes = new ResizeObserver((changed) => changed.forEach((entry) => mark(entry.target)));
for (const scroll of document.querySelectorAll(".scroll")) {
  scroll.addEventListener("scroll", () => mark(scroll));
  sizes.observe(scroll);
}
