/** How numbers and names are said. Pure functions. */

const NARROW = "\u202f"; // keeps a number and its sign on one line

const UNCALIBRATED = "The numbers are the network’s own scores: they are not calibrated, and are no probabilities to rely on.";

/** A probability in whole percent, and never as certain as 0 or 100: percent(0.004) is "< 1 %". */
export function percent(p) {
  return `${share(p)}${NARROW}%`;
}

/** The same without its sign. */
export function share(p) {
  if (p < 0.005) return `<${NARROW}1`;
  if (p >= 0.995) return `>${NARROW}99`;
  return String(Math.round(100 * p));
}

/** Two digits that count, with a minus that is one, and no more than four after the point: number(-0.634) is "−0.63". */
export function number(x) {
  if (Math.abs(x) < 5e-5) return "0";
  const text = Math.abs(x) >= 100 ? String(Math.round(x)) : String(Number(x.toPrecision(2)));
  return text.replace("-", "−");
}

/** "a", "a and b", "a, b and c". */
export function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** With a capital at its beginning. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** "1 photograph", "21,657 photographs". */
export function counted(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** What thresholds aim at, as the API has it: "f1" or "sensitivity=0.9". */
export function aimed(aim) {
  const [what, value] = aim.split("=");
  if (what === "f1") return "Thresholds balance sensitivity and precision (F1).";
  return `Thresholds aim at a ${what.replaceAll("_", " ")} of ${value === undefined ? "their own" : percent(Number(value))}.`;
}

/** Where on a photograph a point lies, its place as shares of width and height: "upper left", "centre". */
export function place(x, y) {
  const across = ["left", "", "right"][Math.min(2, Math.floor(3 * x))];
  const down = ["upper", "", "lower"][Math.min(2, Math.floor(3 * y))];
  if (!across && !down) return "centre";
  if (!across) return down === "upper" ? "upper part" : "lower part";
  return down ? `${down} ${across}` : across;
}

/** The lede above the lesions: which reach their thresholds, or else which is the most probable. */
export function lesionsInShort(lesions) {
  const reached = lesions.filter((item) => item.decision).map((item) => item.name);
  if (reached.length > 3) return `${reached.length} lesions reach their thresholds`;
  if (reached.length) return `${sentence(listed(reached))} ${reached.length > 1 ? "reach their thresholds" : "reaches its threshold"}`;
  if (lesions.every((item) => item.decision === null)) return `Most probable: ${mostProbable(lesions)}`;
  return "No lesion reaches its threshold";
}

/** The same for the site; `given`: the true one, or null. */
export function sitesInShort(sites, given = null) {
  if (given !== null) return `Given: ${given}`;
  return sites.length ? `Most probable: ${mostProbable(sites)}` : "This model does not predict the site";
}

/** "arm, 46 %", of classes with the most probable first. */
export function mostProbable([{ name, probability }]) {
  return `${name}, ${percent(probability)}`;
}

/** Which of the lesions' numbers are probabilities. @param {{name: string, calibration: string}[]} lesions As the server describes them. */
export function calibrationInShort(lesions) {
  const without = lesions.filter((item) => item.calibration === "none");
  if (!without.length) return "The probabilities are calibrated.";
  if (without.length < lesions.length) return "The probabilities are calibrated, save where it says otherwise.";
  return UNCALIBRATED;
}

/** The same of the sites'. @param {string|null} calibration As the server describes it: "temperature" or "none"; null: it predicts no site. */
export function siteCalibrationInShort(calibration) {
  if (calibration === null) return "";
  return calibration === "none" ? UNCALIBRATED : "The probabilities are calibrated.";
}

/** How the lesions changed with a given site, largest change first, for those who do not see the bars. */
export function changesInShort(site, before, after, most = 3) {
  const was = new Map(before.map((item) => [item.name, item.probability]));
  const moved = after
    .map((item) => ({ ...item, from: was.get(item.name), by: Math.abs(item.probability - was.get(item.name)) }))
    .filter((item) => percent(item.from) !== percent(item.probability))
    .sort((a, b) => b.by - a.by)
    .slice(0, most)
    .map((item) => `${item.name} ${item.probability > item.from ? "rises" : "falls"} from ${percent(item.from)} to ${percent(item.probability)}`);
  return moved.length ? `With the site ${site}, ${listed(moved)}.` : `With the site ${site}, no lesion changes by a percent.`;
}
