"use strict";
// What the service says is put into the page as text, never as markup.

const at = (id) => document.getElementById(id);
const KEPT = 8; // class tables, and rows of an index, at most
const TOP = 5; // classes of a table
const BOXES = { threshold: 0.1, most: 20, nms: 0.6 };
let key = ""; // in memory alone
let model = null;
let about = null;
let picture = null; // a File
let preview = "";
let asking = null; // an AbortController

class Refused extends Error {}

function element(name, text, ...within) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...within);
  return made;
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { cache: "no-store", redirect: "error", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service cannot be reached.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.status === 401 || response.status === 403) wantKey();
  if (response.ok) return body;
  const failed = body.error ?? (body.results ?? []).find((one) => one.error)?.error;
  const again = response.headers.get("retry-after");
  const wait = again ? ` Ask again in ${again} s.` : "";
  throw new Refused(`${response.status}: ${failed ? failed.message : response.statusText}.${wait}`);
}

function wantKey() {
  if (!at("key-form").hidden) return;
  at("key-form").hidden = false;
  at("key").focus();
}

function say(words, wrong = "") {
  at("status").textContent = words;
  at("alert").textContent = wrong;
}

async function start() {
  say("");
  try {
    model = await ask("v1/model");
    about = await ask("v1/about");
  } catch (error) {
    at("digest").textContent = "";
    return say("", error.message);
  }
  at("key-form").hidden = true;
  showModel();
  showGolden();
  showDrift();
}

function showModel() {
  document.title = `${model.model} · ptft`;
  at("name").textContent = model.model;
  at("digest").textContent = model.digest;
  at("scale").textContent = about.logit_scale.toFixed(2);
  const [height, width] = model.image_size;
  const facts = {
    Task: model.task,
    "Width of an embedding": model.dim,
    "Picture, pixels": `${width} x ${height}`,
    "Longest text, tokens": model.context_length,
    Precision: model.precision,
    Classes: model.classes.length || "none",
    ptft: model.versions.ptft ?? "unknown",
  };
  const entries = Object.entries(facts);
  at("facts").replaceChildren(
    ...entries.map(([name, value]) => element("div", null, element("dt", name), element("dd", value))),
  );
  at("lineage").replaceChildren(
    ...about.lineage.map((one) => element("li", null, `${one.what}: `, element("code", one.digest || "not recorded"))),
  );
  at("card-part").hidden = !about.card;
  at("card").textContent = about.card;
  if (model.texts === "refused") {
    at("texts").disabled = true;
    at("texts-hint").textContent = `This model answers no texts: ${model.texts_reason}.`;
  } else if (!at("texts").value && model.classes.length) {
    const template = model.templates[0] ?? "{}";
    at("texts").value = model.classes.slice(0, 10).map((one) => template.replaceAll("{}", one)).join("\n");
  }
  at("about").hidden = false;
}

async function showGolden() {
  let found;
  try {
    found = await ask("v1/golden");
  } catch (error) {
    at("golden-words").textContent = `Not held: ${error.message}`;
    return;
  }
  at("golden-words").textContent =
    `${found.pictures} pictures and ${found.texts} texts, run here ${found.age_s < 2 ? "now" : `${found.age_s} s ago`} ` +
    "and held against what the checkpoint made of them.";
  const rows = found.checks.map((one) => {
    const row = element("tr", null, element("th", one.what), element("td", one.worst.toExponential(1)));
    row.firstChild.scope = "row";
    row.append(element("td", String(one.allowed)), element("td", one.holds ? "holds" : "broken"));
    row.lastChild.className = one.holds ? "right" : "wrong";
    return row;
  });
  at("golden-rows").replaceChildren(...rows);
  at("golden").hidden = false;
}

async function showDrift() {
  const found = await ask("v1/drift").catch((error) => ({ reason: error.message, kinds: [] }));
  at("drift-words").textContent = found.reason || "How far it is from what the model was trained on.";
  const rows = found.kinds.map((one) => {
    const cells = [one.items, digits(one.value), [one.low, one.high].filter((end) => end !== null).map(digits).join(" and ")];
    const said = one.moved === null ? `fewer than ${found.judged_from}` : one.moved ? "moved" : "has not moved";
    const row = element("tr", null, element("th", one.kind), ...cells.map((cell) => element("td", cell)), element("td", said));
    row.firstChild.scope = "row";
    if (one.moved) row.lastChild.className = "wrong";
    return row;
  });
  at("drift-rows").replaceChildren(...rows);
  at("drift").hidden = !rows.length;
}

