/** Lists of bars: lesions, and sites. */

import { make, mayMove, measure } from "./dom.js";
import { percent, share } from "./words.js";

const AT_FIRST = { lesion: 8, site: 4 };
const MOVING = { duration: 280, easing: "cubic-bezier(.2, 0, 0, 1)" };

/**
 * @typedef {Object} Row
 * @property {string} name
 * @property {number} probability
 * @property {number|null} before What it was without the given site; null: nothing was given.
 * @property {boolean|null} decision null: nothing is decided.
 * @property {number|null} threshold
 * @property {string[]} asides What else is said of it.
 * @property {boolean} pressed
 */

export class Bars {
  /**
   * @param {HTMLOListElement} list
   * @param {HTMLButtonElement} more Shows those that are left out at first.
   * @param {"lesion"|"site"} kind
   * @param {{onPress: ((name: string) => void)|null, onPoint: ((name: string|null) => void)|null}} told null: rows are no buttons.
   */
  constructor(list, more, kind, { onPress, onPoint }) {
    this.#list = list;
    this.#more = more;
    this.#kind = kind;
    this.#onPress = onPress;
    this.#onPoint = onPoint;
    more.onclick = () => {
      this.#all = !this.#all;
      this.#fold();
    };
  }

  #list;
  #more;
  #kind;
  #onPress;
  #onPoint;
  #all = false;
  #rows = [];
  #items = new Map(); // name -> its list item

  /** @param {Row[]} rows The most probable first. */
  update(rows) {
    const from = new Map([...this.#items].map(([name, item]) => [name, item.offsetTop]));
    const focused = document.activeElement;
    this.#rows = rows;
    for (const row of rows) {
      if (!this.#items.has(row.name)) this.#items.set(row.name, this.#item(row.name));
      this.#fill(this.#items.get(row.name).firstChild, row);
    }
    this.#list.replaceChildren(...rows.map((row) => this.#items.get(row.name)));
    this.#fold();
    if (this.#list.contains(focused)) focused.focus({ preventScroll: true });
    this.#slide(from);
  }

  /** Mark a row that is pointed at elsewhere on the page. */
  point(name) {
    for (const [other, item] of this.#items) item.firstChild.classList.toggle("is-pointed", other === name);
  }

  #item(name) {
    const parts = ["mark", "name", "value", "track"].map((part) => make("span", { class: part }));
    parts[3].append(...["fill", "threshold", "change", "was"].map((part) => make("span", { class: part })));
    const row = this.#onPress ? make("button", { type: "button", class: "row" }, ...parts) : make("div", { role: "img", class: "row" }, ...parts);
    row.dataset.name = name;
    if (this.#onPress) row.addEventListener("click", () => this.#onPress(name));
    if (this.#onPoint) {
      for (const kind of ["pointerenter", "focus"]) row.addEventListener(kind, () => this.#onPoint(name));
      for (const kind of ["pointerleave", "blur"]) row.addEventListener(kind, () => this.#onPoint(null));
    }
    return make("li", {}, row);
  }

  #fill(element, row) {
    const [, name, value, track] = element.children;
    element.dataset.decision = String(row.decision);
    name.replaceChildren(row.name, ...row.asides.map((aside) => make("small", {}, aside)));
    const changed = row.before !== null;
    value.replaceChildren(...(changed ? [make("span", { class: "before" }, `${share(row.before)}`, make("span", {}, "→"))] : []), make("span", { class: "now" }, percent(row.probability)));
    const [, threshold, change, was] = track.children;
    threshold.hidden = row.threshold === null;
    change.hidden = was.hidden = !changed;
    change.classList.toggle("is-gain", changed && row.probability > row.before);
    measure(track, { "--p": row.probability, "--threshold": row.threshold ?? 0, "--was": row.before ?? 0 });
    if (this.#onPress) element.setAttribute("aria-pressed", String(row.pressed));
    element.setAttribute("aria-label", said(row));
  }

  #fold() {
    const shown = this.#rows.filter((row, k) => this.#all || k < AT_FIRST[this.#kind] || row.decision || row.pressed);
    const names = new Set(shown.map((row) => row.name));
    for (const [name, item] of this.#items) item.hidden = !names.has(name);
    this.#more.hidden = !this.#all && shown.length === this.#rows.length;
    this.#more.textContent = this.#all ? "Show fewer" : `Show all ${this.#rows.length} ${this.#kind}s`;
    this.#more.setAttribute("aria-expanded", String(this.#all));
  }

  #slide(from) {
    if (!mayMove()) return;
    for (const [name, item] of this.#items) {
      const by = (from.get(name) ?? item.offsetTop) - item.offsetTop;
      if (by && !item.hidden) item.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], MOVING);
    }
  }
}

/** A row in words, for those who do not see it. */
function said(row) {
  const parts = [`${row.name}: ${percent(row.probability)}`];
  if (row.before !== null) parts.push(`${percent(row.before)} without the site`);
  if (row.decision !== null) parts.push(row.decision ? `reaches its threshold of ${percent(row.threshold)}` : `below its threshold of ${percent(row.threshold)}`);
  return [...parts, ...row.asides].join(", ");
}
