// An ablation study: one group of bars per ablation, one bar per split, a ring for the random control.
drawers.bars = (host, data) => {
  let which = 0;
  const hidden = new Set();
  const controls = html("div", { class: "controls" },
    choice("show", data.metrics.map((m) => m.name), (k) => { which = k; draw(); }));
  const field = html("fieldset", { class: "controls" }, html("legend", {}, "ablations"));
  data.specs.forEach((name, k) => field.append(check(name, true, (on) => {
    if (on) hidden.delete(k); else hidden.add(k);
    draw();
  })));
  const picture = html("div", {}), readout = html("output", { class: "readout" });
  const legend = html("div", { class: "controls legend" }, ...data.splits.map((name, k) => html("span", { class: "controls" },
    svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, svg("rect", { width: 12, height: 12, fill: palette(k) })), name)));
  host.append(controls, field, legend, picture, readout);
  function draw(width = picture.clientWidth) {
    if (!width) return;
    const metric = data.metrics[which];
    const rows = data.specs.map((name, k) => k).filter((k) => !hidden.has(k));
    const bar = 12, gap = 34, group = data.splits.length * bar + gap, height = Math.max(1, rows.length) * group + 30;
    const all = rows.flatMap((k) => [...metric.values[k], ...(metric.control ? metric.control[k] : [])]);
    const X = scale([0, ...all], false, 10, width - 66);
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group",
      "aria-label": `${metric.name} by ablation and split` });
    X.ticks.forEach((x) => root.append(svg("line", { class: "grid", x1: X(x), x2: X(x), y1: 0, y2: height - 20 }),
      svg("text", { class: "quiet", x: X(x), y: height - 5, "text-anchor": "middle" }, shown(x))));
    rows.forEach((k, place) => {
      const top = place * group + 18;
      root.append(svg("text", { x: 10, y: top - 4 }, data.specs[k]));
      data.splits.forEach((split, j) => {
        const value = metric.values[k][j], control = metric.control ? metric.control[k][j] : null;
        const y = top + j * bar;
        const told = `${data.specs[k]}, ${split}: ${metric.name} ${shown(value)}` +
          (control === null ? "" : `, random ablation ${shown(control)}`);
        const one = svg("g", { tabindex: 0, role: "img", "aria-label": told,
          onfocus: () => { readout.textContent = told; }, onpointerenter: () => { readout.textContent = told; } });
        if (value !== null) {
          const [from, to] = [X(0), X(value)].sort((a, b) => a - b);
          one.append(svg("rect", { x: from, y: y + 1, width: Math.max(1, to - from), height: bar - 2, fill: palette(j) }));
        }
        if (control !== null) one.append(svg("circle", { cx: X(control), cy: y + bar / 2, r: 4, fill: "none", stroke: "var(--ink)", "stroke-width": 1.5 }));
        one.append(svg("text", { x: Math.max(X(0), X(value ?? 0), X(control ?? 0)) + 8, y: y + 10, class: "quiet" }, shown(value)));
        root.append(one);
      });
    });
    picture.replaceChildren(root);
    readout.textContent = metric.text;
  }
  keepDrawn(picture, draw);
};
