/** Which parts of the drawn figure a body site is: names of sites are whatever a bundle was trained with. */

const FACE = ["face", "eye", "nose", "lip"];
const HEAD = ["scalp", ...FACE, "ear"];
const NECK = ["neck-front", "neck-back"];
const FOLDS = ["axilla", "groin"];
const ANTERIOR = ["chest", "abdomen", "groin", "genital"];
const POSTERIOR = ["upper-back", "lower-back", "buttock"];
const TRUNK = [...ANTERIOR, ...POSTERIOR, "axilla"];
const UPPER_ARM = ["shoulder", "upper-arm"];
const ARM = [...UPPER_ARM, "elbow", "forearm"];
const HAND = ["palm", "back-of-hand"];
const LEG = ["thigh", "knee", "lower-leg"];
const FOOT = ["top-of-foot", "sole"];

/** Parts by what a site may be called, in lower case and without the s of a plural. */
const CALLED = new Map(
  [
    [HEAD, "head"],
    [FACE, "face"],
    [["scalp"], "scalp", "hair", "capillitium"],
    [["eye"], "eye", "eyelid", "periorbital", "periocular"],
    [["nose"], "nose", "nasal"],
    [["lip"], "lip", "perioral"],
    [["ear"], "ear", "auricle"],
    [NECK, "neck"],
    [["neck-back"], "nape", "back of neck", "posterior neck"],
    [TRUNK, "trunk", "torso", "body"],
    [ANTERIOR, "anterior torso", "anterior trunk", "front of trunk"],
    [POSTERIOR, "posterior torso", "posterior trunk"],
    [["chest"], "chest", "breast", "thorax"],
    [["abdomen"], "abdomen", "belly", "stomach"],
    [["upper-back", "lower-back"], "back"],
    [["upper-back"], "upper back"],
    [["lower-back"], "lower back"],
    [["buttock"], "buttock", "gluteal"],
    [["axilla"], "axilla", "axillae", "armpit", "underarm"],
    [["groin"], "groin", "inguinal"],
    [FOLDS, "skin fold", "fold", "flexure", "intertriginou"],
    [["genital"], "genital", "genitalia", "pubic", "pubi", "anogenital"],
    [ARM, "arm"],
    [UPPER_ARM, "upper arm"],
    [["shoulder"], "shoulder"],
    [["elbow"], "elbow"],
    [["forearm"], "forearm", "lower arm"],
    [[...ARM, ...HAND], "upper extremity", "upper limb", "upper extremitie"],
    [HAND, "hand"],
    [["palm"], "palm"],
    [["back-of-hand"], "back of hand", "dorsum of hand", "dorsal hand", "hand dorsum"],
    [LEG, "leg"],
    [["thigh"], "thigh", "upper leg"],
    [["knee"], "knee"],
    [["lower-leg"], "lower leg", "shin", "calf", "calve"],
    [[...LEG, ...FOOT], "lower extremity", "lower limb", "lower extremitie"],
    [FOOT, "foot", "feet"],
    [["top-of-foot"], "top of foot", "dorsum of foot", "dorsal foot", "foot dorsum"],
    [["sole"], "sole", "heel"],
  ].flatMap(([parts, ...names]) => names.map((name) => [name, parts])),
);

/** The parts of a site by its name, which may join several ("head/neck/face"); none if one of them is not on the figure. */
export function partsOf(site) {
  const found = site
    .toLowerCase()
    .split(/\s*(?:[/,;+&]|\band\b|\bor\b)\s*/)
    .map((name) => name.replace(/[\s_-]+/g, " ").trim())
    .filter((name) => name)
    .map((name) => CALLED.get(name) ?? CALLED.get(name.replace(/s$/, "")));
  return found.length && found.every((parts) => parts) ? [...new Set(found.flat())] : [];
}

/**
 * Which site each part of the figure shows. A part that several sites have ("back" and "trunk") shows the one with the fewest parts.
 * @param {string[]} sites
 * @returns {{siteOf: Map<string, string>, elsewhere: string[]}} `elsewhere`: sites that the figure does not show, or of which less than
 *   half is left to them.
 */
export function placed(sites) {
  const wanted = sites.map((site) => ({ site, parts: partsOf(site) })).sort((a, b) => a.parts.length - b.parts.length);
  const siteOf = new Map();
  for (const { site, parts } of wanted) {
    for (const part of parts) if (!siteOf.has(part)) siteOf.set(part, site);
  }
  const left = (parts, site) => parts.filter((part) => siteOf.get(part) === site).length;
  const shown = new Set(wanted.filter(({ site, parts }) => parts.length && 2 * left(parts, site) >= parts.length).map(({ site }) => site));
  return { siteOf, elsewhere: sites.filter((site) => !shown.has(site)) };
}

/** All parts from head to foot, the order in which keys go through sites. */
export const DOWNWARDS = [...HEAD, ...NECK, ...ARM, ...HAND, ...TRUNK, ...LEG, ...FOOT];

/** Parts too small to be hit on the figure: if one is a site of its own, the head is drawn a second time, larger. */
export const SMALL = new Set(["eye", "nose", "lip", "ear"]);
