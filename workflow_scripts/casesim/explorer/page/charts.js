// Small charts in SVG: a row and a column of the matrix, and cases before and after.
"use strict";

Explorer.charts = (() => {
  const { byId, digits } = Explorer;
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const BLUE = "#0072B2";
  const WORSE = "#D55E00";

  function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS(NAMESPACE, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function titled(element, text) {
    element.append(svg("title", {}, text));
    return element;
  }

  // The frame of a chart with an axis of Dice from `low` to 1.
  function frame(width, height, low, label, bottom = 8) {
    const box = { left: 38, right: 8, top: 8, bottom };
    const chart = svg("svg", {
      width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label,
    });
    const y = (dice) =>
      box.top + (1 - (dice - low) / (1 - low)) * (height - box.top - box.bottom);
    const step = 1 - low > 0.6 ? 0.25 : 0.1;
    for (let dice = 1; dice >= low - 1e-9; dice -= step) {
      chart.append(
        svg("line", { x1: box.left, x2: width - box.right, y1: y(dice), y2: y(dice), stroke: "#E5E5E5" }),
        svg("text", { x: box.left - 4, y: y(dice) + 3.5, "text-anchor": "end", class: "tick" }, dice.toFixed(2)),
      );
    }
    return { chart, box, y };
  }

  function profile(target, names, dice, marked, own, label, open) {
    const width = Math.max(280, target.clientWidth || 380);
    const { chart, box, y } = frame(width, 120, 0, label);
    const pitch = (width - box.left - box.right) / names.length;
    const bar = Math.max(1, Math.min(pitch * 0.8, 14));
    names.forEach((name, i) => {
      const x = box.left + (i + 0.5) * pitch;
      if (Number.isNaN(dice[i])) return;
      const colour = i === marked ? "#D00000" : Explorer.samePatient(name, own) ? "#555555" : BLUE;
      const rect = svg("rect", {
        x: x - bar / 2, width: bar, y: y(dice[i]), height: y(0) - y(dice[i]), fill: colour,
      });
      rect.addEventListener("click", () => open(name));
      chart.append(titled(rect, `${name}: ${digits(dice[i])}`));
    });
    const others = names.map((name, i) => (Explorer.samePatient(name, own) ? NaN : dice[i])).filter((d) => !Number.isNaN(d));
    const mean = others.reduce((a, b) => a + b, 0) / others.length;
    if (others.length) {
      chart.append(svg("line", {
        x1: box.left, x2: width - box.right, y1: y(mean), y2: y(mean), stroke: "#222", "stroke-dasharray": "5 3",
      }));
    }
    target.replaceChildren(chart);
    return mean;
  }

  // What the model of the row does on all cases, and all models on the case of the column.
  function profiles(row, column) {
    const { rows, columns } = Explorer.study;
    const { value } = Explorer.matrix;
    const [donor, recipient] = [rows[row], columns[column]];
    const rowMean = profile(
      byId("row-profile"), columns, columns.map((_, c) => value(row, c)), column, donor,
      `Dice of the model of ${donor} on each case`, (name) => Explorer.open(donor, name),
    );
    byId("row-caption").textContent =
      `Row: the model of ${donor} on each case; mean without its own ${digits(rowMean)}`;
    const columnMean = profile(
      byId("column-profile"), rows, rows.map((_, r) => value(r, column)), row, recipient,
      `Dice of each model on ${recipient}`, (name) => Explorer.open(name, recipient),
    );
    byId("column-caption").textContent =
      `Column: each model on ${recipient}; mean without its own ${digits(columnMean)}`;
  }

  // Cases before and after: groups are lists of { name, before, after, removed }.
  function pairs(target, groups, open) {
    const all = groups.flatMap((group) => group.cases).filter((c) => !Number.isNaN(c.before + c.after));
    target.replaceChildren();
    if (!all.length) {
      target.textContent = "No case has a defined Dice before and after.";
      return;
    }
    const lowest = Math.min(...all.flatMap((c) => [c.before, c.after]));
    const low = Math.max(0, Math.floor(lowest * 10 - 0.5) / 10);
    const pitch = Math.max(7, Math.min(26, 900 / all.length));
    const number = groups.reduce((sum, group) => sum + group.cases.length + 1, 0);
    const width = 46 + pitch * number;
    const named = pitch >= 11;
    const foot = named ? 7 * Math.max(...all.map(({ name }) => name.length)) + 24 : 24;
    const { chart, box, y } = frame(width, 200 + foot, low, "Dice of each case before and after", foot);
    let x = box.left + pitch * 0.5;
    for (const group of groups) {
      const start = x;
      for (const { name, before, after, removed } of group.cases) {
        x += pitch;
        if (Number.isNaN(before + after)) continue;
        const better = after >= before;
        const colour = better ? BLUE : WORSE;
        const part = svg("g", { class: "pair" });
        if (removed) part.append(svg("rect", { x: x - pitch / 2, width: pitch, y: box.top, height: 192, fill: "#E3E3E3" }));
        const tip = better ? -1 : 1;
        part.append(
          svg("rect", { x: x - pitch / 2, width: pitch, y: box.top, height: 192, fill: "transparent" }),
          svg("line", { x1: x, x2: x, y1: y(before), y2: y(after), stroke: colour, "stroke-width": 1.6 }),
          svg("circle", { cx: x, cy: y(before), r: 3, fill: "#fff", stroke: "#333" }),
          svg("path", { d: `M${x - 4} ${y(after) - 3 * tip} h8 l-4 ${6 * tip} z`, fill: colour }),
        );
        if (named) {
          part.append(svg("text", { class: "tick", "text-anchor": "end", transform: `translate(${x + 3.5} 206) rotate(-90)` }, name));
        }
        part.addEventListener("click", () => open(name));
        chart.append(titled(part, `${name}: ${digits(before)} before, ${digits(after)} after${removed ? ", left out" : ""}`));
      }
      x += pitch;
      chart.append(svg("text", { x: start + pitch * 0.4, y: 194 + foot, class: "tick" }, group.name));
    }
    target.append(chart);
  }

  return { profiles, pairs };
})();
