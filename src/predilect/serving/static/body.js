/** The figure of a body: one control for each site, over front and back, shaded by its probability. */

import { draw, make, measure } from "./dom.js";
import { DOWNWARDS, SMALL, placed } from "./parts.js";
import { percent, share } from "./words.js";

/** Parts that lie over others are drawn later. */
const ABOVE = new Map([["axilla", 1], ["scalp", 3], ["face", 2], ["ear", 2], ["nose", 3], ["lip", 3], ["eye", 3]]);
const HEAD_CENTRE = [112, 41];
const LARGE_CENTRE = [224, 60];
const LARGER = 1.75;
const EVERYWHERE = { x: -20, y: -20, width: 488, height: 540, maskUnits: "userSpaceOnUse" };

/** The drawing, from its text. */
export function drawingOf(text) {
  return document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true);
}

export class BodyMap {
  /**
   * @param {SVGElement} drawing What `drawingOf` gives.
   * @param {string[]} sites
   * @param {{onChoose: ((site: string) => void)|null, onPoint: (site: string|null) => void}} told `onChoose` null: sites cannot be given.
   */
  constructor(drawing, sites, { onChoose, onPoint }) {
    const { siteOf, elsewhere } = placed(sites);
    this.#siteOf = siteOf;
    this.#onChoose = onChoose;
    this.#onPoint = onPoint;
    this.elsewhere = elsewhere;
    this.figure = this.#build(drawing);
  }

  #siteOf;
  #onChoose;
  #onPoint;
  #regions = new Map(); // site -> its group
  #rings = draw("g", { class: "rings", "aria-hidden": "true" });
  #given = null;
  #pointed = null;

