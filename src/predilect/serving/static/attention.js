/** Attention maps over the photograph. */

import { byId, make, measure } from "./dom.js";
import { number, place } from "./words.js";

const TOP_SHARE = 0.2; // the line encloses this share of what was seen, where the map is highest
const COVER = 0.8; // of the colours over the photograph, at the slider's right end
const FINEST = 512; // the canvas has at least as many pixels on its shorter side
const PREVIEW = 0.6; // while a lesion is pointed at, at least
/** Viridis (Smith and van der Walt, CC0): perceptually uniform, and told apart by the colour-blind. */
export const SCALE = [
  "#440154", "#481a6c", "#472f7d", "#414487", "#39568c", "#31688e", "#2a788e", "#23888e", "#1f988b", "#22a884", "#35b779", "#54c568",
  "#7ad151", "#a5db36", "#d2e21b", "#fde725",
].map((hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)));

const METHODS = { cam: "Class activation map, in logits", "grad-cam": "Grad-CAM, an approximation, in units of its own" };

export class Overlay {
  #canvas = byId("map");
  #picture = byId("picture");
  #strength = byId("strength");
  #maps = new Map(); // task/name -> map
  #seen = null;
  #shown = null; // the map that is drawn
  #pointed = false;
  #size = [1, 1];
  #method = "cam";

  /** @param {() => void} onMove Called when someone moves the slider. */
  constructor(onMove) {
    drawScale(byId("scale"));
    this.#strength.addEventListener("input", () => {
      this.#cover();
      onMove();
    });
  }

  /** Whether a map stays over the photograph when nothing is pointed at. */
  get visible() {
    return Number(this.#strength.value) > 0;
  }

  /** Forget the photograph before. */
  clear() {
    this.#maps.clear();
    this.#shown = null;
    this.#pointed = false;
    this.#strength.value = "0";
    this.#cover();
  }

  /** Keep the maps of an answer of the server. */
  keep({ method, width, height, seen, maps }) {
    const finer = Math.max(1, FINEST / Math.min(width, height));
    this.#size = [width, height].map((length) => Math.round(finer * length));
    this.#seen = seen;
    this.#method = method;
    for (const map of maps) this.#maps.set(`${map.task}/${map.name}`, map);
  }

  has(task, name) {
    return this.#maps.has(`${task}/${name}`);
  }

  /** Lay a map over the photograph, if it is there; `pointed`: only for as long as something is pointed at. */
  show(task, name, pointed = false) {
    const map = this.#maps.get(`${task}/${name}`);
    if (!map) return;
    this.#pointed = pointed;
    if (map !== this.#shown) {
      this.#shown = map;
      this.#paint(map);
    }
    this.#cover();
  }

  /** Move the slider to where the map can be seen, or away. */
  set(visible) {
    this.#strength.value = String(visible ? Math.max(Number(this.#strength.value), 100 * PREVIEW) : 0);
    this.#cover();
  }

  #cover() {
    const set = Number(this.#strength.value) / 100;
    const strength = this.#shown ? Math.max(set, this.#pointed ? PREVIEW : 0) : 0;
    this.#canvas.hidden = strength === 0;
    this.#canvas.style.opacity = String(Math.min(1, 1.25 * strength));
    // The photograph turns grey beneath, so that every colour is the map's.
    this.#picture.style.filter = strength ? `grayscale(${Math.min(1, 2 * strength)})` : "";
    this.#strength.setAttribute("aria-valuetext", `${Math.round(100 * set)} %${this.#shown ? `, ${this.#shown.name}` : ""}`);
  }

  #paint(map) {
    const [width, height] = this.#size;
    this.#canvas.width = width;
    this.#canvas.height = height;
    const region = inPixels(this.#seen, width, height);
    const values = interpolated(map, region, width, height);
    const [low, high] = extremes(values);
    const image = colored(values, region, low, high);
    const context = this.#canvas.getContext("2d");
    context.fillStyle = "rgb(0 0 0 / .45)"; // what the network did not see
    context.fillRect(0, 0, width, height);
    context.putImageData(image, region.left, region.top);
    if (high > low) outlined(context, values, region, Math.max(1, Math.min(width, height) / 220));
    const [x, y] = highest(values, region);
    this.#canvas.setAttribute("aria-label", `Map of ${map.name} over the photograph, highest in its ${place(x / width, y / height)}`);
    labelScale(map.name, low, high);
    byId("map-words").textContent = `${METHODS[this.#method]}: numbers above 0 speak for ${map.name}, those below against it. The scale is this map’s own. The white line encloses the highest fifth of what the network saw; what it did not see is darkened.`;
  }
}