function digits(value) {
  return value === null ? "" : value.toPrecision(3);
}

function take(file) {
  if (!file) return;
  if (preview) URL.revokeObjectURL(preview);
  picture = file;
  at("marks").replaceChildren();
  preview = URL.createObjectURL(file);
  const shown = at("preview");
  shown.hidden = false;
  shown.alt = `The picture to score: ${file.name}`;
  shown.onerror = () => { shown.hidden = true; }; // a format that the browser does not read
  shown.src = preview;
  at("picture-name").hidden = false;
  at("picture-name").textContent = `${file.name}, ${Math.ceil(file.size / 1024)} kB`;
  score();
}

async function score() {
  const texts = [...new Set(at("texts").value.split("\n").map((one) => one.trim()).filter(Boolean))];
  if (!model) return say("", "The service has not said what it serves; reload the page.");
  const suffices = texts.length && (model.reads === "text" || about.index);
  if (!picture && !suffices) return say("Choose a picture.");
  if (asking) asking.abort();
  const mine = (asking = new AbortController());
  say("Asking.");
  const started = performance.now();
  try {
    const ways = [scores, boxes, classes, nearest];
    const parts = await Promise.all(ways.map((way) => way(texts, mine.signal)));
    if (mine.signal.aborted) return;
    const took = Math.round(performance.now() - started);
    say([...parts.filter(Boolean), `${took} ms.`].join(" "));
  } catch (error) {
    if (error.name !== "AbortError") say("", error.message);
  }
}

function raw(signal) {
  return { method: "POST", body: picture, signal, headers: { "content-type": picture.type || "application/octet-stream" } };
}

function json(body, signal) {
  return { method: "POST", body: JSON.stringify(body), signal, headers: { "content-type": "application/json" } };
}

async function scores(texts, signal) {
  if (!picture || !texts.length || model.texts === "refused") {
    at("scores").hidden = true;
    return "";
  }
  const [image, written] = await Promise.all([
    ask("v1/embed/image", raw(signal)),
    ask("v1/embed/text", json({ texts }, signal)),
  ]);
  const row = image.results[0].embedding;
  const cosines = written.results.map((one) => one.embedding.reduce((sum, value, i) => sum + value * row[i], 0));
  const top = Math.max(...cosines);
  const weights = cosines.map((one) => Math.exp(about.logit_scale * (one - top)));
  const total = weights.reduce((sum, one) => sum + one, 0);
  const order = texts.map((text, i) => ({ text, share: weights[i] / total, cosine: cosines[i] }));
  order.sort((one, other) => other.cosine - one.cosine);
  const rows = order.map((one) => barRow(one.text, one.share, one.cosine.toFixed(4)));
  rows[0].className = "best";
  at("score-rows").replaceChildren(...rows);
  at("scores").hidden = false;
  return `Best of ${texts.length}: ${order[0].text}, ${percent(order[0].share)}.`;
}

async function boxes(texts, signal) {
  at("found").hidden = true;
  at("marks").replaceChildren();
  if (model.task !== "detect" || !picture) return "";
  const form = new FormData();
  form.append("images", picture);
  const asked = { ...BOXES, nms: model.nms ?? BOXES.nms };
  for (const [name, value] of Object.entries(asked)) form.append(name, String(value));
  for (const text of texts) form.append("labels", text);
  if (texts.length) form.append("templates", "{}");
  const [one] = (await ask("v1/detect", { method: "POST", body: form, signal })).results;
  const share = (value, whole) => `${(100 * value) / whole}%`;
  const marks = one.boxes.map((found) => {
    const [left, top, right, bottom] = found.box;
    const mark = element("span", null, element("b", `${found.label} ${percent(found.score)}`));
    mark.style.left = share(left, one.width);
    mark.style.top = share(top, one.height);
    mark.style.width = share(right - left, one.width);
    mark.style.height = share(bottom - top, one.height);
    mark.classList.toggle("right", left + right > one.width); // its words stay on the picture
    mark.classList.toggle("top", top < one.height / 10);
    return mark;
  });
  at("marks").replaceChildren(...marks.reverse()); // the surest on top
  const place = (found) => found.box.map((value) => Math.round(value)).join(", ");
  at("found-rows").replaceChildren(...one.boxes.map((found) => barRow(found.label, found.score, place(found))));
  at("found-words").textContent =
    `Of ${texts.length ? "the texts" : "the model's own classes"}, with a probability of ${percent(BOXES.threshold)} at least, ` +
    `at most ${BOXES.most}, of two that overlap by more than ${percent(asked.nms)} the surer.`;
  at("found").hidden = false;
  return one.boxes.length ? `Found: ${one.boxes.length}, the surest ${one.boxes[0].label}.` : "Nothing found.";
}

