// Before and after: what each arm removes, and what the model without it does.
"use strict";

Explorer.arms = (() => {
  const { byId, digits, readable, tables } = Explorer;
  let dice = null;
  const place = { model: new Map(), region: new Map(), test: new Map() };

  // Dice of a model that segmented all test cases (the base and the retrained ones).
  function score(model, region, name) {
    const at = [place.model.get(model), place.region.get(region), place.test.get(name)];
    if (at.includes(undefined)) return NaN;
    return dice[(at[0] * place.region.size + at[1]) * place.test.size + at[2]];
  }

  function mean(numbers) {
    return numbers.reduce((a, b) => a + b, 0) / numbers.length;
  }

  // A case before and after, as the mean over seeds, each seed with its own full model.
  function pair(arm, region, name) {
    const models = Explorer.study.models.filter((model) => model.arm === arm);
    return {
      name,
      before: mean(models.map((model) => score(model.before, region, name))),
      after: mean(models.map((model) => score(model.name, region, name))),
      removed: Explorer.study.summary.arms[arm].removed_cases.includes(name),
    };
  }

  function signed(value) {
    return value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + value.toFixed(3);
  }

  function drawPairs() {
    const { tests, held_out: heldOut } = Explorer.study;
    const [arm, region] = [byId("arm").value, byId("arm-region").value];
    if (!arm) return;
    const judges = new Set(heldOut);
    const sorted = (names) =>
      names.map((name) => pair(arm, region, name)).sort((a, b) => a.before - b.before);
    const groups = [{ name: "pool cases (grey: removed)", cases: sorted(tests.filter((name) => !judges.has(name))) }];
    if (Explorer.decisions.seen() && heldOut.length) {
      groups.push({ name: "held-out cases", cases: sorted(heldOut) });
    }
    Explorer.charts.pairs(byId("pairs"), groups, (name) => Explorer.open(null, name));
  }

  function table() {
    const seen = Explorer.decisions.seen();
    const region = byId("arm-region").value;
    const columns = ["arm", "removed cases", "kept pool cases", "removed ones"];
    if (seen) columns.push("held-out cases", "95 % interval", "verdict");
    const rows = Object.entries(Explorer.study.summary.arms).map(([arm, content]) => {
      const { held_out: heldOut, kept, removed } = content.regions[region];
      const row = [
        readable(arm), content.removed_cases.join(", ") || "none",
        `${signed(kept.mean)} (n = ${kept.n})`, `${signed(removed.mean)} (n = ${removed.n})`,
      ];
      if (seen) {
        row.push(
          `${signed(heldOut.mean)} (n = ${heldOut.n})`,
          heldOut.interval_low === null ? "–" : `${signed(heldOut.interval_low)} to ${signed(heldOut.interval_high)}`,
          content.verdict ?? "–",
        );
      }
      return row;
    });
    tables.show(byId("arms"), { columns, rows });
  }

  function show() {
    const { summary, held_out: heldOut } = Explorer.study;
    const seen = Explorer.decisions.seen();
    byId("hidden-note").hidden = seen || !heldOut.length;
    const sentences = Object.values(summary.arms).map((arm) => arm.sentence).filter(Boolean);
    byId("verdict").replaceChildren(
      ...(seen ? sentences : []).flatMap((sentence) => [sentence, document.createElement("br")]),
    );
    table();
    drawPairs();
  }

  function start() {
    const { study } = Explorer;
    dice = study.scores ? Explorer.floats(study.scores) : new Float32Array(0);
    study.models.forEach(({ name }, i) => place.model.set(name, i));
    study.regions.forEach((name, i) => place.region.set(name, i));
    study.tests.forEach((name, i) => place.test.set(name, i));
    const arms = Object.keys(study.summary.arms);
    byId("arm").replaceChildren(...arms.map((arm) => new Option(readable(arm), arm)));
    byId("arm-region").replaceChildren(...study.regions.map((name) => new Option(Explorer.regionName(name), name)));
    byId("arm").addEventListener("change", drawPairs);
    byId("arm-region").addEventListener("change", show);
    Explorer.decisions.onChange(show);
    show();
  }

  return { start, score };
})();
