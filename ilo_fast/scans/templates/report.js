"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const NAMES = { ilo: "ILO", bridge: "bridge", reach: "reach", translation_hit: "translation hit", same_language: "same language" };
  const SCORES = ["ilo", ...data.scores.filter((name) => name !== "ilo")];
  const SHOWN = 8; // curves drawn at first: as many as there are colours
  const DASHES = ["", "7 3", "2 2"];

  // ---------------------------------------------------------------- small helpers

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  };
  const draw = (tag, attributes = {}, ...children) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) if (value != null) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const shown = (value, digits) => (value == null ? "" : typeof value === "number" && digits ? value.toFixed(digits) : String(value));
  const titleOf = (cell) => cell.model + (cell.revision ? "@" + cell.revision : "");
  const fullTitle = (cell) => titleOf(cell) + " on " + cell.corpus + (several("metric") ? ", " + cell.metric : "") + (several("k") ? ", k=" + cell.k : "") + (several("threshold") ? ", threshold=" + cell.threshold : "") + (several("dtype") ? ", " + cell.dtype : "") + (several("pool") ? ", " + cell.pool : "");
  const several = (name) => new Set(data.cells.map((cell) => cell[name])).size > 1;
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / Math.max(values.length, 1);
  const options = (select, pairs) => select.replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const mix = (a, b, t) => {
    const parse = (c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16));
    const [x, y] = [parse(a), parse(b)];
    return "rgb(" + x.map((v, i) => Math.round(v + (y[i] - v) * t)).join(",") + ")";
  };
  const ramp = (t) => {
    const [low, mid, high] = ["--low", "--mid", "--high"].map(colour);
    return t < 0.5 ? mix(low, mid, t * 2) : mix(mid, high, t * 2 - 1);
  };

  const tip = byId("tip");
  const say = (event, text) => {
    tip.textContent = text;
    tip.hidden = false;
    const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const y = event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 16;
    tip.style.left = Math.max(x, 4) + "px";
    tip.style.top = Math.max(y, 4) + "px";
  };
  const hush = () => { tip.hidden = true; };

  const download = (name, text, type = "text/csv") => {
    const url = URL.createObjectURL(new Blob([text], { type: type + ";charset=utf-8" }));
    const link = make("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  const csv = (rows) => rows.map((row) => row.map((value) => {
    let text = value == null ? "" : String(value);
    if (typeof value === "string" && /^[=+@\t\r-]/.test(text)) text = "'" + text; // no formulas in spreadsheets
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }).join(",")).join("\n") + "\n";

  // ---------------------------------------------------------------- state

  for (const cell of data.cells) {
    const curve = cell.curves.ilo.mean;
    const at = cell.peak;
    cell.peakIlo = curve[at];
    cell.peakLayer = cell.layers[at];
    cell.meanIlo = mean(curve);
    cell.hit = cell.curves.translation_hit.mean[at];
    cell.same = cell.curves.same_language.mean[at];
    cell.seconds = Object.values(cell.record.timeline || {}).reduce((a, b) => a + b, 0);
  }
  const ranked = [...data.cells].sort((a, b) => b.peakIlo - a.peakIlo);
  const drawn = new Set(ranked.slice(0, SHOWN));
  const slots = new Map(); // a curve keeps its colour while it is drawn
  let chosen = ranked[0];
  const sorting = { models: { column: 0, down: false }, failures: { column: 0, down: false } };

  const filtered = () => {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [corpus, metric] = [byId("corpus").value, byId("metric").value];
    return data.cells.filter((cell) => {
      const text = [cell.model, cell.revision, cell.corpus, cell.metric, cell.dtype].join(" ").toLowerCase();
      return words.every((word) => text.includes(word)) && (!corpus || cell.corpus === corpus) && (!metric || cell.metric === metric);
    });
  };
  const style = (cell) => {
    if (!slots.has(cell)) {
      const taken = new Set(slots.values());
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      slots.set(cell, slot);
    }
    const slot = slots.get(cell);
    return { stroke: "var(--s" + (slot % SHOWN) + ")", "stroke-dasharray": DASHES[Math.floor(slot / SHOWN) % DASHES.length] || null };
  };

  // ---------------------------------------------------------------- tables

  const sortable = (table, columns, rows, order, { key, extra, click, className } = {}) => {
    const value = (row) => columns[order.column].get(row);
    const sorted = [...rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const by = x == null ? 1 : y == null ? -1 : typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
      return order.down ? -by : by;
    });
    const head = make("tr", {}, ...(extra ? [make("th", {}, make("span", { title: "drawn below" }, "plot"))] : []),
      ...columns.map((column, number) => make("th", {
        class: column.number ? "number" : null, scope: "col",
        "aria-sort": order.column === number ? (order.down ? "descending" : "ascending") : null,
      }, make("button", {
        type: "button",
        onclick: () => {
          order.down = order.column === number ? !order.down : Boolean(column.number);
          order.column = number;
          render();
        },
      }, column.name + (order.column === number ? (order.down ? " ↓" : " ↑") : "")))));
    const body = sorted.map((row) => make("tr", {
      class: className ? className(row) : null, onclick: click ? () => click(row) : null,
    }, ...(extra ? [extra(row)] : []), ...columns.map((column) => {
      const text = shown(column.get(row), column.digits);
      return make("td", { class: column.number ? "number" : column.className, title: column.className === "name" ? text : null }, text);
    })));
    if (!body.length) body.push(make("tr", {}, make("td", { class: "empty", colspan: columns.length + 1 }, key || "nothing to show")));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  };

  const modelColumns = [
    { name: "model", get: (c) => c.model, className: "name" },
    { name: "revision", get: (c) => c.revision, className: "name" },
    { name: "corpus", get: (c) => c.corpus, className: "name" },
    { name: "metric", get: (c) => c.metric },
    { name: "peak ILO", digits: 4, get: (c) => c.peakIlo, number: true },
    { name: "at layer", get: (c) => c.peakLayer, number: true },
    { name: "mean ILO", digits: 4, get: (c) => c.meanIlo, number: true },
    { name: "translation hit", digits: 4, get: (c) => c.hit, number: true },
    { name: "same language", digits: 4, get: (c) => c.same, number: true },
    { name: "layers", get: (c) => c.layers.length, number: true },
    { name: "languages", get: (c) => c.languages.length, number: true },
    { name: "points", get: (c) => c.points, number: true },
    { name: "k", get: (c) => c.k, number: true },
    { name: "threshold", get: (c) => c.threshold, number: true },
    { name: "pool", get: (c) => c.pool },
    { name: "dtype", get: (c) => c.dtype },
    { name: "certified", digits: 4, get: (c) => c.certified, number: true },
  ];
  const failureColumns = [
    { name: "model", get: (f) => f.model, className: "name" },
    { name: "revision", get: (f) => f.revision, className: "name" },
    { name: "corpus", get: (f) => f.corpus, className: "name" },
    { name: "kind", get: (f) => f.kind, className: "bad" },
    { name: "reason", get: (f) => f.reason, className: "long" },
    { name: "when", get: (f) => f.when },
  ];

  const renderTables = (cells) => {
    sortable(byId("models-table"), modelColumns, cells, sorting.models, {
      key: "no model matches",
      className: (cell) => (cell === chosen ? "chosen" : null),
      click: (cell) => { chosen = cell; render(); },
      extra: (cell) => make("td", { onclick: (event) => event.stopPropagation() }, make("input", {
        type: "checkbox", checked: drawn.has(cell), "aria-label": "draw " + fullTitle(cell),
        onchange: (event) => {
          if (event.target.checked) drawn.add(cell);
          else { drawn.delete(cell); slots.delete(cell); }
          render();
        },
      })),
    });
    sortable(byId("failures-table"), failureColumns, data.failures, sorting.failures, { key: "no failures" });
  };

  // ---------------------------------------------------------------- curves

  const renderCurves = (cells) => {
    const score = byId("curve-score").value;
    const depth = byId("curve-axis").value === "depth";
    const visible = cells.filter((cell) => drawn.has(cell));
    const figure = byId("curve-figure");
    const [width, height, left, right, top, bottom] = [1100, 400, 52, 16, 14, 44];
    const xs = (cell) => cell.layers.map((layer) => (depth ? layer / Math.max(cell.record.model.n_layers, 1) : layer));
    const most = depth ? 1 : Math.max(1, ...visible.flatMap((cell) => cell.layers));
    const tops = visible.flatMap((cell) => {
      const curve = cell.curves[score];
      return [...curve.mean, ...(curve.high || []), ...(curve.null || [])];
    });
    const ceiling = niceCeiling(Math.max(0.02, ...tops));
    const x = (value) => left + (value / most) * (width - left - right);
    const y = (value) => height - bottom - (value / ceiling) * (height - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": NAMES[score] + " by layer" });
    for (let step = 0; step <= 5; step += 1) {
      const value = (ceiling * step) / 5;
      svg.append(draw("line", { class: step ? "grid" : "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(ceiling < 0.1 ? 3 : 2)));
    }
    const every = depth ? 0.1 : Math.max(1, Math.ceil(most / 20));
    for (let value = 0; value <= most + 1e-9; value += every) {
      svg.append(draw("text", { x: x(value), y: height - bottom + 18, "text-anchor": "middle" }, depth ? value.toFixed(1) : value));
    }
    svg.append(draw("text", { class: "title", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, depth ? "depth: layer over the model's number of layers" : "layer (0 is the embedding output)"));
    svg.append(draw("text", { class: "title", x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, NAMES[score] + ", mean over languages"));
    const groups = new Map();
    const crowded = visible.length > 4; // then bands and nulls show on the curve pointed at
    for (const cell of visible) {
      const curve = cell.curves[score];
      const [at, look] = [xs(cell), style(cell)];
      const path = (values) => values.map((v, i) => (i ? "L" : "M") + x(at[i]).toFixed(1) + " " + y(v).toFixed(1)).join("");
      const group = draw("g", { class: crowded ? "crowded" : null });
      if (curve.low) {
        const back = curve.low.map((v, i) => [at[i], v]).reverse().map(([a, v]) => "L" + x(a).toFixed(1) + " " + y(v).toFixed(1)).join("");
        group.append(draw("path", { class: "band", d: path(curve.high) + back + "Z", fill: look.stroke }));
      }
      if (curve.null) group.append(draw("path", { class: "null", d: path(curve.null), stroke: look.stroke }));
      group.append(draw("path", { class: "line", d: path(curve.mean), ...look }));
      if (at.length === 1) group.append(draw("circle", { cx: x(at[0]), cy: y(curve.mean[0]), r: 4, fill: look.stroke }));
      groups.set(cell, group);
      svg.append(group);
    }
    const cursor = draw("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
    svg.append(cursor);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const value = (((event.clientX - box.left) / box.width) * width - left) / (width - left - right) * most;
      if (value < -0.02 * most || value > 1.02 * most || !visible.length) { cursor.setAttribute("visibility", "hidden"); hush(); return; }
      const all = visible.flatMap(xs);
      const nearest = all.reduce((best, v) => (Math.abs(v - value) < Math.abs(best - value) ? v : best), all[0]);
      cursor.setAttribute("x1", x(nearest));
      cursor.setAttribute("x2", x(nearest));
      cursor.setAttribute("visibility", "visible");
      const lines = visible.map((cell) => {
        const i = xs(cell).reduce((best, v, j, list) => (Math.abs(v - nearest) < Math.abs(list[best] - nearest) ? j : best), 0);
        const curve = cell.curves[score];
        const range = curve.low ? " (" + shown(curve.low[i], 3) + " – " + shown(curve.high[i], 3) + ")" : "";
        const chance = curve.null ? ", null " + shown(curve.null[i], 3) : "";
        return [curve.mean[i], shown(curve.mean[i], 3) + range + chance + "  " + fullTitle(cell)];
      }).sort((a, b) => b[0] - a[0]).map((pair) => pair[1]);
      say(event, (depth ? "depth " + nearest.toFixed(2) : "layer " + nearest) + "\n" + lines.join("\n"));
    });
    svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); hush(); });
    figure.replaceChildren(visible.length ? svg : make("p", { class: "empty" }, "no model is ticked and matches"));
    byId("legend").replaceChildren(...visible.map((cell) => make("li", {
      onpointerenter: () => groups.forEach((group, other) => group.classList.add(other === cell ? "focus" : "dim")),
      onpointerleave: () => groups.forEach((group) => group.classList.remove("dim", "focus")),
    }, draw("svg", { width: 26, height: 10 }, draw("line", { x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 2.5, ...style(cell) })), fullTitle(cell))));
    const parts = [];
    if (visible.some((cell) => cell.curves[score].low)) parts.push("Bands: 95 % bootstrap intervals over sentences, neighbours fixed.");
    if (visible.some((cell) => cell.curves[score].null)) parts.push("Dotted: the mean under shuffled languages, which is perfect mixing.");
    if (parts.length && crowded) parts.push("With more than four curves they show for the name pointed at.");
    byId("curves-note").textContent = parts.join(" ");
  };
  const niceCeiling = (value) => {
    if (value > 0.8) return 1;
    const unit = 10 ** Math.floor(Math.log10(value));
    return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((n) => n * unit).find((n) => n >= value * 1.02);
  };

  // ---------------------------------------------------------------- heat maps

  const heatMap = (figure, rows, columns, values, { rowTitle, columnTitle, ceiling, describe, numbers }) => {
    if (!rows.length) { figure.replaceChildren(make("p", { class: "empty" }, "nothing to show")); return; }
    const longest = (texts) => Math.max(...texts.map((text) => String(text).length));
    const [cellWidth, cellHeight] = numbers ? [64, 30] : [26, rows.length > 50 ? 11 : 17];
    const left = Math.min(longest(rows) * 7 + 34, 330);
    const top = Math.min(longest(columns) * 6 + 14, 245);
    const [width, height] = [left + columns.length * cellWidth + 130, top + Math.max(rows.length * cellHeight + 26, 134)];
    const svg = draw("svg", { class: "wide", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": rowTitle + " by " + columnTitle });
    const clip = (text) => (String(text).length > 44 ? String(text).slice(0, 43) + "…" : String(text));
    columns.forEach((name, j) => svg.append(draw("text", { transform: `translate(${left + j * cellWidth + cellWidth / 2 + 4} ${top - 6}) rotate(-60)` }, clip(name))));
    const each = rows.length > 50 ? 2 : 1;
    rows.forEach((name, i) => {
      if (i % each === 0) svg.append(draw("text", { x: left - 7, y: top + i * cellHeight + cellHeight / 2 + 4, "text-anchor": "end" }, clip(name)));
      columns.forEach((column, j) => {
        const value = values[i][j];
        const share = value == null ? 0 : Math.min(value / ceiling, 1);
        const box = draw("rect", { x: left + j * cellWidth, y: top + i * cellHeight, width: cellWidth - 1, height: cellHeight - 1, fill: value == null ? "none" : ramp(share) });
        box.addEventListener("pointermove", (event) => say(event, describe(i, j)));
        box.addEventListener("pointerleave", hush);
        svg.append(box);
        if (numbers && value != null) {
          const label = draw("text", { x: left + j * cellWidth + cellWidth / 2, y: top + i * cellHeight + cellHeight / 2 + 4, "text-anchor": "middle", "pointer-events": "none" }, value.toFixed(3));
          label.style.fill = (share > 0.55) === (ink(ramp(1)) < 0.5) ? "#fff" : "#0b0b0b";
          svg.append(label);
        }
      });
    });
    svg.append(draw("text", { class: "title", x: 12, y: top + (rows.length * cellHeight) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${top + (rows.length * cellHeight) / 2})` }, rowTitle));
    const at = left + columns.length * cellWidth + 24;
    for (let step = 0; step < 40; step += 1) svg.append(draw("rect", { x: at, y: top + (39 - step) * 3, width: 14, height: 3.2, fill: ramp(step / 39) }));
    svg.append(draw("text", { x: at + 20, y: top + 9 }, shown(ceiling, 2)), draw("text", { x: at + 20, y: top + 120 }, "0"));
    figure.replaceChildren(svg);
  };
  const ink = (rgb) => { const [r, g, b] = rgb.match(/\d+/g).map(Number); return (0.299 * r + 0.587 * g + 0.114 * b) / 255; };

  const renderHeat = (cells) => {
    if (!cells.includes(chosen)) chosen = cells[0] || null;
    const select = byId("heat-cell");
    options(select, cells.map((cell) => [String(data.cells.indexOf(cell)), fullTitle(cell)]));
    if (!chosen) { byId("heat-figure").replaceChildren(make("p", { class: "empty" }, "no model matches")); return; }
    select.value = String(data.cells.indexOf(chosen));
    const score = byId("heat-score").value;
    const values = chosen.heat[score];
    heatMap(byId("heat-figure"), chosen.layers, chosen.languages, values, {
      rowTitle: "layer", columnTitle: "language", ceiling: niceCeiling(Math.max(0.02, ...values.flat())),
      describe: (i, j) => chosen.languages[j] + ", layer " + chosen.layers[i] + "\n" + SCORES.map((name) => NAMES[name] + " " + shown(chosen.heat[name][i][j], 4)).join("\n"),
    });
  };
  const renderOverlap = () => {
    byId("overlap").hidden = !data.overlaps.length;
    const group = data.overlaps[Number(byId("overlap-group").value) || 0];
    if (!group) return;
    const others = group.values.flatMap((row, i) => row.filter((_, j) => i !== j));
    heatMap(byId("overlap-figure"), group.models.map((name, i) => name + ", layer " + group.layers[i]), group.models, group.values.map((row, i) => row.map((v, j) => (i === j ? null : v))), {
      rowTitle: "", columnTitle: "model", ceiling: niceCeiling(Math.max(0.02, ...others)), numbers: group.models.length <= 12,
      describe: (i, j) => group.models[i] + ", layer " + group.layers[i] + "\n" + group.models[j] + ", layer " + group.layers[j] + "\nin common " + shown(group.values[i][j], 4) + "\nby chance " + shown(group.chance, 5),
    });
  };

  // ---------------------------------------------------------------- records, downloads, page

  const renderRecords = (cells) => byId("record-list").replaceChildren(...cells.map((cell) => {
    const details = make("details", {}, make("summary", {}, fullTitle(cell) + " · " + cell.record.finished + " · " + ((cell.record.device || {}).name || "")));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(make("pre", {}, JSON.stringify(cell.record, null, 2)));
    });
    return details;
  }));

  const names = ["model", "revision", "corpus", "metric", "k", "threshold", "pool", "dtype"];
  const rowsOf = {
    models: () => [modelColumns.map((c) => c.name), ...filtered().map((cell) => modelColumns.map((c) => c.get(cell)))],
    failures: () => [failureColumns.map((c) => c.name), ...data.failures.map((f) => failureColumns.map((c) => c.get(f)))],
    curves: () => {
      const score = byId("curve-score").value;
      const parts = ["mean", "low", "high", "null", "null_sd", "p", "p_lower"];
      const rows = [[...names, "layer", ...parts.map((part) => score + "_" + part)]];
      for (const cell of filtered()) cell.layers.forEach((layer, i) => rows.push([...names.map((n) => cell[n]), layer, ...parts.map((part) => (cell.curves[score][part] || [])[i])]));
      return rows;
    },
    heat: () => {
      const rows = [[...names, "layer", "language", ...SCORES]];
      if (chosen) chosen.layers.forEach((layer, i) => chosen.languages.forEach((language, j) => rows.push([...names.map((n) => chosen[n]), layer, language, ...SCORES.map((s) => chosen.heat[s][i][j])])));
      return rows;
    },
    overlap: () => {
      const rows = [["corpus", "metric", "k", "model", "layer", "other", "other_layer", "mutual_knn"]];
      for (const g of data.overlaps) g.models.forEach((a, i) => g.models.forEach((b, j) => rows.push([g.corpus, g.metric, g.k, a, g.layers[i], b, g.layers[j], g.values[i][j]])));
      return rows;
    },
  };
  for (const button of document.querySelectorAll("[data-csv]")) {
    button.addEventListener("click", () => {
      const what = button.dataset.csv;
      if (what === "records") download("records.json", JSON.stringify(filtered().map((cell) => cell.record), null, 1), "application/json");
      else download(what + ".csv", csv(rowsOf[what]()));
    });
  }

  const render = () => {
    const cells = filtered();
    byId("matching").textContent = cells.length === data.cells.length ? "" : cells.length + " of " + data.cells.length;
    renderTables(cells);
    renderCurves(cells);
    renderHeat(cells);
    renderOverlap();
    renderRecords(cells);
  };

  const unique = (name) => [...new Set(data.cells.map((cell) => cell[name]))].sort();
  options(byId("corpus"), [["", "all"], ...unique("corpus").map((name) => [name, name])]);
  options(byId("metric"), [["", "all"], ...unique("metric").map((name) => [name, name])]);
  for (const id of ["curve-score", "heat-score"]) options(byId(id), SCORES.map((name) => [name, NAMES[name] || name]));
  options(byId("overlap-group"), data.overlaps.map((g, i) => [String(i), g.corpus + ", " + g.metric + ", k=" + g.k]));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("find").addEventListener("input", render);
  for (const id of ["corpus", "metric", "curve-score", "curve-axis", "heat-score", "overlap-group"]) byId(id).addEventListener("change", render);
  byId("heat-cell").addEventListener("change", (event) => { chosen = data.cells[Number(event.target.value)]; render(); });
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    render();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  const count = (number, what) => number + " " + what + (number === 1 ? "" : "s");
  const models = new Set(data.cells.map((cell) => titleOf(cell))).size;
  byId("summary").textContent = [count(models, "model"), unique("corpus").length === 1 ? "1 corpus" : unique("corpus").length + " corpora", count(data.cells.length, "result"), count(data.failures.length, "failure")].join(" · ");
  byId("made").textContent = "Made " + data.generated + " by ilo_fast " + data.package + ". ILO: Wilie, Cahyawijaya, He, Fung 2025, arXiv 2503.11280.";
  render();
})();
