// Start: fill the lists, draw the matrix, open the cell that the address names.
"use strict";

(() => {
  const { byId, study } = Explorer;
  const WORDS = { mean: "all labels (mean)" };

  Explorer.regionName = (name) => WORDS[name] ?? Explorer.readable(name);
  // A case and itself, or two scans of one patient: no independent judges of each other.
  Explorer.samePatient = (one, other) => {
    const { patients } = Explorer.study;
    return one === other || (one in patients && patients[one] === patients[other]);
  };

  Explorer.say = (text) => {
    const message = byId("message");
    message.textContent = text;
    message.hidden = !text;
  };

  Explorer.rgba = (colour) => {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
    return (255 << 24) | (b << 16) | (g << 8) | r;
  };

  function drawColours() {
    const bytes = Explorer.bytes(study.viridis);
    Explorer.viridis = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const [r, g, b] = bytes.subarray(3 * i, 3 * i + 3);
      Explorer.viridis[i] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    const canvas = byId("colours");
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    pixels.forEach((_, i) => {
      pixels[i] = Explorer.viridis[Math.round(((i % canvas.width) / (canvas.width - 1)) * 255)];
    });
    context.putImageData(image, 0, 0);
  }

  // Open the cell of a train case's model (null: of the base model) on a case.
  Explorer.open = (row, column) => {
    const hash = `#cell=${encodeURIComponent(row ?? "")},${encodeURIComponent(column)}`;
    // The same cell again: no change that the browser would tell.
    if (location.hash === hash) follow();
    else location.hash = hash;
  };

  function follow() {
    const match = /^#cell=([^,]*),(.+)$/.exec(location.hash);
    if (!match) return;
    const [row, column] = match.slice(1).map(decodeURIComponent);
    const known = (!row || study.rows.includes(row)) && study.tests.includes(column);
    if (!known) {
      Explorer.say(`There is no cell ${row}, ${column} in this run.`);
      return;
    }
    if (study.held_out.includes(column) && !Explorer.decisions.seen()) {
      Explorer.say(`${column} is held out: it is hidden until the decisions are exported.`);
      return;
    }
    Explorer.cell.show(row || null, column);
    if (row) Explorer.matrix.markOpen(row, column);
  }

  function tellLeftOut() {
    const left = Object.entries(study.left_out);
    if (!left.length || study.served) return;
    const maps = left.reduce((sum, [, { models }]) => sum + models.length, 0);
    const channels = left.reduce((sum, [, part]) => sum + part.channels.length, 0);
    const missing = left.reduce((sum, [, part]) => sum + part.missing.length, 0);
    const parts = [];
    if (maps || channels) {
      parts.push(
        `${maps} label maps and ${channels} images are left out, so that this page keeps to explorer.max_mb = ${study.max_mb}. ` +
          "`make explore` shows them all from the files where they are; or raise explorer.max_mb.",
      );
    }
    if (missing) parts.push(`${missing} predictions are missing.`);
    byId("left-out").textContent = parts.join(" ");
    byId("left-out").hidden = false;
  }

  function start() {
    document.title = `Explorer: ${study.results}`;
    byId("run-name").textContent = study.results;
    drawColours();
    tellLeftOut();
    byId("clustering").textContent = study.clustering;
    byId("region").replaceChildren(
      ...study.regions.map((name) => new Option(Explorer.regionName(name), name)),
    );
    byId("region").value = study.region;
    byId("region").addEventListener("change", (event) => Explorer.matrix.show(event.target.value));
    Explorer.matrix.start();
    Explorer.matrix.show(study.region);
    Explorer.decisions.start();
    Explorer.tables.show(byId("review"), study.cases, {
      open: (name) => Explorer.open(name, name),
      extra: [{ name: "decision", cell: (name) => Explorer.decisions.control(name, "list") }],
      marked: (row) => study.worst[study.rows.indexOf(row[study.cases.columns.indexOf("case")])],
    });
    Explorer.tables.show(byId("stability"), study.stability, {
      open: (name) => Explorer.open(name, name),
      marked: (row) => row[study.stability.columns.indexOf("worst")] === true,
    });
    byId("stability-statement").textContent = study.stability.statement;
    Explorer.arms.start();
    Explorer.cell.start();
    window.addEventListener("hashchange", follow);
    follow();
  }

  if (!study) {
    document.body.textContent = "data/study.js is missing beside this page: copy the whole folder, or run the workflow again.";
    return;
  }
  start();
})();
