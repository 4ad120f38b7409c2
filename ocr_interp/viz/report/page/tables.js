// A table: a button in each head sorts it, another downloads it as CSV.
drawers.table = (host, data) => {
  const count = data.columns.length ? data.cells[0].length : 0;
  let order = [...Array(count).keys()], by = null, up = true, most = 50;
  const body = html("tbody", {}), heads = [];
  const row = html("tr", {});
  data.columns.forEach((column, k) => {
    const head = html("th", { scope: "col", class: column.numeric ? "number" : null, "aria-sort": "none" },
      html("button", { type: "button", onclick: () => sort(k) }, column.name));
    heads.push(head);
    row.append(head);
  });
  const more = html("button", { type: "button", class: "action", onclick: () => { most = count; fill(); } }, `Show all ${count} rows`);
  const save = html("button", { type: "button", class: "action", onclick: download }, "Download CSV");
  host.append(html("div", { class: "controls" }, save),
    html("div", { class: "scroll rows", tabindex: 0, role: "region", "aria-label": `table of ${count} rows` }, html("table", {}, html("thead", {}, row), body)),
    html("div", { class: "controls" }, more));
  function sort(k) {
    up = by === k ? !up : true;
    by = k;
    const values = data.cells[k], sign = up ? 1 : -1;
    const missing = (v) => v === null || v === "";
    order.sort((a, b) => {
      const x = values[a], y = values[b];
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b; // what is missing comes last
      if (data.columns[k].numeric) return sign * (x - y) || a - b;
      return sign * String(x).localeCompare(String(y), "en", { numeric: true }) || a - b;
    });
    heads.forEach((head, j) => head.setAttribute("aria-sort", j === k ? (up ? "ascending" : "descending") : "none"));
    fill();
    say(`sorted by ${data.columns[k].name}, ${up ? "ascending" : "descending"}`);
  }
  function fill() {
    body.replaceChildren(...order.slice(0, most).map((r) => html("tr", {}, ...data.columns.map((column, k) =>
      html("td", { class: column.numeric ? "number" : null }, column.numeric ? shown(data.cells[k][r], 5) : data.cells[k][r])))));
    more.hidden = count <= most;
  }
  // A text that a spreadsheet would take for a formula gets a quote before it; numbers stay numbers.
  function cell(value, numeric) {
    if (value === null || value === undefined) return "";
    const text = numeric ? String(value) : /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }
  function csv() {
    const lines = [data.columns.map((column) => cell(column.name, false)).join(",")];
    order.forEach((r) => lines.push(data.columns.map((column, k) => cell(data.cells[k][r], column.numeric)).join(",")));
    return lines.join("\n") + "\n";
  }
  function download() {
    const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    const link = html("a", { href: address, download: data.file });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }
  fill();
};
