// The matrix in leaf order with its tree and clusters: drawn on a canvas, so that half a
// million cells are drawn at once; marks of pointer and keyboard lie on a second one.
"use strict";

Explorer.matrix = (() => {
  const { byId, digits } = Explorer;
  const TREE = 110;
  const STRIP = 10;
  const GAP = 4;
  const WORST = "#D55E00";
  const UNDEFINED = "#BDBDBD";
  const CLUSTERS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#5D4A8A", "#7A6A00", "#333333"];
  const SIZES = [2, 3, 4, 6, 8, 11, 14, 18, 24, 32];
  const MOST_PIXELS = 8000; // of a side of a canvas
  const TEXT = 9; // pixels of a cell from which on names are written
  const view = { region: "", values: null, size: 0, cursor: [0, 0], open: null };
  let layout = null;

  const rows = () => Explorer.study.rows;
  const columns = () => Explorer.study.columns;

  function value(row, column, region = view.region) {
    const all = region === view.region ? view.values : values(region);
    return all[row * columns().length + column];
  }

  const unpacked = new Map();
  function values(region) {
    if (!unpacked.has(region)) {
      unpacked.set(region, Explorer.floats(Explorer.study.matrices[region]));
    }
    return unpacked.get(region);
  }

  function clusterColours() {
    const { clusters, worst } = Explorer.study;
    const bad = new Set(clusters.filter((_, i) => worst[i]));
    const colours = new Map();
    for (const cluster of clusters) {
      if (colours.has(cluster)) continue;
      const others = [...colours.keys()].filter((name) => !bad.has(name)).length;
      colours.set(cluster, bad.has(cluster) ? WORST : CLUSTERS[others % CLUSTERS.length]);
    }
    return colours;
  }

  function bestSize() {
    const room = byId("matrix-scroll").clientWidth - TREE - STRIP - 2 * GAP - 90;
    const fitting = SIZES.filter(
      (size) => size * columns().length <= room && size * rows().length <= 760,
    );
    return fitting.at(-1) ?? SIZES[0];
  }

  function largestSize() {
    const side = Math.max(rows().length, columns().length);
    return SIZES.filter((size) => size * side + 300 <= MOST_PIXELS).at(-1) ?? SIZES[0];
  }

  function draw() {
    const canvas = byId("matrix");
    const context = canvas.getContext("2d");
    const size = view.size;
    const named = size >= TEXT;
    const font = `${Math.min(size * 0.8, 12)}px sans-serif`;
    context.font = font;
    const longest = (names) =>
      named ? Math.ceil(Math.max(...names.map((name) => context.measureText(name).width))) + 8 : 4;
    layout = {
      x: TREE + STRIP + 2 * GAP,
      y: 4,
      width: size * columns().length,
      height: size * rows().length,
    };
    const width = layout.x + layout.width + longest(rows());
    const height = layout.y + layout.height + longest(columns());
    const ratio = Math.max(1, Math.min(window.devicePixelRatio, MOST_PIXELS / Math.max(width, height)));
    for (const part of [canvas, byId("matrix-marks")]) {
      part.width = Math.ceil(width * ratio);
      part.height = Math.ceil(height * ratio);
      part.style.width = `${width}px`;
      part.style.height = `${height}px`;
      part.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    byId("matrix-box").style.width = `${width}px`;
    byId("matrix-box").style.height = `${height}px`;
    drawCells(context);
    drawTree(context);
    drawClusters(context);
    context.font = font;
    context.fillStyle = "#222";
    if (named) drawNames(context);
    drawMarks();
  }

  function drawCells(context) {
    const { viridis } = Explorer;
    const cells = document.createElement("canvas");
    cells.width = columns().length;
    cells.height = rows().length;
    const image = new ImageData(cells.width, cells.height);
    const pixels = new Uint32Array(image.data.buffer);
    const grey = Explorer.rgba(UNDEFINED);
    view.values.forEach((dice, i) => {
      pixels[i] = Number.isNaN(dice) ? grey : viridis[Math.round(Math.min(1, Math.max(0, dice)) * 255)];
    });
    cells.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(cells, layout.x, layout.y, layout.width, layout.height);
  }

  function drawTree(context) {
    const { tree, cut, clusters } = Explorer.study;
    const n = rows().length;
    const colours = clusterColours();
    const tallest = Math.max(tree.at(-1)[2], cut ?? 0) || 1;
    const x = (distance) => TREE - (distance / tallest) * (TREE - 8);
    const at = rows().map((_, i) => layout.y + (i + 0.5) * view.size);
    const height = new Array(n).fill(0);
    const inside = clusters.slice();
    context.lineWidth = Math.min(1.4, Math.max(0.7, view.size / 6));
    for (const [left, right, distance] of tree) {
      const same = inside[left] === inside[right] ? inside[left] : null;
      context.strokeStyle = same === null ? "#333" : colours.get(same);
      context.beginPath();
      context.moveTo(x(height[left]), at[left]);
      context.lineTo(x(distance), at[left]);
      context.lineTo(x(distance), at[right]);
      context.lineTo(x(height[right]), at[right]);
      context.stroke();
      at.push((at[left] + at[right]) / 2);
      height.push(distance);
      inside.push(same);
    }
    if (cut !== null) {
      context.strokeStyle = "#000";
      context.lineWidth = 1;
      context.setLineDash([4, 3]);
      context.beginPath();
      context.moveTo(x(cut), layout.y);
      context.lineTo(x(cut), layout.y + layout.height);
      context.stroke();
      context.setLineDash([]);
    }
  }

  function drawClusters(context) {
    const { clusters, worst } = Explorer.study;
    const colours = clusterColours();
    clusters.forEach((cluster, i) => {
      context.fillStyle = colours.get(cluster);
      context.fillRect(TREE + GAP, layout.y + i * view.size, STRIP, view.size);
    });
    const marked = worst.flatMap((bad, i) => (bad ? [i] : []));
    if (!marked.length) return;
    for (const [colour, width] of [["#fff", 4], [WORST, 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(layout.x, layout.y + marked[0] * view.size, layout.width, marked.length * view.size);
    }
  }

  function drawNames(context) {
    const { worst } = Explorer.study;
    context.textBaseline = "middle";
    rows().forEach((name, i) => {
      context.fillStyle = worst[i] ? WORST : "#222";
      context.fillText(name, layout.x + layout.width + 5, layout.y + (i + 0.5) * view.size);
    });
    const bad = new Set(rows().filter((_, i) => worst[i]));
    columns().forEach((name, i) => {
      context.save();
      context.translate(layout.x + (i + 0.5) * view.size, layout.y + layout.height + 5);
      context.rotate(Math.PI / 2);
      context.fillStyle = bad.has(name) ? WORST : "#222";
      context.fillText(name, 0, 0);
      context.restore();
    });
  }

  function drawMarks() {
    const canvas = byId("matrix-marks");
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    const frame = ([row, column], colour, width) => {
      context.lineWidth = width;
      context.strokeStyle = colour;
      const grow = width / 2;
      context.strokeRect(
        layout.x + column * view.size - grow, layout.y + row * view.size - grow,
        view.size + 2 * grow, view.size + 2 * grow,
      );
    };
    const [row, column] = view.cursor;
    const band = (x, y, width, height) => {
      context.strokeStyle = "rgba(255, 255, 255, 0.9)";
      context.lineWidth = 1;
      context.strokeRect(x, y, width, height);
    };
    band(layout.x, layout.y + row * view.size, layout.width, view.size);
    band(layout.x + column * view.size, layout.y, view.size, layout.height);
    if (view.open) frame(view.open, "#fff", 4);
    if (view.open) frame(view.open, "#000", 1.5);
    if (document.activeElement === canvas) {
      frame(view.cursor, "#fff", 4);
      frame(view.cursor, "#D00000", 2);
    }
  }

  function describe([row, column]) {
    const dice = value(row, column);
    view.missing ??= Explorer.floats(Explorer.study.undefined);
    const missing = view.missing[row * columns().length + column];
    let text = `model of ${rows()[row]} on ${columns()[column]}: `;
    text += Number.isNaN(dice) ? "Dice undefined (in neither mask)" : `Dice ${digits(dice)}`;
    if (view.region === "mean" && missing > 0 && !Number.isNaN(dice)) {
      text += ` (${missing} of ${Object.keys(Explorer.study.labels).length} labels undefined)`;
    }
    return rows()[row] === columns()[column] ? `${text}, its own case` : text;
  }

  function moveTo(row, column, announce = true) {
    view.cursor = [
      Math.min(rows().length - 1, Math.max(0, row)),
      Math.min(columns().length - 1, Math.max(0, column)),
    ];
    drawMarks();
    if (announce) byId("matrix-status").textContent = describe(view.cursor);
    Explorer.charts.profiles(...view.cursor);
  }

  function cellAt(event) {
    const box = byId("matrix-marks").getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - layout.x) / view.size);
    const row = Math.floor((event.clientY - box.top - layout.y) / view.size);
    const inside = row >= 0 && column >= 0 && row < rows().length && column < columns().length;
    return inside ? [row, column] : null;
  }

  function onKey(event) {
    const [row, column] = view.cursor;
    const steps = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      PageUp: [row - 10, column], PageDown: [row + 10, column],
      Home: [row, 0], End: [row, columns().length - 1],
    };
    if (event.key in steps) moveTo(...steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") Explorer.open(rows()[row], columns()[column]);
    else if (event.key === "+" || event.key === "=") resize(1);
    else if (event.key === "-") resize(-1);
    else return;
    event.preventDefault();
    reveal();
  }

  function reveal() {
    const scroll = byId("matrix-scroll");
    const [row, column] = view.cursor;
    const x = layout.x + column * view.size;
    const y = layout.y + row * view.size;
    if (x < scroll.scrollLeft) scroll.scrollLeft = x - 20;
    if (x + view.size > scroll.scrollLeft + scroll.clientWidth) scroll.scrollLeft = x + view.size - scroll.clientWidth + 20;
    if (y < scroll.scrollTop) scroll.scrollTop = y - 20;
    if (y + view.size > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = y + view.size - scroll.clientHeight + 20;
  }

  function resize(step) {
    const allowed = SIZES.filter((size) => size <= largestSize());
    const place = allowed.indexOf(view.size);
    view.size = allowed[Math.min(allowed.length - 1, Math.max(0, place + step))];
    draw();
  }

  function show(region) {
    view.region = region;
    view.values = values(region);
    draw();
    moveTo(...view.cursor);
  }

  function markOpen(row, column) {
    const at = [rows().indexOf(row), columns().indexOf(column)];
    view.open = at.includes(-1) ? null : at;
    if (view.open) moveTo(...at);
    else drawMarks();
  }

  function start() {
    const marks = byId("matrix-marks");
    const tip = byId("tip");
    view.size = bestSize();
    marks.addEventListener("keydown", onKey);
    marks.addEventListener("focus", drawMarks);
    marks.addEventListener("blur", drawMarks);
    marks.addEventListener("click", (event) => {
      const cell = cellAt(event);
      if (cell) Explorer.open(rows()[cell[0]], columns()[cell[1]]);
    });
    marks.addEventListener("pointermove", (event) => {
      const cell = cellAt(event);
      tip.hidden = !cell;
      if (!cell) return;
      moveTo(...cell, false);
      tip.textContent = describe(cell);
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
    });
    marks.addEventListener("pointerleave", () => { tip.hidden = true; });
    byId("smaller").addEventListener("click", () => resize(-1));
    byId("larger").addEventListener("click", () => resize(1));
  }

  // Where a cell is drawn, in pixels of the canvas on the page.
  function locate(row, column) {
    return {
      x: layout.x + (columns().indexOf(column) + 0.5) * view.size,
      y: layout.y + (rows().indexOf(row) + 0.5) * view.size,
    };
  }

  return { start, show, draw, value, values, markOpen, locate, clusterColours };
})();
