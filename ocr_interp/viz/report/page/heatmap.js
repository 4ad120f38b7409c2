// A matrix as a heat map on a canvas: one byte per entry, one picture per step, a cell to read by pointer or keys.
const STOPS = [[127, 59, 8], [224, 130, 20], [253, 184, 99]]; // orange, above zero, away from the middle inwards
const BELOW = [[45, 0, 75], [84, 39, 136], [153, 142, 195]]; // purple, below zero

function cellColor(level, middle) {
  const share = Math.min(1, Math.abs(level));
  const ends = level >= 0 ? STOPS : BELOW;
  const path = [middle, ends[2], ends[1], ends[0]];
  // On a dark page the strongest colours would vanish, so they stay light there.
  const stops = middle[0] > 128 ? path : [middle, ends[0].map((c) => c * 0.7 + 45), ends[1], ends[2].map((c) => c * 0.8 + 51)];
  const at = share * 3, k = Math.min(2, Math.floor(at));
  return stops[k].map((c, i) => Math.round(c + (stops[k + 1][i] - c) * (at - k)));
}

drawers.heatmap = (host, data, time) => {
  const rows = data.rows.length, columns = data.columns.length, cells = rows * columns;
  const text = atob(data.values), bytes = new Int8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k) << 24 >> 24;
  const several = data.worth.length > 1;
  let step = several ? time.at : 0, shared = true, cell = null;
  const largest = Math.max(...data.worth);
  const wrap = html("div", {});
  const canvas = html("canvas", { tabindex: 0, role: "img" });
  const edges = svg("svg", { "aria-hidden": "true" });
  const names = html("div", { class: "bar" });
  const readout = html("output", { class: "readout" });
  const ramp = html("canvas", { width: 64, height: 1, "aria-hidden": "true" });
  const low = html("span", {}), high = html("span", {});
  if (several) host.append(html("div", { class: "controls" }, check("one scale for all steps", true, (on) => { shared = on; draw(); })));
  wrap.style.position = "relative";
  edges.style.position = "absolute";
  edges.style.inset = "0";
  edges.style.pointerEvents = "none";
  wrap.append(canvas, edges);
  const groups = (list) => list.map(([name, count]) => `${name} (${count})`).join(" | ");
  names.append(`right: ${groups(data.column_groups)}; down: ${groups(data.row_groups)}`);
  host.append(wrap, names, readout, html("div", { class: "bar" }, low, ramp, high));
  const value = (r, c) => (bytes[step * cells + r * columns + c] / data.levels) * data.worth[step];
  const limit = () => (shared ? largest : data.worth[step]) || 1;

  function draw(width = wrap.clientWidth) {
    if (!width) return;
    const middle = document.documentElement.dataset.theme === "dark" ? [27, 32, 38] : [247, 247, 247];
    canvas.width = columns;
    canvas.height = rows;
    const height = Math.max(90, Math.min(420, Math.round(width * Math.min(1, Math.max(0.35, rows / columns)))));
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows);
    for (let k = 0; k < cells; k++) {
      const [r, g, b] = cellColor(value(Math.floor(k / columns), k % columns) / limit(), middle);
      image.data.set([r, g, b, 255], 4 * k);
    }
    pen.putImageData(image, 0, 0);
    const side = ramp.getContext("2d");
    for (let k = 0; k < 64; k++) {
      side.fillStyle = `rgb(${cellColor(k / 31.5 - 1, middle).join(",")})`;
      side.fillRect(k, 0, 1, 1);
    }
    low.textContent = shown(-limit());
    high.textContent = `${shown(limit())} ${data.unit}`;
    edges.setAttribute("width", width);
    edges.setAttribute("height", height);
    const X = (c) => (c / columns) * width, Y = (r) => (r / rows) * height;
    const lines = [];
    let sum = 0;
    data.column_groups.slice(0, -1).forEach(([, count]) => { sum += count; lines.push(svg("line", { class: "axis", x1: X(sum), x2: X(sum), y1: 0, y2: height })); });
    sum = 0;
    data.row_groups.slice(0, -1).forEach(([, count]) => { sum += count; lines.push(svg("line", { class: "axis", x1: 0, x2: width, y1: Y(sum), y2: Y(sum) })); });
    if (data.frame) {
      const [top, tall, from, wide] = data.frame;
      lines.push(svg("rect", { x: X(from), y: Y(top), width: X(wide), height: Y(tall), fill: "none", stroke: "var(--untold)", "stroke-width": 3 }));
    }
    if (cell) lines.push(svg("rect", { x: X(cell[1]), y: Y(cell[0]), width: Math.max(4, X(1)), height: Math.max(4, Y(1)), fill: "none", stroke: "var(--focus)", "stroke-width": 2 }));
    edges.replaceChildren(...lines);
    const when = several ? ` at step ${steps(time.steps[step])}` : "";
    canvas.setAttribute("aria-label", `heat map of ${rows} by ${columns} entries${when}, largest size ${shown(data.worth[step])} ${data.unit}. Arrow keys read entries.`);
    readout.textContent = cell ? told(cell) : "";
  }
  const told = ([r, c]) => `${data.columns[c]} → ${data.rows[r]}: ${shown(value(r, c))} ${data.unit}`;
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const r = Math.floor(((event.clientY - box.top) / box.height) * rows), c = Math.floor(((event.clientX - box.left) / box.width) * columns);
    if (r >= 0 && r < rows && c >= 0 && c < columns) readout.textContent = told([r, c]);
  });
  canvas.addEventListener("pointerleave", () => { readout.textContent = cell ? told(cell) : ""; });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") { cell = null; draw(); return; }
    if (!by) return;
    event.preventDefault();
    const from = cell || [0, 0];
    cell = cell ? [Math.max(0, Math.min(rows - 1, from[0] + by[0])), Math.max(0, Math.min(columns - 1, from[1] + by[1]))] : from;
    draw();
    say(told(cell));
  });
  keepDrawn(wrap, draw);
  if (several) time.follow((at) => { step = at; draw(); });
};
