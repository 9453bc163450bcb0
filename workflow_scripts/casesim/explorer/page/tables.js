// Tables that are sorted by a click on their head, or by Enter on it.
"use strict";

Explorer.tables = (() => {
  const { element, digits, readable } = Explorer;
  // What a column means, for those whose name does not say it.
  const MEANING = {
    donor_effect: "how much better its model segments the others than usual (Dice)",
    donor_z: "donor effect in robust standard deviations",
    recipient_effect: "how much better the other models segment it than usual (Dice)",
    recipient_z: "recipient effect in robust standard deviations",
    residual: "how far the model does better on its own case than both effects say",
    row_mean: "mean Dice of its model on the other cases",
    row_max: "highest Dice of its model on another case",
    kind: "which error the case looks like, by the direction of errors in row and column: a reason to look",
    strength: "how clear the kind is",
    evidence: "the numbers that the kind rests on",
    note: "where cluster and kind differ, why",
    worst: "in the worst cluster",
    worst_share: "share of resamples in which it is in the worst cluster",
    refit_row_mean: "row mean of a second fine-tune with another seed",
  };

  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "string" || typeof b === "string") {
      return String(a).localeCompare(String(b), undefined, { numeric: true });
    }
    return Number(a) - Number(b);
  }

  function text(value) {
    if (value === null) return "–";
    if (value === true) return "yes";
    if (value === false) return "no";
    if (typeof value === "number" && !Number.isInteger(value)) return digits(value);
    return String(value);
  }

  // Fill a table. `extra` are further columns behind the case: { name, cell(case) }.
  function show(table, { columns, rows }, { open, extra = [], marked } = {}) {
    const order = { column: -1, descending: false };
    const body = table.tBodies[0];
    const at = columns.indexOf("case");
    const lines = rows.map((row) => {
      const line = element("tr");
      row.forEach((value, i) => {
        const cell = element(i === at ? "th" : "td", { className: typeof value === "number" ? "number" : String(value).length > 24 ? "long" : "" });
        if (i === at && open) {
          const button = element("button", { type: "button", className: "link", textContent: value });
          button.addEventListener("click", () => open(value));
          cell.append(button);
        } else cell.textContent = text(value);
        line.append(cell);
        if (i === at) for (const more of extra) line.append(element("td", {}, more.cell(row[at])));
      });
      if (marked?.(row)) line.className = "worst";
      line.dataset.case = row[at];
      return { row, line };
    });
    const heads = columns.map((name, column) => {
      const button = element("button", { type: "button", className: "sort", textContent: readable(name), title: MEANING[name] ?? "" });
      const head = element("th", { scope: "col" }, button);
      button.addEventListener("click", () => {
        order.descending = order.column === column && !order.descending;
        order.column = column;
        const sign = order.descending ? -1 : 1;
        // What is undefined stays last, whichever way the others are sorted.
        lines.sort((a, b) =>
          a.row[column] === null || b.row[column] === null
            ? compare(a.row[column], b.row[column])
            : sign * compare(a.row[column], b.row[column]));
        body.append(...lines.map(({ line }) => line));
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
      });
      return head;
    });
    const further = extra.map(({ name }) => element("th", { scope: "col", textContent: name }));
    heads.splice(at + 1, 0, ...further);
    table.tHead.replaceChildren(element("tr", {}, ...heads));
    body.replaceChildren(...lines.map(({ line }) => line));
  }

  return { show, text };
})();
