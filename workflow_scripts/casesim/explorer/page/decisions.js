// The reviewer's decisions: kept in the browser, by run, written to and read from a table.
"use strict";

Explorer.decisions = (() => {
  const { byId, element } = Explorer;
  const WORDS = ["fine", "relabel", "remove", "unsure"];
  const MEANING = {
    fine: "stays as it is",
    relabel: "its label map is to be corrected",
    remove: "is to be left out of training",
    unsure: "to be looked at again",
  };
  const COLUMNS = ["case", "decision", "note", "reviewer", "time", "matrix_digest", "held_out_seen"];
  const listeners = [];
  let state = null;

  // Chromium gives all pages from a disk one store: the run's name keeps runs apart.
  const key = () => `casesim-explorer/${Explorer.study.run}`;

  function read() {
    const empty = { marks: {}, reviewer: "", exported: false, seen: false };
    try {
      return { ...empty, ...JSON.parse(localStorage.getItem(key()) ?? "{}") };
    } catch {
      return empty;
    }
  }

  function write() {
    try {
      localStorage.setItem(key(), JSON.stringify(state));
    } catch {
      Explorer.say("This browser keeps nothing: export the decisions before you close the page.");
    }
    tell();
  }

  function tell() {
    const marks = Object.values(state.marks).filter((mark) => mark.decision);
    const counts = WORDS.map((word) => [word, marks.filter((mark) => mark.decision === word).length]);
    byId("counts").textContent =
      counts.map(([word, number]) => `${number} ${word}`).join(", ") + ` of ${Explorer.study.rows.length} train cases`;
    byId("reviewer").value = state.reviewer;
    listeners.forEach((listener) => listener());
  }

  const mark = (name) => state.marks[name] ?? { decision: "", note: "", time: "" };

  function set(name, change) {
    const time = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    const changed = { ...mark(name), ...change, time, reviewer: state.reviewer };
    if (changed.decision || changed.note) state.marks[name] = changed;
    else delete state.marks[name];
    write();
  }

  const plain = (text) => String(text ?? "").replace(/\s+/g, " ").trim();

  function table() {
    const lines = Object.entries(state.marks)
      .filter(([, entry]) => entry.decision)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, entry]) => [
        name, entry.decision, plain(entry.note), plain(entry.reviewer || state.reviewer), entry.time,
        Explorer.study.digest, state.seen ? "true" : "false",
      ]);
    return [COLUMNS, ...lines].map((line) => line.join("\t")).join("\n") + "\n";
  }

  function save() {
    if (!Object.values(state.marks).some((entry) => entry.decision)) {
      Explorer.say("There is no decision to export yet.");
      return;
    }
    const url = URL.createObjectURL(new Blob([table()], { type: "text/tab-separated-values" }));
    const link = element("a", { href: url, download: "decisions.tsv" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    const held = Explorer.study.held_out.length && !state.seen;
    state.exported = true;
    // From now on the results on held-out cases are shown.
    state.seen = true;
    write();
    Explorer.say(
      "decisions.tsv is among your downloads. Give its path as pruning: {decisions: ...} in the config and run again" +
        (held ? "; the results on held-out cases are shown from now on." : "."),
    );
  }

  // Take over a table, or say why not: the first problem, in words.
  function take(text) {
    const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/).filter((line) => line.trim());
    const head = (lines.shift() ?? "").split("\t");
    const missing = COLUMNS.slice(0, 6).filter((name) => !head.includes(name));
    if (missing.length) return `This is no table of decisions: it has no column ${missing.join(", ")}.`;
    const rows = lines.map((line) => {
      const fields = line.split("\t");
      return Object.fromEntries(head.map((name, i) => [name, fields[i] ?? ""]));
    });
    const known = new Set(Explorer.study.rows);
    for (const row of rows) {
      if (row.matrix_digest !== Explorer.study.digest) {
        return `These decisions were made on another matrix (${row.matrix_digest.slice(0, 8)}…; this run has ${Explorer.study.digest.slice(0, 8)}…): cases may look different now. Decide again.`;
      }
      if (!known.has(row.case)) return `${row.case} is no train case of this run.`;
      if (!WORDS.includes(row.decision)) return `${row.case}: "${row.decision}" is none of ${WORDS.join(", ")}.`;
    }
    for (const { case: name, decision, note, reviewer, time } of rows) {
      state.marks[name] = { decision, note, reviewer, time };
    }
    if (rows.some((row) => row.held_out_seen === "true")) state.seen = true;
    if (!state.reviewer) state.reviewer = rows.find((row) => row.reviewer)?.reviewer ?? "";
    write();
    return "";
  }

  function reveal() {
    state.seen = true;
    write();
  }

  // Radio buttons and a note for a case; they follow what is decided elsewhere.
  function control(name, place) {
    const box = element("span", { className: "decision" });
    const group = `decision-${place}-${name}`;
    const radios = WORDS.map((word) => {
      const radio = element("input", { type: "radio", name: group, value: word });
      radio.addEventListener("change", () => set(name, { decision: word }));
      // A second click takes the decision back.
      radio.addEventListener("click", () => {
        if (radio.dataset.was === "true") set(name, { decision: "" });
      });
      box.append(element("label", { title: MEANING[word] }, radio, word));
      return radio;
    });
    const note = element("input", { type: "text", placeholder: "note", size: 18 });
    note.setAttribute("aria-label", `note on ${name}`);
    note.addEventListener("change", () => set(name, { note: note.value }));
    box.append(note);
    const follow = () => {
      const { decision, note: words } = mark(name);
      for (const radio of radios) {
        radio.checked = radio.value === decision;
        radio.dataset.was = radio.checked;
      }
      if (document.activeElement !== note) note.value = words ?? "";
    };
    follow();
    box.follow = follow;
    return box;
  }

  function start() {
    state = read();
    listeners.push(() => document.querySelectorAll(".decision").forEach((box) => box.follow()));
    byId("reviewer").addEventListener("change", (event) => {
      state.reviewer = plain(event.target.value);
      write();
    });
    byId("export").addEventListener("click", save);
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", async (event) => {
      const [file] = event.target.files;
      if (!file) return;
      const problem = take(await file.text());
      event.target.value = "";
      Explorer.say(problem || `The decisions of ${file.name} are taken over.`);
    });
    byId("reveal").addEventListener("click", reveal);
    window.addEventListener("storage", (event) => {
      if (event.key !== key()) return;
      state = read();
      tell();
    });
    tell();
  }

  return {
    start, control, set, mark, table, take, reveal,
    seen: () => state.seen,
    onChange: (listener) => listeners.push(listener),
  };
})();
