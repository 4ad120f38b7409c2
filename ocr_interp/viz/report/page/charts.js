// Lines over training or over an axis: logarithmic where asked, a cursor that reads values, a legend that hides.
function ticks(low, high, log) {
  if (log) {
    const found = [];
    const every = Math.max(1, Math.ceil((Math.log10(high) - Math.log10(low)) / 5));
    for (let k = Math.ceil(Math.log10(low) - 1e-9); k <= Math.log10(high) + 1e-9; k += every) found.push(10 ** k);
    if (found.length > 2) return found;
    const fine = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++) for (const m of [1, 2, 5]) fine.push(Number((m * 10 ** k).toPrecision(3)));
    const inside = fine.filter((v) => v >= low && v <= high);
    if (inside.length > 1) return inside;
  }
  const raw = (high - low) / 4 || 1;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * ([1, 2, 5, 10].find((m) => m * unit >= raw * 0.999) || 10);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(10)));
  return found;
}

function scale(values, log, from, to) {
  const used = values.filter((v) => v !== null && Number.isFinite(v) && (!log || v > 0));
  let low = Math.min(...used), high = Math.max(...used);
  if (!used.length) { low = log ? 0.1 : 0; high = 1; }
  if (log) { low *= 0.9; high *= 1.1; }
  else { const room = (high - low) * 0.05 || Math.abs(high) * 0.1 || 1; low -= room; high += room; }
  const f = log ? Math.log10 : (v) => v;
  const place = (v) => from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from);
  place.ticks = ticks(low, high, log);
  place.fits = (v) => v !== null && Number.isFinite(v) && (!log || v > 0);
  return place;
}

