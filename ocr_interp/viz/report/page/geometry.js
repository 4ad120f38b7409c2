// A chosen pair's embeddings in three dimensions, measured beside predicted; both turn together.
drawers.geometry = (host, data, time) => {
  let yaw = -0.9, pitch = 0.42, beside = 0, pair = 0;
  const controls = html("div", { class: "controls" });
  if (data.pairs.length > 1) controls.append(choice("pair", data.pairs, (k) => { pair = k; draw(); say(views[0].told.textContent); }));
  if (data.predicted.length > 1) controls.append(choice("beside", data.predicted.map((p) => p.name), (k) => { beside = k; draw(); }));
  controls.append(html("button", { type: "button", class: "action", onclick: () => { yaw = -0.9; pitch = 0.42; draw(); } }, "Turn back"));
  const views = [view("measured")];
  if (data.predicted.length) views.push(view("predicted"));
  host.append(controls, html("div", { class: "pair" }, ...views.map((v) => v.element)));

  function view(name) {
    const title = html("h4", {}, name), picture = html("div", { class: "turns", tabindex: 0, role: "group" });
    const told = html("output", { class: "readout" });
    let from = null;
    picture.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; picture.setPointerCapture(event.pointerId); });
    picture.addEventListener("pointermove", (event) => {
      if (!from) return;
      turn((event.clientX - from[0]) * 0.01, (event.clientY - from[1]) * 0.01);
      from = [event.clientX, event.clientY];
    });
    picture.addEventListener("pointerup", () => { from = null; });
    picture.addEventListener("pointercancel", () => { from = null; });
    picture.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[event.key];
      if (!by) return;
      event.preventDefault();
      turn(...by);
    });
    return { title, picture, told, element: html("div", {}, title, picture, told) };
  }
  function turn(by, up) {
    yaw += by;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + up));
    draw();
  }
  function project([x, y, z]) {
    const across = Math.cos(yaw) * x + Math.sin(yaw) * y, away = -Math.sin(yaw) * x + Math.cos(yaw) * y;
    return [across, Math.cos(pitch) * z + Math.sin(pitch) * away, Math.cos(pitch) * away - Math.sin(pitch) * z];
  }
  const plus = (a, b) => a.map((v, k) => v + b[k]);
  function draw() {
    const now = data.measured.length > 1 ? data.measured[time.at] : data.measured[0], measured = now && now[pair];
    const when = time.steps.length ? `measured, step ${steps(time.steps[data.measured.length > 1 ? time.at : time.steps.length - 1])}` : "measured";
    one(views[0], when, measured);
    if (views[1]) one(views[1], data.predicted[beside].name, data.predicted[beside].pairs[pair]);
  }
  function one(view, name, geometry) {
    const width = view.picture.clientWidth, height = 290;
    view.title.textContent = name;
    if (!width) return;
    if (!geometry) {
      view.picture.replaceChildren(html("p", { class: "quiet" }, "no direction yet: the weights are zero"));
      view.told.textContent = "";
      return;
    }
    const p = geometry.points, sums = { "s'+r₁": plus(p.held_out, p.r1), "s'+r₂": plus(p.held_out, p.r2) };
    const reach = Math.max(...[...Object.values(p), ...Object.values(sums)].map((v) => Math.hypot(...v))) || 1;
    const size = (Math.min(width, height) / 2 - 14) / reach;
    const at = (v) => { const [x, y] = project(v); return [width / 2 + x * size, height / 2 - y * size]; };
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const floor = [[1, 1], [1, -1], [-1, -1], [-1, 1]].map(([x, y]) => at([x * reach * 0.7, y * reach * 0.7, 0]));
    root.append(svg("polygon", { points: floor.map((c) => c.join(",")).join(" "), fill: "var(--line)", "fill-opacity": 0.35 }));
    const arrows = [["r₁", p.r1, "var(--quiet)"], ["r₂", p.r2, "var(--quiet)"], ["s", p.train, "var(--ink)"], ["s'", p.held_out, "var(--ink)"],
      ["b", p.b, "var(--for)"], ["c", p.c, "var(--for)"], ...Object.entries(sums).map(([n, v]) => [n, v, "var(--untold)", "5 4"])];
    arrows.sort((a, b) => project(b[1])[2] - project(a[1])[2]);
    for (const [label, tip, stroke, dash] of arrows) {
      const [x, y] = at(tip), dx = x - width / 2, dy = y - height / 2, far = Math.hypot(dx, dy);
      root.append(svg("line", { x1: width / 2, y1: height / 2, x2: x, y2: y, stroke, "stroke-width": 2.2, "stroke-dasharray": dash }));
      if (far > 8) {
        const [ux, uy] = [dx / far, dy / far];
        root.append(svg("polygon", { fill: stroke, points: `${x},${y} ${x - 8 * ux + 4 * uy},${y - 8 * uy - 4 * ux} ${x - 8 * ux - 4 * uy},${y - 8 * uy + 4 * ux}` }));
      }
      root.append(svg("text", { x: x + (dx >= 0 ? 6 : -6), y: y + (dy > 0 ? 13 : -5), "text-anchor": dx >= 0 ? "start" : "end" }, label));
    }
    for (const others of [p.b_others, p.c_others]) {
      const [cx, cy] = at(others);
      root.append(svg("circle", { cx, cy, r: 4, fill: "var(--for)", "fill-opacity": 0.5 }));
    }
    view.picture.replaceChildren(root);
    view.told.textContent = `cosine of s'+r₁ with b ${shown(geometry.cosines.fact)}, of s'+r₂ with c ${shown(geometry.cosines.implication)}; ` +
      `at least ${shown(100 * geometry.shown)} % of every squared length is in the picture`;
    view.picture.setAttribute("aria-label", `${name}, pair ${data.pairs[pair]}: ${view.told.textContent}. Arrow keys turn it.`);
  }
  keepDrawn(host, draw);
  if (data.measured.length > 1) time.follow(draw);
};