async function classes(texts, signal) {
  const can = { image: picture, text: texts.length, both: picture && texts.length }[model.reads];
  at("classes").hidden = true;
  if (!model.classes.length || !can) return "";
  let found;
  let names = [""];
  if (model.reads === "image") {
    found = await ask(`v1/classify?top_k=${TOP}`, raw(signal));
  } else if (model.reads === "text") {
    names = texts.slice(0, KEPT);
    found = await ask("v1/classify", json({ texts: names, top_k: TOP }, signal));
  } else {
    names = [`The picture with: ${texts[0]}`];
    const form = new FormData();
    form.append("images", picture);
    form.append("texts", texts[0]);
    form.append("top_k", String(TOP));
    found = await ask("v1/classify", { method: "POST", body: form, signal });
  }
  const tables = found.results.map((one, i) => classTable(names[i], one.classes, one.labels));
  at("class-tables").replaceChildren(...tables);
  at("classes").hidden = false;
  const { classes: [best], labels } = found.results[0];
  if (labels) return `Classes: ${labels.join(", ") || "none"}.`;
  return `Class: ${best.label}, ${percent(best.probability)}.`;
}

async function nearest(texts, signal) {
  at("near").hidden = true;
  if (!about.index) return "";
  const found = picture
    ? await ask(`v1/search?k=${KEPT}&thumbnails=true`, raw(signal))
    : await ask("v1/search", json({ query: { text: texts[0] }, k: KEPT, thumbnails: true }, signal));
  const rows = found.results.map((one) => {
    const row = element("li");
    if (one.thumbnail) {
      const image = element("img");
      image.alt = ""; // its name stands below
      image.src = one.thumbnail;
      row.append(image);
    }
    row.append(element("span", one.name), element("span", one.cosine.toFixed(4)));
    row.lastChild.className = "faint";
    return row;
  });
  at("near-rows").replaceChildren(...rows);
  const what = picture ? "the picture" : `the text: ${texts[0]}`;
  at("near-words").textContent = `Of ${found.count} rows, by their cosine with ${what}.`;
  at("near").hidden = false;
  return `Nearest of the index: ${found.results[0].name}.`;
}

function classTable(name, found, told) {
  const head = element("tr", null, element("th", "Class"), element("th", "Probability"));
  for (const cell of head.children) cell.scope = "col";
  const rows = found.map((one) => barRow(one.label, one.probability));
  const best = told ?? found.slice(0, 1).map((one) => one.label);
  found.forEach((one, i) => best.includes(one.label) && (rows[i].className = "best"));
  const table = element("table", null, element("thead", null, head), element("tbody", null, ...rows));
  if (name) table.prepend(element("caption", name));
  return table;
}

function barRow(name, share, more) {
  const fill = element("span");
  fill.className = "fill";
  fill.style.width = `${100 * share}%`;
  const track = element("span", null, fill);
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  const number = element("span", percent(share));
  number.className = "number";
  const cell = element("td", null, element("div", null, track, number));
  cell.className = "share";
  const row = element("tr", null, element("td", name), cell);
  if (more !== undefined) row.append(element("td", more));
  return row;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

at("ask").addEventListener("submit", (event) => { event.preventDefault(); score(); });
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  at("key").value = "";
  start();
});
at("file").addEventListener("change", () => take(at("file").files[0]));
at("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) score();
});
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault(); // a browser would leave the page for the file
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); take(file); }
});
start();
