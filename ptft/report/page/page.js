"use strict";
// Reads values off the charts under the pointer or the arrow keys, and says times as here and now.

const svgElement = (name, attributes, parent) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
};

const shown = (value, shares) => {
  if (shares) return (value * 100).toFixed(1) + "\u202f%";
  const size = Math.abs(value);
  if (size >= 1e4 && size < 1e5) return Math.round(value).toLocaleString("en");
  if (size === 0 || (size >= 1e-3 && size < 1e5)) return String(Number(value.toPrecision(4)));
  return value.toExponential(2);
};

const nearest = (points, seen) => {
  let best = 0;
  points.forEach((point, index) => {
    if (Math.abs(point[0] - seen) < Math.abs(points[best][0] - seen)) best = index;
  });
  return best;
};

for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const { frame, end, y, shares, lines } = JSON.parse(figure.dataset.chart);
  const [left, top, right, bottom] = frame;
  const drawing = figure.querySelector(":scope > svg");
  const cursor = drawing.querySelector(".cursor");
  const styles = [...drawing.querySelectorAll(":scope > g[data-line]")].map((g) => g.className.baseVal);
  const outputs = [...figure.querySelectorAll("output")];
  const at = figure.querySelector(".at");
  const latest = [...outputs.map((output) => output.textContent), at.textContent];
  let place = lines[0].length - 1;

  const down = (value) => {
    const scale = y[2] ? Math.log : (number) => number;
    const share = (scale(value) - scale(y[0])) / (scale(y[1]) - scale(y[0]));
    return top + (1 - share) * (bottom - top);
  };
  const across = (seen) => left + (seen / end) * (right - left);

  const show = (index) => {
    place = index;
    const seen = lines[0][index][0];
    cursor.replaceChildren();
    svgElement("line", { x1: across(seen), x2: across(seen), y1: top, y2: bottom }, cursor);
    lines.forEach((points, line) => {
      const [x, value] = points[nearest(points, seen)];
      const mark = { cx: across(x), cy: down(value), r: 3.5, class: styles[line] };
      svgElement("circle", mark, cursor);
      if (outputs[line]) outputs[line].textContent = shown(value, shares);
    });
    at.textContent = "at " + seen.toLocaleString("en");
  };
  const leave = () => {
    cursor.replaceChildren();
    place = lines[0].length - 1;
    outputs.forEach((output, line) => (output.textContent = latest[line]));
    at.textContent = latest.at(-1);
  };

  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
    show(nearest(lines[0], ((x - left) / (right - left)) * end));
  });
  drawing.addEventListener("pointerleave", leave);
  drawing.addEventListener("blur", leave);
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.min(Math.max(place + step, 0), lines[0].length - 1));
  });
}

for (const time of document.querySelectorAll("time[datetime]")) {
  const when = new Date(time.dateTime);
  time.textContent = when.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  if (!time.hasAttribute("data-age")) continue;
  const minutes = Math.round((Date.now() - when) / 60000);
  const rough = minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
  if (minutes > 0) time.textContent += ` (${rough} ago)`;
}
