// What all parts of the page share: elements, numbers as text, colours of the theme, the slider's time.
const SVG = "http://www.w3.org/2000/svg";
const content = JSON.parse(document.getElementById("data").textContent);
const redraw = []; // functions that draw again, when the theme or the width changes
const live = document.getElementById("live");

// An element with attributes and children. Texts become text nodes, so that no label is ever markup.
function make(space, name, attributes, ...children) {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
const html = (name, attributes, ...children) => make(null, name, attributes, ...children);
const svg = (name, attributes, ...children) => make(SVG, name, attributes, ...children);

// A number in a few letters; a minus is a minus.
function shown(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size >= 1e5 || size < 1e-3) text = value.toExponential(digits - 1);
  else if (size >= 1000) text = Math.round(value).toLocaleString("en");
  else text = String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}
const signed = (value) => (value > 0 ? "+" : "") + shown(value);
const steps = (value) => value.toLocaleString("en");
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = (k) => `var(--c${k % 8})`;
const dashes = (k) => [null, "6 3", "2 2", "8 3 2 3"][Math.floor(k / 8) % 4];
function say(text) { live.textContent = text; }

// The time of a section: which of its snapshots is shown, and who wants to know.
function timeline(all) {
  const listeners = [];
  return {
    steps: all, at: all.length - 1,
    move(index) {
      this.at = Math.max(0, Math.min(all.length - 1, index));
      listeners.forEach((listener) => listener(this.at));
    },
    follow(listener) { listeners.push(listener); listener(this.at); },
  };
}
const times = content.steps.map(timeline);

// Draws now, and again when the width of the element or the theme changes.
function keepDrawn(element, draw) {
  let width = 0;
  const again = () => { width = element.clientWidth; if (width > 0) draw(width); };
  new ResizeObserver(() => { if (Math.abs(element.clientWidth - width) > 1) again(); }).observe(element);
  redraw.push(again);
  again();
}
const drawers = {}; // kind of panel -> function of its element, its data and the time of its section
