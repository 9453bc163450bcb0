// The slices of an open cell: one canvas for each label map, or one for all of them.
"use strict";

Explorer.panels = (() => {
  const { byId, element, slices } = Explorer;
  const view = {
    axis: 0, index: [0, 0, 0], zoom: 1, centre: null, window: null, content: null, counts: null,
  };

  const spacing = () => {
    const [rows, columns] = slices.ACROSS[view.axis];
    const side = view.content.channel?.spacing ?? [1, 1, 1];
    return { x: side[columns], y: side[rows] };
  };

  const shape = () => (view.content.channel ?? view.content.reference)?.shape ?? null;

  // What is not empty around the patient, in mm of the slice.
  function extent() {
    const box = view.content.channel?.box ?? view.content.reference.box;
    const [rows, columns] = slices.ACROSS[view.axis];
    const { x, y } = spacing();
    const n = shape()[rows];
    let [low, high] = [box[2 * rows], box[2 * rows + 1]];
    if (rows === 0) [low, high] = [n - high, n - low];
    let [left, right] = [box[2 * columns], box[2 * columns + 1]];
    if (high <= low) [low, high] = [0, n];
    if (right <= left) [left, right] = [0, shape()[columns]];
    return { left: left * x, right: right * x, top: low * y, bottom: high * y };
  }

  function placement(canvas) {
    const { left, right, top, bottom } = extent();
    const { x, y } = spacing();
    const scale = view.zoom * Math.min(canvas.width / (right - left + 4 * x), canvas.height / (bottom - top + 4 * y));
    const centre = view.centre ?? { x: (left + right) / 2, y: (top + bottom) / 2 };
    return {
      toX: (column) => Math.round((column * x - centre.x) * scale + canvas.width / 2),
      toY: (row) => Math.round((row * y - centre.y) * scale + canvas.height / 2),
      scale, centre,
    };
  }

  function greyImage() {
    const { channel } = view.content;
    const { height, width, values } = slices.extract(channel, view.axis, view.index[view.axis]);
    const [low, high] = view.window;
    const grey = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const value = channel.range[0] + (i / 255) * (channel.range[1] - channel.range[0]);
      const level = Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low || 1))));
      grey[i] = (255 << 24) | (level << 16) | (level << 8) | level;
    }
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = grey[values[i]];
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  function drawContours(context, place, source, width) {
    if (!source.map) return;
    const slice = slices.extract(source.map, view.axis, view.index[view.axis]);
    const path = new Path2D();
    for (const [x0, y0, x1, y1] of slices.contours(slice, view.content.group)) {
      path.moveTo(place.toX(x0), place.toY(y0));
      path.lineTo(place.toX(x1), place.toY(y1));
    }
    context.setLineDash([]);
    context.strokeStyle = "rgba(0, 0, 0, 0.55)";
    context.lineWidth = width + 2;
    context.stroke(path);
    context.setLineDash(source.dash);
    context.strokeStyle = source.colour;
    context.lineWidth = width;
    context.stroke(path);
  }

  function drawPanel(canvas, image, sources) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const place = placement(canvas);
    const { width, height } = slices.size(shape(), view.axis);
    if (image) {
      context.imageSmoothingEnabled = false;
      context.drawImage(image, place.toX(0), place.toY(0), place.toX(width) - place.toX(0), place.toY(height) - place.toY(0));
    }
    // Beneath a model's contours, those of the reference are thin.
    sources.forEach((source, i) => drawContours(context, place, source, i < sources.length - 1 && !view.together ? 1 : 2));
  }

  // Panels: a source each, with the reference beneath it; or one with all of them.
  function wanted() {
    const { sources } = view.content;
    view.together = byId("layout").value === "one";
    if (view.together) return [{ name: sources.map(({ name }) => name).join(", "), sources, missing: "" }];
    const reference = sources.find(({ model }) => model === "reference");
    return sources.map((source) => ({
      ...source,
      sources: source === reference || !reference ? [source] : [reference, source],
    }));
  }

  function build() {
    const panels = wanted();
    const box = byId("panels");
    const { left, right, top, bottom } = extent();
    const most = Math.max(1, Math.floor(box.clientWidth / 215));
    const across = Math.ceil(panels.length / Math.ceil(panels.length / most)) || 1;
    const width = Math.min(520, Math.floor((box.clientWidth - 8 * across) / across));
    const height = Math.round(Math.min(panels.length > 1 ? 340 : 520, Math.max(140, (width * (bottom - top)) / (right - left))));
    const { left: l, right: r, top: t, bottom: b } = slices.MARKS[view.axis];
    box.replaceChildren(...panels.map((panel) => {
      const canvas = element("canvas", { width, height });
      const figure = element("figure", { className: "panel" },
        element("div", { className: "slice" }, canvas,
          ...[["left", l], ["right", r], ["top", t], ["bottom", b]].map(([side, text]) =>
            element("span", { className: `mark ${side}`, textContent: text }))),
        element("figcaption", { textContent: panel.missing ? `${panel.name}: ${panel.missing}` : panel.name }));
      figure.dataset.model = panel.model ?? "all";
      figure.sources = panel.sources;
      return figure;
    }));
  }

  function draw() {
    if (!view.content || !shape()) return;
    const image = view.content.channel ? greyImage() : null;
    for (const figure of byId("panels").children) {
      drawPanel(figure.querySelector("canvas"), image, figure.sources);
    }
    const index = view.index[view.axis];
    byId("slice").value = index;
    byId("slice-number").textContent = `${index} of ${shape()[view.axis] - 1}`;
    drawDifferences();
  }

  // Over the slider: how many voxels differ between this model and the reference.
  function drawDifferences() {
    const canvas = byId("differences");
    canvas.width = canvas.clientWidth || 200;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    const most = view.counts.reduce((a, b) => Math.max(a, b), 0);
    if (!most) return;
    const pitch = (canvas.width - 16) / view.counts.length;
    view.counts.forEach((count, i) => {
      context.fillStyle = i === view.index[view.axis] ? "#D00000" : "#8C8C8C";
      const height = count ? Math.max(1, (count / most) * canvas.height) : 0;
      context.fillRect(8 + i * pitch, canvas.height - height, Math.max(1, pitch - 0.5), height);
    });
  }

  function count() {
    const { compared, reference, group } = view.content;
    if (!reference) {
      view.counts = new Uint32Array(shape()[view.axis]);
      return;
    }
    view.counts = slices.differences(compared ?? reference, reference, view.axis, group);
  }

  function largest() {
    const { reference, group } = view.content;
    if (reference) view.index[view.axis] = slices.first(view.counts, reference, view.axis, group);
    draw();
  }

  function setWindow(low, high) {
    view.window = [low, high];
    byId("window-low").value = Number(low.toPrecision(4));
    byId("window-high").value = Number(high.toPrecision(4));
  }

  // `fresh` is true for a cell that was opened just now: it starts where it differs most.
  function show(content) {
    const channelChanged = view.content?.channel !== content.channel;
    view.content = content;
    if (!shape()) {
      byId("panels").textContent = "This case has neither image nor label map in this page: see it with `make explore`.";
      return;
    }
    if (content.fresh) {
      view.zoom = 1;
      view.centre = null;
      for (const axis of [0, 1, 2]) view.index[axis] = shape()[axis] >> 1;
    }
    if (content.channel && (channelChanged || !view.window)) setWindow(...content.channel.window);
    byId("slice").max = shape()[view.axis] - 1;
    count();
    build();
    if (content.fresh) largest();
    else draw();
  }

  function move(step) {
    if (!view.content || !shape()) return;
    const last = shape()[view.axis] - 1;
    view.index[view.axis] = Math.min(last, Math.max(0, view.index[view.axis] + step));
    draw();
  }

  function setAxis(axis) {
    view.axis = axis;
    view.centre = null;
    byId("axis").value = axis;
    if (!view.content || !shape()) return;
    byId("slice").max = shape()[axis] - 1;
    count();
    build();
    largest();
  }

  function zoom(factor) {
    view.zoom = Math.min(20, Math.max(0.5, view.zoom * factor));
    draw();
  }

  function fit() {
    view.zoom = 1;
    view.centre = null;
    draw();
  }

  function onKey(event) {
    const channels = Explorer.study.channels.length;
    const actions = {
      ArrowUp: () => move(1), ArrowDown: () => move(-1),
      PageUp: () => move(10), PageDown: () => move(-10),
      Home: () => move(-Infinity), End: () => move(Infinity),
      d: largest, "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: fit,
      a: () => setAxis(0), c: () => setAxis(1), s: () => setAxis(2),
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in actions) actions[event.key]();
    else if (Number(event.key) >= 1 && Number(event.key) <= channels) {
      byId("channel").value = Number(event.key) - 1;
      byId("channel").dispatchEvent(new Event("change"));
    } else return;
    event.preventDefault();
  }

  function onDrag(event) {
    const canvas = event.target.closest("canvas");
    if (!canvas || !(event.buttons & 3) || !view.content || !shape()) return;
    if (event.buttons & 1) {
      const { scale, centre } = placement(canvas);
      view.centre = { x: centre.x - event.movementX / scale, y: centre.y - event.movementY / scale };
    } else if (view.content.channel) {
      const [low, high] = view.window;
      const step = (view.content.channel.range[1] - view.content.channel.range[0]) / 300;
      const width = Math.max(step, high - low + event.movementX * step);
      const level = (low + high) / 2 - event.movementY * step;
      setWindow(level - width / 2, level + width / 2);
    }
    draw();
  }

  function start() {
    const box = byId("panels");
    box.addEventListener("keydown", onKey);
    box.addEventListener("pointermove", onDrag);
    box.addEventListener("contextmenu", (event) => event.preventDefault());
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey) zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
      else move(event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
    byId("axis").addEventListener("change", (event) => setAxis(Number(event.target.value)));
    byId("layout").addEventListener("change", () => { build(); draw(); });
    byId("slice").addEventListener("input", (event) => {
      view.index[view.axis] = Number(event.target.value);
      draw();
    });
    byId("largest").addEventListener("click", largest);
    byId("zoom-in").addEventListener("click", () => zoom(1.25));
    byId("zoom-out").addEventListener("click", () => zoom(0.8));
    byId("zoom-fit").addEventListener("click", fit);
    for (const id of ["window-low", "window-high"]) {
      byId(id).addEventListener("change", () => {
        view.window = [Number(byId("window-low").value), Number(byId("window-high").value)];
        draw();
      });
    }
    byId("window-reset").addEventListener("click", () => {
      if (view.content?.channel) setWindow(...view.content.channel.window);
      draw();
    });
    window.addEventListener("resize", () => {
      if (!view.content || !shape()) return;
      build();
      draw();
    });
  }

  // Where the corner of a pixel of the slice is drawn, in pixels of a panel's canvas.
  function locate(model, column, row) {
    const canvas = byId("panels").querySelector(`[data-model="${CSS.escape(model)}"] canvas`);
    const place = placement(canvas);
    return { x: place.toX(column), y: place.toY(row) };
  }

  return { start, show, locate, view };
})();