/** The choice between the heads. @param {[string, string][]} tasks Of each the task and the class that is shown. */
export function taskChoice(tasks, chosen, onChoose) {
  return tasks.map(([task, name]) => {
    const input = make("input", { type: "radio", name: "task", value: task, checked: task === chosen, autocomplete: "off" });
    input.addEventListener("change", () => onChoose(task));
    return make("label", { class: "task" }, input, make("span", {}, `${task === "lesion" ? "Lesion" : "Site"}: `, make("b", {}, name)));
  });
}

function drawScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = `rgb(${color(x / (canvas.width - 1)).join(" ")})`;
    context.fillRect(x, 0, 1, 1);
  }
}

function labelScale(name, low, high) {
  byId("scale-name").textContent = name;
  const zero = -low / (high - low || 1);
  byId("scale-low").textContent = number(low);
  byId("scale-high").textContent = number(high);
  byId("scale-zero").textContent = zero > 0.12 && zero < 0.88 ? "0" : ""; // else it would touch another number
  measure(byId("scale-zero"), { "--at": zero });
}

/** The scale's colour at t from 0 to 1, as red, green and blue up to 255. */
export function color(t) {
  const place = Math.min(1, Math.max(0, t)) * (SCALE.length - 1);
  const k = Math.min(SCALE.length - 2, Math.floor(place));
  return SCALE[k].map((from, c) => Math.round(from + (place - k) * (SCALE[k + 1][c] - from)));
}

function inPixels({ left, top, right, bottom }, width, height) {
  const [x, y] = [Math.round(left * width), Math.round(top * height)];
  return { left: x, top: y, width: Math.max(1, Math.round(right * width) - x), height: Math.max(1, Math.round(bottom * height) - y) };
}

/** For each of n pixels from `first` on, the cell before it and how far it is on the way to the next; constant beyond the outer ones. */
function steps(centres, first, n, length) {
  return Array.from({ length: n }, (_, k) => {
    const at = (first + k + 0.5) / length;
    const next = centres.findIndex((centre) => centre > at);
    if (next === -1) return [centres.length - 1, centres.length - 1, 0];
    if (next === 0) return [0, 0, 0];
    return [next - 1, next, (at - centres[next - 1]) / (centres[next] - centres[next - 1])];
  });
}

/** The map at each pixel of a region of the photograph, bilinear between the centres of its cells. */
export function interpolated({ rows, columns, cells }, region, width, height) {
  const across = steps(columns, region.left, region.width, width);
  const down = steps(rows, region.top, region.height, height);
  const values = new Float32Array(region.width * region.height);
  let at = 0;
  for (const [above, below, t] of down) {
    const mixed = cells[above].map((value, k) => value + t * (cells[below][k] - value));
    for (const [left, right, u] of across) values[at++] = mixed[left] + u * (mixed[right] - mixed[left]);
  }
  return values;
}

function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function colored(values, region, low, high) {
  const colors = Array.from({ length: 256 }, (_, k) => color(k / 255));
  const image = new ImageData(region.width, region.height);
  for (let k = 0; k < values.length; k++) {
    image.data.set(colors[Math.round((255 * (values[k] - low)) / (high - low || 1))], 4 * k);
    image.data[4 * k + 3] = 255 * COVER;
  }
  return image;
}

/** A white line around where the map is highest, along the edges of its pixels. */
function outlined(context, values, { left, top, width, height }, thickness) {
  const stride = Math.ceil(values.length / 20000);
  const some = values.filter((_, k) => k % stride === 0).sort();
  const least = some[Math.floor((1 - TOP_SHARE) * some.length)];
  const isTop = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] >= least;
  context.beginPath();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!isTop(x, y)) continue;
      if (x + 1 < width && !isTop(x + 1, y)) line(context, left + x + 1, top + y, 0, 1);
      if (x > 0 && !isTop(x - 1, y)) line(context, left + x, top + y, 0, 1);
      if (y + 1 < height && !isTop(x, y + 1)) line(context, left + x, top + y + 1, 1, 0);
      if (y > 0 && !isTop(x, y - 1)) line(context, left + x, top + y, 1, 0);
    }
  }
  context.strokeStyle = "#fff";
  context.lineWidth = thickness;
  context.lineCap = "round";
  context.stroke();
}

function line(context, x, y, across, down) {
  context.moveTo(x, y);
  context.lineTo(x + across, y + down);
}

function highest(values, { left, top, width }) {
  let best = 0;
  for (let k = 1; k < values.length; k++) if (values[k] > values[best]) best = k;
  return [left + (best % width), top + Math.floor(best / width)];
}
