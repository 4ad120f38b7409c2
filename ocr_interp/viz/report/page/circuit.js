// A circuit graph: columns of nodes, edges as wide as their contribution; threshold, before/after/change, switches.
drawers.circuit = (host, data, time) => {
  const toggles = data.toggles || [];
  let mask = 0, chosen = data.variants.length - 1, view = 1, threshold = 0.01, focus = null;
  const controls = html("div", { class: "controls" });
  const readout = html("output", { class: "readout", "aria-live": "polite" });
  const summary = html("p", { class: "quiet readout" });
  const scroll = html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "circuit diagram" });
  if (toggles.length) {
    const field = html("fieldset", {}, html("legend", {}, "switched off"));
    toggles.forEach((name, k) => field.append(check(name, false, (on) => {
      mask = on ? mask | (1 << k) : mask & ~(1 << k);
      chosen = mask;
      draw();
      say(summary.textContent);
    })));
    chosen = 0;
    controls.append(field);
  } else if (!data.by_step && data.variants.length > 1) {
    const choose = choice("after", data.variant_names, (k) => { chosen = k; draw(); });
    choose.querySelector("select").selectedIndex = chosen;
    controls.append(choose);
  }
  if (data.variants.length > 1) controls.append(radios("show", ["before", "after", "change"], 1, (k) => { view = k; draw(); }));
  controls.append(range("leave out below", 30, 0.5, 1, (v) => `${v} % of the effect`, (v) => { threshold = v / 100; draw(); }));
  const sideways = html("p", { class: "sideways" }, "The diagram is wider than the page: scroll it sideways, or with the arrow keys.");
  host.append(controls, sideways, scroll, readout, summary);

  function current() {
    const before = data.variants[0], after = data.variants[chosen];
    if (view === 0) return before;
    if (view === 1) return after;
    const minus = (a, b) => a.map((v, k) => v - b[k]);
    return { edges: minus(after.edges, before.edges), through: minus(after.through, before.through), labels: after.labels,
      effect: Math.max(after.effect, before.effect) };
  }
  const width = (value) => Math.max(0.8, (9 * Math.abs(value)) / (data.largest || 1));

  // Where every edge leaves and enters: at each box in the order of the other ends.
  function ports(values, kept) {
    const place = { source: [], target: [] };
    for (const end of ["source", "target"]) {
      const other = end === "source" ? "target" : "source";
      data.nodes.forEach((node, n) => {
        const mine = kept.filter((e) => data.edges[e][end] === n);
        mine.sort((a, b) => data.nodes[data.edges[a][other]].y - data.nodes[data.edges[b][other]].y || a - b);
        const whole = mine.reduce((sum, e) => sum + width(values[e]) + 1.5, -1.5);
        const fit = Math.min(1, (node.h - 6) / Math.max(whole, 1e-9));
        let y = node.y - (fit * whole) / 2;
        for (const e of mine) { place[end][e] = y + (fit * width(values[e])) / 2; y += fit * (width(values[e]) + 1.5); }
      });
    }
    return place;
  }
  // In the row of MLPs an edge rises over the boxes between its ends.
  function arc(from, to) {
    if (!from.short || Math.abs(from.y - to.y) > 2) return null;
    const x1 = from.x + from.w / 4, x2 = to.x - to.w / 4, y = from.y - from.h / 2, lift = 10 + 0.3 * (x2 - x1);
    return `M${x1} ${y}C${x1} ${y - lift} ${x2} ${y - lift} ${x2} ${y}`;
  }
  function draw() {
    const now = current(), least = threshold * now.effect;
    // What was never trained always stays, to show whether it carries anything; so does what a kept attention reads.
    const large = (k) => data.edges[k].untold || (now.edges[k] !== 0 && Math.abs(now.edges[k]) >= least);
    const writes = new Set(data.edges.map((e, k) => k).filter(large).map((k) => data.edges[k].source));
    const kept = data.edges.map((e, k) => k).filter((k) => (data.nodes[data.edges[k].target].kind === "attention" ? writes.has(data.edges[k].target) : large(k)));
    const at = ports(now.edges, kept);
    const scaleUp = Math.min(1.7, Math.max(1.15, scroll.clientWidth / data.width));
    const root = svg("svg", { width: data.width * scaleUp, height: data.height * scaleUp, viewBox: `0 0 ${data.width} ${data.height}`, role: "group", "aria-label": "nodes of the circuit" });
    for (const head of data.headings) root.append(svg("text", { class: "heading", x: head.x, y: 14 }, head.text));
    const lines = {};
    [...kept].sort((a, b) => data.edges[a].untold - data.edges[b].untold || width(now.edges[b]) - width(now.edges[a])).forEach((k) => {
      const e = data.edges[k], from = data.nodes[e.source], to = data.nodes[e.target];
      const x1 = from.x + from.w / 2, x2 = to.x - to.w / 2, middle = (x1 + x2) / 2;
      const stroke = e.untold ? "var(--untold)" : now.edges[k] >= 0 ? "var(--for)" : "var(--against)";
      const missing = e.untold && Math.abs(now.edges[k]) < 0.1 * data.largest;
      lines[k] = svg("path", { class: "edge", stroke, "stroke-dasharray": missing ? "4 3" : null, "stroke-width": width(now.edges[k]), "stroke-opacity": 0.75,
        d: arc(from, to) || `M${x1} ${at.source[k]}C${middle} ${at.source[k]} ${middle} ${at.target[k]} ${x2} ${at.target[k]}`,
        onpointerenter: () => { readout.textContent = edgeText(k, now); light(null, k); }, onpointerleave: () => light(focus) });
      root.append(lines[k]);
    });
    const boxes = data.nodes.map((node, n) => {
      const mine = kept.filter((k) => data.edges[k].source === n || data.edges[k].target === n);
      const untold = mine.some((k) => data.edges[k].untold && (node.kind === "ov_block" || data.edges[k].target === n));
      const texts = node.short ? [node.short] : [...now.labels[n].split("\n"), signed(now.through[n])];
      const box = svg("g", { class: `node${untold ? " untold" : ""}`, tabindex: 0, role: "img", "aria-label": nodeText(n, now, mine),
        onfocus: () => { focus = n; readout.textContent = nodeText(n, now, mine); light(n); }, onblur: () => { focus = null; light(null); },
        onpointerenter: () => { readout.textContent = nodeText(n, now, mine); light(n); }, onpointerleave: () => light(focus) },
        svg("rect", { x: node.x - node.w / 2, y: node.y - node.h / 2, width: node.w, height: node.h, rx: 4, fill: `var(--box-${node.kind}, var(--box-source))` }),
        ...texts.map((text, k) => svg("text", { x: node.x, y: node.y + 3 + (k - (texts.length - 1) / 2) * 10 }, text)));
      if (!mine.length) box.classList.add("dim");
      root.append(box);
      return box;
    });
    function light(n, edge = null) {
      const near = new Set(n === null ? [] : [n]);
      for (const k of kept) {
        const on = edge === null ? n === null || data.edges[k].source === n || data.edges[k].target === n : k === edge;
        lines[k].classList.toggle("dim", !on);
        if (on) { near.add(data.edges[k].source); near.add(data.edges[k].target); }
      }
      boxes.forEach((box, k) => box.classList.toggle("dim", (n !== null || edge !== null) ? !near.has(k) : !kept.some((e) => data.edges[e].source === k || data.edges[e].target === k)));
    }
    const again = focus;
    scroll.replaceChildren(root);
    sideways.classList.toggle("needed", scroll.scrollWidth > scroll.clientWidth + 2);
    if (again !== null) boxes[again].focus();
    const answers = data.nodes.map((node, n) => n).filter((n) => data.nodes[n].kind === "answer");
    const which = toggles.length ? toggles.filter((name, k) => mask >> k & 1).join(", ") || "nothing switched off" : data.variant_names[chosen];
    const title = [data.variants.length > 1 ? "before" : "", which, `change to ${which}`][view] || which;
    summary.textContent = `${title}: ${answers.map((n) => `${data.nodes[n].name} ${signed(now.through[n])}`).join(", ")} logits. ` +
      `${kept.length} of ${data.edges.length} edges are drawn.`;
  }
  const edgeText = (k, now) => `${data.nodes[data.edges[k].source].name} → ${data.nodes[data.edges[k].target].name}: ${signed(now.edges[k])} logits` +
    (data.edges[k].untold ? ", never trained" : "");
  function nodeText(n, now, mine) {
    const node = data.nodes[n], members = node.members.length > 1 ? ` (${node.members.slice(0, 12).join(", ")}${node.members.length > 12 ? ", …" : ""})` : "";
    const parts = mine.map((k) => (data.edges[k].target === n ? `from ${data.nodes[data.edges[k].source].name}` : `to ${data.nodes[data.edges[k].target].name}`) + ` ${signed(now.edges[k])}`);
    return `${now.labels[n].replaceAll("\n", " ")}${members}: ${signed(now.through[n])} logits; ${parts.slice(0, 10).join(", ") || "no edge above the threshold"}`;
  }
  keepDrawn(scroll, draw);
  if (data.by_step && data.variants.length > 1) time.follow((at) => { chosen = at; draw(); });
};
