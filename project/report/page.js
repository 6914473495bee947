"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const PAGE = 24; // cards that are made at once

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  node.append(...children);
  return node;
}

function svgElement(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  return node;
}

// ---- one picture

function label(item) {
  const name = data.classes[item.class];
  return "score" in item ? `${name} ${item.score.toFixed(2)}` : name;
}

function explain(item) {
  if (!("score" in item)) return `${label(item)}: ${item.kind === "missed" ? "missed" : "found"}`;
  return `${label(item)}: ${item.kind}, IoU ${item.iou.toFixed(2)}`;
}

function panel(picture, items, caption) {
  const svg = svgElement("svg", { viewBox: `0 0 ${picture.width} ${picture.height}` });
  svg.append(svgElement("image", {
    href: `data:image/jpeg;base64,${picture.jpeg}`, width: picture.width, height: picture.height,
  }));
  [...items].reverse().forEach((item) => { // the most certain on top
    const path = svgElement("path", { d: item.path, class: item.kind });
    const title = svgElement("title", {});
    title.textContent = explain(item);
    path.append(title);
    svg.append(path);
  });
  return element("figure", {}, element("figcaption", {}, caption), svg);
}

function panels(picture) {
  const all = [panel(picture, picture.found, "detected"), panel(picture, picture.objects, "annotated")];
  if (data.compares) all.push(panel(picture, picture.other, "other run"));
  return element("div", { class: "panels" }, ...all);
}

function chips(picture) {
  const missed = picture.objects.filter((item) => item.kind === "missed");
  const all = [...picture.found, ...missed].map((item) =>
    element("span", { class: `chip ${item.kind}`, title: explain(item) },
      item.kind === "missed" ? `${label(item)} missed` : label(item)));
  return element("div", { class: "chips" }, ...all);
}

function title(picture) {
  const change = data.compares ? `, other ${picture.otherQuality.toFixed(2)}` : "";
  return element("div", { class: "title" },
    element("span", {}, `${picture.file} (${picture.id})`),
    element("span", {}, `quality ${picture.quality.toFixed(2)}${change}`));
}

function card(picture) {
  const node = element("article", { class: "card", tabindex: "0", "data-id": picture.id },
    title(picture), panels(picture), chips(picture));
  node.addEventListener("click", () => enlarge(picture));
  return node;
}

// ---- which pictures, in which order

const orders = {
  "worst first": (a, b) => a.quality - b.quality,
  "best first": (a, b) => b.quality - a.quality,
  "by file name": (a, b) => a.file.localeCompare(b.file),
};
if (data.compares) {
  orders["better than other"] = (a, b) => (b.quality - b.otherQuality) - (a.quality - a.otherQuality);
  orders["worse than other"] = (a, b) => (a.quality - a.otherQuality) - (b.quality - b.otherQuality);
}

function matches(picture) {
  const wantedClass = byId("class").value;
  const wantedKind = byId("kind").value;
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const items = [...picture.found, ...picture.objects].filter((item) =>
    (wantedClass === "" || item.class === Number(wantedClass)) &&
    (wantedKind === "" || item.kind === wantedKind));
  if ((wantedClass !== "" || wantedKind !== "") && !items.length) return false;
  if (!words.length) return true;
  const names = [...picture.found, ...picture.objects].map((item) => data.classes[item.class]);
  const text = [picture.file, picture.id, ...names].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

let chosen = [];
let made = 0;

function more() {
  const next = chosen.slice(made, made + PAGE);
  byId("grid").append(...next.map(card));
  made += next.length;
}

function choose() {
  chosen = data.pictures.filter(matches).sort(orders[byId("order").value]);
  made = 0;
  byId("grid").replaceChildren();
  byId("count").textContent = `${chosen.length} of ${data.pictures.length} pictures`;
  more();
}

// ---- the enlarged picture

const large = byId("large");

function enlarge(picture) {
  large.replaceChildren(title(picture), panels(picture), chips(picture));
  large.dataset.id = picture.id;
  if (!large.open) large.showModal();
}

function step(by) {
  const cards = [...byId("grid").children];
  const id = large.open ? large.dataset.id : document.activeElement?.dataset?.id;
  let index = cards.findIndex((node) => node.dataset.id === id);
  index = index < 0 ? 0 : index + by;
  if (index >= cards.length - 1) more();
  const next = byId("grid").children[index];
  if (!next) return;
  next.focus();
  if (large.open) enlarge(chosen[index]);
}

document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT"].includes(document.activeElement?.tagName);
  if (event.key === "/" && !typing) {
    event.preventDefault();
    byId("find").focus();
  } else if (event.key === "Escape" && typing) {
    document.activeElement.blur();
  } else if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && !typing) {
    event.preventDefault();
    step(event.key === "ArrowRight" ? 1 : -1);
  } else if (event.key === "Enter" && document.activeElement?.classList.contains("card")) {
    document.activeElement.click();
  }
});
large.addEventListener("click", () => large.close());

// ---- tables, filters, theme

function sortTable(table, column) {
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].textContent.trim();
  const isNumber = [...body.rows].some((row) => value(row) !== "" && !Number.isNaN(parseFloat(value(row))));
  const ascending = table.dataset.sorted === String(column);
  table.dataset.sorted = ascending ? "" : String(column);
  const key = (row) => { const x = parseFloat(value(row)); return Number.isNaN(x) ? -Infinity : x; };
  const compare = isNumber ? (a, b) => key(b) - key(a) : (a, b) => value(a).localeCompare(value(b));
  const rows = [...body.rows].sort(compare);
  body.append(...(ascending ? rows.reverse() : rows));
}

document.querySelectorAll(".sortable").forEach((table) => {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.addEventListener("click", () => sortTable(table, column));
  });
});

data.classes.forEach((name, index) => byId("class").append(element("option", { value: index }, name)));
data.kinds.forEach((kind) => byId("kind").append(element("option", { value: kind }, kind)));
Object.keys(orders).forEach((name) => byId("order").append(element("option", { value: name }, name)));
["class", "kind", "order"].forEach((id) => byId(id).addEventListener("change", choose));
byId("find").addEventListener("input", choose);
byId("outlines").addEventListener("change", (event) => {
  document.body.classList.toggle("plain", !event.target.checked);
});
document.querySelectorAll("[data-class], [data-kind]").forEach((button) => {
  button.addEventListener("click", () => {
    byId("class").value = button.dataset.class ?? "";
    byId("kind").value = button.dataset.kind ?? "";
    choose();
    byId("pictures").scrollIntoView();
  });
});
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
});

choose();
new IntersectionObserver((entries) => {
  if (entries[0].isIntersecting && made < chosen.length) more();
}, { rootMargin: "1500px" }).observe(byId("end"));
