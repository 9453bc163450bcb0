// An open cell: which label maps of a case are shown, their Dice, and the commands that
// open the same files in other programs. Pixels are drawn in panels.js.
"use strict";

Explorer.cell = (() => {
  const { byId, element, digits, readable } = Explorer;
  const ARM_COLOURS = ["#2FD6A3", "#E69F00", "#B9A0FF", "#FF8A65", "#A5D65A", "#8FD3E8"];
  const DASHES = [[6, 3], [2, 3], [8, 2, 2, 2]];
  const state = { row: null, column: null, sources: [], shown: null, request: 0 };

  // Model, name, colour and dashes of every label map that a cell has.
  function sourcesOf(row) {
    const sources = [
      { model: "reference", name: "reference", colour: "#F0E442", dash: [] },
      { model: "base", name: "base model", colour: "#56B4E9", dash: [5, 3] },
    ];
    if (row) sources.push({ model: `finetuned/${row}`, name: `model of ${row}`, colour: "#FF77B0", dash: [] });
    const arms = Explorer.study.models.filter(({ arm }) => arm);
    const chosen = arms.filter(({ arm }) => !arm.startsWith("random_"));
    const random = arms.filter(({ arm }) => arm.startsWith("random_"));
    [...chosen, ...random].forEach(({ name }, i) => {
      sources.push({
        model: name, name: readable(name.replace("retrained/", "without ")),
        colour: ARM_COLOURS[i % ARM_COLOURS.length], dash: DASHES[i % DASHES.length],
        random: i >= chosen.length,
      });
    });
    return sources;
  }

  function isShown({ model }) {
    if (!state.shown) {
      const worst = Explorer.study.models.find(({ arm }) => arm === "worst_cluster");
      state.shown = new Set(["reference", "base", "finetuned", worst?.name]);
    }
    return state.shown.has(model.startsWith("finetuned/") ? "finetuned" : model);
  }

  function fillSources() {
    const box = byId("sources");
    const more = element("details", {}, element("summary", { textContent: "more models" }));
    const boxes = state.sources.map((source) => {
      const check = element("input", { type: "checkbox", checked: isShown(source) });
      check.addEventListener("change", () => {
        const name = source.model.startsWith("finetuned/") ? "finetuned" : source.model;
        if (check.checked) state.shown.add(name);
        else state.shown.delete(name);
        load();
      });
      const key = element("canvas", { width: 26, height: 8 });
      const context = key.getContext("2d");
      Object.assign(context, { strokeStyle: source.colour, lineWidth: 3 });
      context.setLineDash(source.dash);
      context.beginPath();
      context.moveTo(0, 4);
      context.lineTo(26, 4);
      context.stroke();
      const label = element("label", {}, check, key, ` ${source.name}`);
      label.dataset.model = source.model;
      if (source.random) more.append(label);
      return source.random ? null : label;
    });
    box.replaceChildren(element("legend", { textContent: "contours" }), ...boxes.filter(Boolean));
    if (more.children.length > 1) box.append(more);
  }

  function scoreOf(model, region) {
    const { rows, columns } = Explorer.study;
    if (!model.startsWith("finetuned/")) return Explorer.arms.score(model, region, state.column);
    const at = [rows.indexOf(model.slice(10)), columns.indexOf(state.column)];
    return at.includes(-1) ? NaN : Explorer.matrix.value(...at, region);
  }

  function fillDice() {
    const models = state.sources.filter((source) => source.model !== "reference" && isShown(source));
    const table = byId("dice");
    table.tHead.replaceChildren(
      element("tr", {}, element("th", { scope: "col", textContent: "label or region" }),
        ...models.map(({ name }) => element("th", { scope: "col", textContent: name }))),
    );
    table.tBodies[0].replaceChildren(...Explorer.study.regions.map((region) => {
      const row = element("tr", {}, element("th", { scope: "row", textContent: Explorer.regionName(region) }));
      for (const { model } of models) {
        const dice = scoreOf(model, region);
        const cell = element("td", { className: "number", textContent: digits(dice) });
        if (Number.isNaN(dice)) cell.title = "undefined: in neither mask";
        cell.dataset.model = model;
        cell.dataset.region = region;
        row.append(cell);
      }
      return row;
    }));
  }

  function title() {
    const { region } = Explorer.study;
    const model = state.row ? `finetuned/${state.row}` : "base";
    const dice = scoreOf(model, region);
    const name = state.row ? `Model of ${state.row}` : "Base model";
    byId("cell-title").textContent = `${name} on ${state.column}: Dice ${digits(dice)}`;
    let own = "";
    if (state.row === state.column) own = " It was fine-tuned on copies of this very case.";
    else if (state.row && Explorer.samePatient(state.row, state.column)) {
      own = " It was fine-tuned on another scan of this patient.";
    }
    const kind = Explorer.study.held_out.includes(state.column) ? "A held-out case." : "";
    byId("cell-note").textContent = `Dice of ${Explorer.regionName(region)}.${own} ${kind}`.trim();
  }

  // --- Commands ---------------------------------------------------------------------

  const quoted = (path) => (/^[\w./+:@-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

  function commands() {
    const { raw, results } = Explorer.study;
    const { column, row } = state;
    const images = Array.from({ length: Explorer.study.all_channels }, (_, i) =>
      `${raw}/imagesTr/${column}_${String(i).padStart(4, "0")}.nii.gz`);
    const reference = `${raw}/labelsTr/${column}.nii.gz`;
    const model = row ? `finetuned/${row}` : "base";
    const prediction = `${results}/predictions/${model}/${column}.nii.gz`;
    const folder = `${results.replace(/\/[^/]*$/, "")}/corrections`;
    const corrected = `${folder}/${column}.nii.gz`;
    const [first, ...others] = images.map(quoted);
    const more = others.length ? ` -o ${others.join(" ")}` : "";
    const python = [
      ...images.map((path) => `slicer.util.loadVolume(r'${path}')`),
      `slicer.util.loadSegmentation(r'${reference}')`,
      `slicer.util.loadSegmentation(r'${prediction}')`,
    ].join("; ");
    const list = [
      ["ITK-SNAP, to look at this model's label map", `itksnap -g ${first}${more} -s ${quoted(prediction)}`],
      ["3D Slicer, reference and this model", `Slicer --python-code "${python}"`],
    ];
    if (!Explorer.study.held_out.includes(column)) {
      list.unshift([
        "ITK-SNAP, to correct a copy of the reference",
        `mkdir -p ${quoted(folder)} && cp -n ${quoted(reference)} ${quoted(corrected)} && itksnap -g ${first}${more} -s ${quoted(corrected)}`,
      ]);
    }
    return list;
  }

  async function copy(text, field, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without leave to write the clipboard: mark the text, and use the older way.
      field.select();
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }

  function fillCommands() {
    byId("commands").replaceChildren(
      element("h3", { textContent: "Open the same files" }),
      ...commands().map(([name, text]) => {
        const field = element("input", { type: "text", readOnly: true, value: text, className: "command" });
        field.setAttribute("aria-label", name);
        const button = element("button", { type: "button", textContent: "copy" });
        button.setAttribute("aria-label", `copy: ${name}`);
        button.addEventListener("click", () => copy(text, field, button));
        return element("p", {}, element("span", { textContent: name }), element("br"), field, " ", button);
      }),
    );
  }

  function fillDecisions() {
    const names = [...new Set([state.row, state.column])].filter((name) => Explorer.study.rows.includes(name));
    byId("decide").replaceChildren(
      element("h3", { textContent: "Decide" }),
      ...names.map((name) =>
        element("p", {}, element("span", { textContent: `${name}: ` }), Explorer.decisions.control(name, "cell"))),
    );
  }

  // --- Loading ----------------------------------------------------------------------

  // Label number to group: each its own, or those of one region together.
  function group() {
    const name = byId("contour-region").value;
    if (name === "") return Uint16Array.from({ length: 65536 }, (_, label) => label);
    const { labels, unions } = Explorer.study;
    const groups = new Uint16Array(65536);
    for (const label of name in labels ? [labels[name]] : unions[name]) groups[label] = 1;
    return groups;
  }

  // Read what the panels need, and draw; a cell that was left meanwhile is dropped.
  async function load({ fresh = false } = {}) {
    const request = ++state.request;
    const { column } = state;
    const place = Explorer.study.channel_numbers[Number(byId("channel").value)];
    const own = state.row ? `finetuned/${state.row}` : "base";
    const wanted = state.sources.filter(isShown);
    const optional = (promise) => promise.catch((error) => ({ problem: error.message }));
    const [channel, reference, compared, ...maps] = await Promise.all([
      optional(Explorer.channel(column, place)),
      optional(Explorer.map(column, "reference")),
      optional(Explorer.map(column, own)),
      ...wanted.map(({ model }) => optional(Explorer.map(column, model))),
    ]);
    if (request !== state.request) return;
    const problem = [channel, reference, compared].find((part) => part?.problem)?.problem;
    if (problem) Explorer.say(problem);
    const usable = (part) => (part && !part.problem ? part : null);
    Explorer.panels.show({
      channel: usable(channel), reference: usable(reference), compared: usable(compared),
      sources: wanted.map((source, i) => ({ ...source, map: usable(maps[i]), missing: whyMissing(source, maps[i]) })),
      group: group(), fresh,
    });
    fillDice();
    byId("cell-body").dataset.ready = `${state.row ?? ""},${column}`;
  }

  function whyMissing({ model }, map) {
    if (map && !map.problem) return "";
    const left = Explorer.study.left_out[state.column];
    if (!Explorer.study.served && left?.models.includes(model)) return "left out of this page: see it with `make explore`";
    return "no prediction";
  }

  function show(row, column) {
    Object.assign(state, { row, column, sources: sourcesOf(row) });
    byId("cell-body").hidden = false;
    delete byId("cell-body").dataset.ready;
    title();
    fillSources();
    fillDice();
    fillDecisions();
    fillCommands();
    load({ fresh: true });
    byId("cell-section").focus({ preventScroll: innerWidth > 1100 });
  }

  function start() {
    const { study } = Explorer;
    byId("channel").replaceChildren(...study.channels.map((name, i) => new Option(name, i)));
    byId("contour-region").replaceChildren(
      new Option("all labels", ""),
      ...[...Object.keys(study.labels), ...Object.keys(study.unions)].map((name) => new Option(readable(name), name)),
    );
    byId("channel").addEventListener("change", () => load());
    byId("contour-region").addEventListener("change", () => load());
    Explorer.panels.start();
  }

  return { start, show, state };
})();
