// Buttons, choices and sliders with labels; the slider over training steps; theme and print.
function choice(label, names, changed) {
  const select = html("select", { onchange: () => changed(select.selectedIndex) },
    ...names.map((name) => html("option", {}, name)));
  return html("label", {}, label, select);
}

function check(label, on, changed) {
  const box = html("input", { type: "checkbox", onchange: () => changed(box.checked) });
  box.checked = on;
  return html("label", {}, box, label);
}

let groups = 0;
function radios(label, names, chosen, changed) {
  const group = `choice-${groups++}`;
  const field = html("fieldset", {}, html("legend", {}, label));
  names.forEach((name, k) => {
    const input = html("input", { type: "radio", name: group, onchange: () => changed(k) });
    input.checked = k === chosen;
    field.append(html("label", {}, input, name));
  });
  return field;
}

function range(label, most, step, value, text, changed) {
  const told = html("output", {}, text(value));
  const input = html("input", { type: "range", min: 0, max: most, step, value, "aria-label": label,
    "aria-valuetext": text(value),
    oninput: () => {
      told.textContent = text(Number(input.value));
      input.setAttribute("aria-valuetext", told.textContent);
      changed(Number(input.value));
    } });
  return html("label", {}, label, input, told);
}

function stepSlider(host, time) {
  const told = html("output", { "aria-hidden": "true" });
  const input = html("input", { type: "range", min: 0, max: time.steps.length - 1, step: 1,
    "aria-label": "training step", oninput: () => { stop(); time.move(Number(input.value)); } });
  let playing = null;
  const stop = () => { clearInterval(playing); playing = null; play.textContent = "Play"; };
  const play = html("button", { type: "button", class: "action", onclick: () => {
    if (playing !== null) { stop(); return; }
    if (time.at === time.steps.length - 1) time.move(0);
    play.textContent = "Pause";
    playing = setInterval(() => {
      time.move(time.at + 1);
      if (time.at === time.steps.length - 1) stop();
    }, matchMedia("(prefers-reduced-motion: reduce)").matches ? 1200 : 300);
  } }, "Play");
  host.append(play, html("button", { type: "button", class: "action", onclick: () => { stop(); time.move(0); } }, "Start"),
    html("button", { type: "button", class: "action", onclick: () => { stop(); time.move(time.steps.length - 1); } }, "End"),
    input, told);
  time.follow((at) => {
    input.value = at;
    told.textContent = `step ${steps(time.steps[at])}`;
    input.setAttribute("aria-valuetext", told.textContent);
  });
}

function theme() {
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const use = (name) => {
    document.documentElement.dataset.theme = name;
    button.textContent = name === "dark" ? "Light" : "Dark";
    redraw.forEach((draw) => draw());
  };
  let asked = false;
  button.addEventListener("click", () => {
    asked = true;
    use(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  });
  dark.addEventListener("change", () => { if (!asked) use(dark.matches ? "dark" : "light"); });
  use(dark.matches ? "dark" : "light");
  let before = null;
  addEventListener("beforeprint", () => { before = document.documentElement.dataset.theme; use("light"); });
  addEventListener("afterprint", () => { if (before) use(before); });
  document.getElementById("print").addEventListener("click", () => print());
}