drawers.curves = (host, data, time) => {
  let which = 0, cursor = null;
  const state = data.charts.map((chart) => ({ log_x: chart.log_x, log_y: chart.log_y, hidden: new Set() }));
  const controls = html("div", { class: "controls" });
  const picture = html("div", {}), legend = html("div", { class: "controls legend" });
  const readout = html("output", { class: "readout" });
  if (data.charts.length > 1) {
    controls.append(choice("show", data.charts.map((c) => c.name), (k) => { which = k; cursor = null; axes(); draw(); names(); }));
  }
  const logs = html("span", { class: "controls" });
  controls.append(logs);
  host.append(controls, picture, readout, legend);

  const chart = () => data.charts[which];
  const groups = () => [...new Set(chart().series.map((s) => s.group))];
  const visible = () => chart().series.filter((s) => !state[which].hidden.has(s.group));

  function axes() {
    const now = state[which];
    logs.replaceChildren(
      check("log x", now.log_x, (on) => { now.log_x = on; draw(); }),
      check("log y", now.log_y, (on) => { now.log_y = on; draw(); }));
  }
  function names() {
    legend.replaceChildren(...groups().map((group, k) => {
      const sample = svg("svg", { width: 22, height: 8, "aria-hidden": "true" }, svg("line",
        { x1: 0, x2: 22, y1: 4, y2: 4, stroke: palette(k), "stroke-width": 3, "stroke-dasharray": dashes(k) }));
      const button = html("button", { type: "button", "aria-pressed": String(!state[which].hidden.has(group)), onclick: () => {
        const hidden = state[which].hidden;
        if (!hidden.delete(group)) hidden.add(group);
        button.setAttribute("aria-pressed", String(!hidden.has(group)));
        draw();
      } }, sample, group);
      return button;
    }));
  }
  function draw(width = picture.clientWidth) {
    if (!width) return;
    const now = state[which], all = visible(), height = 280, left = 58, right = 14, top = 26, foot = 40;
    const xs = all.flatMap((s) => s.x), ys = [...all.flatMap((s) => s.y), ...chart().lines.map((l) => l.y)];
    const X = scale(xs, now.log_x, left, width - right), Y = scale(ys, now.log_y, height - foot, top);
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
      "aria-label": `${chart().y} against ${chart().x}: ${all.map(summary).join("; ")}. Arrow keys read values.` });
    root.append(svg("text", { x: 4, y: 13, class: "quiet" }, chart().y));
    for (const y of Y.ticks) root.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: Y(y), y2: Y(y) }),
      svg("text", { x: left - 6, y: Y(y) + 4, "text-anchor": "end", class: "quiet" }, shown(y, 4)));
    let last = -Infinity;
    for (const x of X.ticks) {
      if (X(x) - last < 46) continue;
      last = X(x);
      root.append(svg("line", { class: "axis", x1: X(x), x2: X(x), y1: height - foot, y2: height - foot + 5 }),
        svg("text", { x: X(x), y: height - foot + 18, "text-anchor": "middle", class: "quiet" }, shown(x, 4)));
    }
    root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - foot, y2: height - foot }),
      svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle", class: "quiet" }, chart().x));
    const order = groups();
    for (const one of all) {
      const k = order.indexOf(one.group);
      let path = "", pen = false;
      one.x.forEach((x, i) => {
        const ok = X.fits(x) && Y.fits(one.y[i]);
        if (ok) path += `${pen ? "L" : "M"}${X(x).toFixed(1)} ${Y(one.y[i]).toFixed(1)}`;
        pen = ok;
        if (ok && (chart().marks || one.x.length < 3)) root.append(svg("circle", { cx: X(x), cy: Y(one.y[i]), r: 3.5, fill: palette(k) }));
      });
      root.append(svg("path", { class: "series", d: path, stroke: palette(k), "stroke-dasharray": dashes(k) }));
    }
    const named = [];
    let above = -Infinity;
    [...chart().lines].sort((a, b) => b.y - a.y).forEach((line) => {
      if (!Y.fits(line.y)) return;
      const y = Y(line.y), near = y - above < 18; // its name goes below the line, not into the one above
      above = near ? y + 15 : y;
      root.append(svg("line", { class: "level", x1: left, x2: width - right, y1: y, y2: y }));
      named.push(svg("text", { class: "over", x: width - right - 4, y: y + (near ? 15 : -5), "text-anchor": "end" }, `${line.name} ${shown(line.y)}`));
    });
    root.append(...named);
    const at = cursor === null && chart().x === "step" && time.steps.length > 1 ? time.steps[time.at] : cursor;
    if (at !== null && X.fits(at)) {
      const x = Math.max(left, Math.min(width - right, X(at)));
      root.append(svg("line", { class: "cursor", x1: x, x2: x, y1: top, y2: height - foot }));
    }
    readout.textContent = at === null ? "" : values(at);
    const grid = [...new Set(xs)].filter((x) => X.fits(x)).sort((a, b) => a - b);
    const nearest = (x) => grid.reduce((best, g) => (Math.abs(X(g) - x) < Math.abs(X(best) - x) ? g : best), grid[0]);
    root.addEventListener("pointermove", (event) => {
      if (!grid.length) return;
      const place = nearest(event.clientX - root.getBoundingClientRect().left);
      readout.textContent = values(place);
    });
    root.addEventListener("pointerleave", () => { readout.textContent = at === null ? "" : values(at); });
    root.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") { cursor = null; draw(); picture.firstChild.focus(); return; }
      if (!by || !grid.length) return;
      event.preventDefault();
      const from = cursor === null ? (by > 0 ? -1 : grid.length) : grid.indexOf(nearest(X(cursor)));
      cursor = grid[Math.max(0, Math.min(grid.length - 1, from + by))];
      draw();
      picture.firstChild.focus();
      say(values(cursor));
    });
    const focused = picture.firstChild === document.activeElement;
    picture.replaceChildren(root);
    if (focused) root.focus();
  }
  function values(x) {
    const found = visible().slice(0, 8).map((s) => {
      let best = -1;
      s.x.forEach((v, i) => { if (s.y[i] !== null && (best < 0 || Math.abs(v - x) < Math.abs(s.x[best] - x))) best = i; });
      return best < 0 ? null : `${s.name} ${shown(s.y[best], 4)}`;
    }).filter((text) => text !== null);
    return `${chart().x} ${shown(x, 6)}: ${found.join(", ")}`;
  }
  function summary(s) {
    const there = s.y.filter((v) => v !== null);
    return there.length ? `${s.name} from ${shown(there[0])} to ${shown(there[there.length - 1])}` : `${s.name} undefined`;
  }
  axes();
  names();
  keepDrawn(picture, draw);
  if (time.steps.length > 1) time.follow(() => draw());
};