  /** Say and shade how probable each site is, and which one is given. */
  update(probabilities, given) {
    this.#given = given;
    for (const [site, region] of this.#regions) {
      const p = probabilities.get(site);
      measure(region, { "--p": p ?? 0 });
      region.setAttribute("aria-label", p === undefined ? site : `${site}: ${percent(p)}`);
      if (this.#onChoose) region.setAttribute("aria-pressed", String(site === given));
    }
    if (!this.figure.contains(document.activeElement)) this.#rove(this.#regions.get(given ?? [...probabilities.keys()][0]) ?? this.#regions.values().next().value);
    this.#ring();
  }

  /** Mark a site that is pointed at elsewhere on the page. */
  point(site) {
    this.#pointed = site;
    this.#ring();
  }

  #build(drawing) {
    const paths = [...drawing.querySelectorAll("path")];
    const all = draw("g");
    const neutral = draw("g", { class: "neutral", "aria-hidden": "true" });
    const lines = draw("g", { class: "lines", "aria-hidden": "true" });
    const head = [...drawing.querySelectorAll("[data-head] path")];
    const enlarged = [...this.#siteOf].some(([part, site]) => SMALL.has(part) && this.#siteOf.get("face") !== site);
    if (enlarged) paths.push(...head.map(enlargement));
    const parts = paths.filter((path) => path.dataset.part).sort((a, b) => above(a) - above(b));
    for (const part of parts) {
      const site = this.#siteOf.get(part.dataset.part);
      if (site === undefined) neutral.append(part);
      else this.#region(site).append(part);
    }
    for (const path of paths.filter((path) => !path.dataset.part)) {
      if (this.#isLine(path.dataset)) lines.append(path);
    }
    lines.append(...drawing.querySelectorAll("text"));
    this.#regions = new Map([...this.#regions].sort(([, a], [, b]) => fromTop(a) - fromTop(b)));
    all.append(...[...this.#regions.values()].sort((a, b) => highest(a) - highest(b)));
    const picture = draw("svg", { viewBox: drawing.getAttribute("viewBox") });
    picture.append(neutral, all, lines, this.#rings);
    const label = "Body, front and back: arrow keys go from site to site";
    const figure = make("div", { role: "group", "aria-label": label, class: this.#onChoose ? "can-choose" : null }, picture);
    this.#listen(figure);
    return figure;
  }

  /** Outlines are, and seams between parts of two sites; those around a part that lies over others only if it has a site. */
  #isLine({ between, if: needed, unless: replaced }) {
    if (needed && !this.#siteOf.has(needed)) return false;
    if (replaced && this.#siteOf.has(replaced)) return false;
    const [one, other] = between?.split(" ").map((part) => this.#siteOf.get(part)) ?? [true, false];
    return one !== other;
  }

  #region(site) {
    if (!this.#regions.has(site)) {
      const region = draw("g", { class: "region", role: this.#onChoose ? "button" : "img", tabindex: "-1", "data-site": site });
      this.#regions.set(site, region);
    }
    return this.#regions.get(site);
  }

  /** On the element around the drawing: an element of SVG that listens for focus becomes a stop of the tab key itself. */
  #listen(figure) {
    const siteAt = (event) => event.target.closest(".region")?.dataset.site ?? null;
    figure.addEventListener("click", (event) => this.#choose(siteAt(event)));
    figure.addEventListener("pointerover", (event) => this.#onPoint(siteAt(event)));
    figure.addEventListener("pointerout", () => this.#onPoint(null));
    figure.addEventListener("focusin", (event) => {
      this.#rove(event.target);
      this.#onPoint(siteAt(event));
    });
    figure.addEventListener("focusout", () => this.#onPoint(null));
    figure.addEventListener("keydown", (event) => {
      const regions = [...this.#regions.values()];
      const here = regions.indexOf(event.target);
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (event.key in steps) regions.at((here + steps[event.key]) % regions.length).focus();
      else if (event.key === "Home") regions[0].focus();
      else if (event.key === "End") regions.at(-1).focus();
      else if (event.key === "Enter" || event.key === " ") this.#choose(siteAt(event));
      else return;
      event.preventDefault();
    });
  }

  #choose(site) {
    if (site !== null && this.#onChoose) this.#onChoose(site);
  }

  /** One stop of the tab key for the whole figure. */
  #rove(region) {
    for (const other of this.#regions.values()) other.setAttribute("tabindex", other === region ? "0" : "-1");
  }

  /** Around the given site and the one that is pointed at, or else has the focus of the keyboard, which shows by nothing else. */
  #ring() {
    const focused = this.figure.querySelector(".region:focus-visible")?.dataset.site;
    const rings = [[this.#given, "is-given"], [this.#pointed ?? focused, "is-pointed"]].filter(([site]) => this.#regions.has(site));
    this.#rings.replaceChildren(...rings.flatMap(([site, kind]) => around([...this.#regions.get(site).children], kind)));
  }
}

/** A ring around parts, and not between them: their outlines, masked where the parts themselves are. */
function around(paths, kind) {
  const mask = draw("mask", { id: `around-${kind}`, ...EVERYWHERE });
  mask.append(draw("rect", { ...EVERYWHERE, fill: "white" }), ...copies(paths, "inside"));
  const ring = draw("g", { mask: `url(#around-${kind})` });
  ring.append(...copies(paths, "halo"), ...copies(paths, kind));
  return [mask, ring];
}

function copies(paths, kind) {
  return paths.map((path) => {
    const copy = path.cloneNode();
    copy.setAttribute("class", kind);
    return copy;
  });
}

/** A button for each site that the figure does not show. */
export function buttonsElsewhere(sites, onChoose, onPoint) {
  return sites.map((site) => {
    const button = make("button", { type: "button", class: "chip", "data-site": site, disabled: onChoose === null });
    button.append(make("span", { class: "chip-name" }, site), " ", make("span", { class: "chip-value" }));
    if (onChoose) button.addEventListener("click", () => onChoose(site));
    for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => onPoint(site));
    for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => onPoint(null));
    return button;
  });
}

/** What such a button says. */
export function updateButton(button, p, given) {
  measure(button, { "--p": p ?? 0 });
  button.lastChild.textContent = p === undefined ? "" : `${share(p)}\u202f%`;
  button.setAttribute("aria-pressed", String(given));
}

function enlargement(path) {
  const copy = path.cloneNode();
  const [x, y] = LARGE_CENTRE.map((to, k) => to - LARGER * HEAD_CENTRE[k]);
  copy.setAttribute("transform", `translate(${x} ${y}) scale(${LARGER})`);
  return copy;
}

const above = (path) => ABOVE.get(path.dataset.part) ?? 0;
const fromTop = (region) => Math.min(...[...region.children].map((path) => DOWNWARDS.indexOf(path.dataset.part)));
const highest = (region) => Math.max(...[...region.children].map(above));
