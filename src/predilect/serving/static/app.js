/** The page: a photograph in; lesions, site, where the network looked and similar cases out. Nothing outlives it. */

import { NO_PRIOR, aboutModel, canTell, missWords, notes } from "./about.js";
import { Problem, makeApi } from "./api.js";
import { Overlay, taskChoice } from "./attention.js";
import { Bars } from "./bars.js";
import { BodyMap, buttonsElsewhere, drawingOf, updateButton } from "./body.js";
import { byId, make, tell } from "./dom.js";
import { forget, preview, receive } from "./photograph.js";
import { caseItems, creditsOf, inCommon, ownLabels } from "./similar.js";
import { askForToken } from "./token.js";
import { calibrationInShort, changesInShort, lesionsInShort, listed, mostProbable, percent, sentence, siteCalibrationInShort, sitesInShort } from "./words.js";

const RESULTS = ["lesions", "sites", "similar"].map(byId);
const KEYS = { true: "reaches its threshold", false: "does not reach it", null: "has no threshold" };

const api = makeApi(askForToken);
const overlay = new Overlay(() => photograph?.answer && showLesions());

let bundle = null; // labels, model, and the parts of the page that are made for them
let photograph = null; // the file, its answers, and what is shown of them
let underWay = new AbortController();

receive(look);
byId("forget").addEventListener("click", () => {
  giveSite(null);
  byId("lesions").focus({ preventScroll: true }); // the button is gone
});
byId("about-open").addEventListener("click", () => byId("about").showModal());
addEventListener("pagehide", leave);
addEventListener("pageshow", (event) => event.persisted && location.reload());
let opening = open();

/** Ask what the bundle can tell, and make the page for it. */
async function open() {
  tell(byId("start-problem"), "");
  try {
    const labels = await api.labels(); // alone, so that a token is asked for once
    const [model, figure] = await Promise.all([api.model(), api.figure()]);
    bundle = { labels, model, ...made(labels, drawingOf(figure)) };
    byId("start-words").replaceChildren(...canTell(labels, model));
    byId("about-words").replaceChildren(...aboutModel(labels, model));
    byId("about-open").hidden = false;
    byId("notes").replaceChildren(...notes(model));
    byId("calibrated").textContent = calibrationInShort(labels.lesions);
    byId("sites-calibrated").textContent = siteCalibrationInShort(labels.site_calibration);
  } catch (error) {
    tellOf(byId("start-problem"), error, () => (opening = open()));
  }
}

function made(labels, figure) {
  const sites = labels.sites.map((item) => item.name);
  const choose = labels.site_conditioning ? (site) => giveSite(site === photograph.site ? null : site) : null;
  const body = new BodyMap(figure, sites, { onChoose: choose, onPoint: pointAtSite });
  const buttons = buttonsElsewhere(body.elsewhere, choose, pointAtSite);
  byId("body").replaceChildren(body.figure);
  byId("elsewhere").hidden = !buttons.length;
  byId("elsewhere").replaceChildren(make("span", { class: "faint" }, "By name"), ...buttons);
  byId("sites-hint").textContent = NO_PRIOR; // where there is one, showSites says what may be done
  const mapped = labels.attention;
  return {
    body,
    buttons,
    lesions: new Bars(byId("lesion-list"), byId("lesions-more"), "lesion", { onPress: mapped ? pinLesion : null, onPoint: mapped ? pointAtLesion : null }),
    sites: new Bars(byId("site-list"), byId("sites-more"), "site", { onPress: choose, onPoint: pointAtSite }),
  };
}

/** Look at a new photograph. */
async function look(file) {
  underWay.abort();
  underWay = new AbortController();
  const { signal } = underWay;
  preview(file);
  overlay.clear();
  photograph = { file, answer: null, site: null, lesion: null, task: "lesion", asked: new Map() };
  for (const part of [...RESULTS, ...["attention", "no-attention", "change"].map(byId)]) part.hidden = true;
  for (const place of ["photograph-problem", "attention-problem"]) tell(byId(place), "");
  await busy(async () => {
    await opening;
    if (bundle === null) await (opening = open());
    if (bundle === null) return; // why, is told where the bundle would be described
    const { labels } = bundle;
    const beside = [labels.attention && "attention", labels.similar && "similar", labels.site_conditioning && "sites"].filter((item) => item);
    const answer = await api.predict(file, beside, signal);
    photograph.answer = photograph.plain = answer;
    photograph.lesion = answer.lesions[0]?.name ?? null;
    byId("start").hidden = true;
    byId("notes").hidden = !bundle.model.notes.length;
    byId("pick").textContent = "Choose another";
    showAttention(answer);
    showAnswer();
    showSimilar(answer);
    say(
      [
        answer.uniform && "This photograph is of nearly one colour",
        answer.unfamiliar && "This photograph is unfamiliar",
        answer.lesions.length && lesionsInShort(answer.lesions),
        answer.unsure && `${sentence(listed(answer.set))} cannot be excluded`,
        answer.site.length && sitesInShort(answer.site),
      ]
        .filter((item) => item)
        .join(". "),
    );
  }, signal, (error) => tellOf(byId("photograph-problem"), error, () => look(file)));
}

/** Take a site into account, or none; what each one changes came with the answer to the photograph. */
function giveSite(site) {
  const { plain } = photograph;
  photograph.site = site;
  photograph.answer = site === null ? plain : { ...plain, ...plain.by_site.find((item) => item.given_site === site) };
  showAnswer();
  if (bundle.labels.attention) showTasks();
  if (bundle.labels.similar) showSimilar(photograph.answer);
  const words = site === null ? `Without a site: ${lesionsInShort(plain.lesions)}` : changesInShort(site, plain.lesions, photograph.answer.lesions);
  byId("change-words").textContent = words;
  byId("change").hidden = site === null;
  say(words);
}

async function busy(work, signal, refused) {
  byId("busy").hidden = false;
  say(byId("busy").textContent); // what is shown and hidden by itself is not read out
  byId("main").setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") refused(error);
  } finally {
    if (!signal.aborted) {
      byId("busy").hidden = true;
      byId("main").removeAttribute("aria-busy");
      if (byId("said").textContent === byId("busy").textContent) say("");
    }
  }
}

function showAnswer() {
  showLesions();
  showSites();
}

function showLesions() {
  const { answer, plain, site, lesion } = photograph;
  byId("lesions").hidden = !answer.lesions.length;
  if (!answer.lesions.length) return;
  const was = new Map(plain.lesions.map((item) => [item.name, item.probability]));
  const about = new Map(bundle.labels.lesions.map((item) => [item.name, item]));
  const someCalibrated = bundle.labels.lesions.some((item) => item.calibration !== "none");
  byId("lesions-lede").textContent = lesionsInShort(answer.lesions);
  byId("notices").replaceChildren(...notices(answer));
  byId("given").hidden = site === null;
  byId("given-words").replaceChildren("Site given: ", make("b", {}, site ?? ""), ".");
  bundle.lesions.update(
    answer.lesions.map((item) => ({
      ...item,
      before: site === null ? null : was.get(item.name),
      asides: [about.get(item.name).machine_made && "labelled by a model", someCalibrated && about.get(item.name).calibration === "none" && "not calibrated"].filter((aside) => aside),
      pressed: overlay.visible && photograph.task === "lesion" && item.name === lesion,
    })),
  );
  const decisions = new Set(answer.lesions.map((item) => String(item.decision)));
  const decided = Object.keys(KEYS).filter((key) => decisions.has(key) && decisions.size + (key === "null" ? 0 : 1) > 1);
  byId("lesion-key").replaceChildren(
    ...decided.map((key) => make("li", {}, make("span", { class: "mark", "data-decision": key }), KEYS[key])),
    ...(answer.lesions.some((item) => item.threshold !== null) ? [make("li", {}, make("span", { class: "threshold" }), "threshold")] : []),
    ...(site === null ? [] : [make("li", {}, make("span", { class: "was" }), "without the site")]),
  );
}

function notices({ set, unsure, unfamiliar, unfamiliarity, uniform, given_site: given }) {
  const found = [];
  const notice = (title, text, kind = "notice") => found.push(make("p", { class: kind }, make("b", {}, title), ` ${text}`));
  if (uniform) notice("Nearly one colour.", "The middle of this photograph, which the network looks at, shows next to nothing. Do not rely on what is said here.");
  if (unfamiliar) {
    notice("Unfamiliar.", `This photograph is unlike those the network learnt from: ${percent(unfamiliarity)} of other photographs lie nearer to them. Rely less on what is said here.`);
  }
  if (unsure) notice("Unsure.", `No lesion reaches its threshold, but ${listed(set)} cannot be excluded.`);
  else if (set !== null) notice("Cannot be excluded:", `${set.length ? listed(set) : "none of them"}.`, "aside");
  if (set !== null && bundle.labels.max_miss_rate !== null) found.push(make("p", { class: "faint" }, missWords(bundle.labels.max_miss_rate, given !== null)));
  return found;
}

function showSites() {
  const { answer, site } = photograph;
  const { labels, body, buttons } = bundle;
  byId("sites").hidden = !labels.sites.length;
  const probabilities = new Map(answer.site.map((item) => [item.name, item.probability]));
  byId("sites-lede").textContent = sitesInShort(answer.site, site);
  if (labels.site_conditioning) {
    byId("sites-hint").textContent =
      site === null
        ? "Do you know where it was taken? Choose the site, and the lesions follow."
        : [answer.site.length && `By the photograph alone: ${mostProbable(answer.site)}.`, "Choose it once more to take it back."].filter((item) => item).join(" ");
  }
  body.update(probabilities, site);
  for (const button of buttons) updateButton(button, probabilities.get(button.dataset.site), button.dataset.site === site);
  bundle.sites.update(answer.site.map((item) => ({ ...item, before: null, decision: null, threshold: null, asides: item.name === site ? ["given"] : [], pressed: item.name === site })));
  pointAtSite(null);
}

function pointAtSite(site) {
  if (!photograph?.answer) return;
  bundle.body.point(site);
  bundle.sites.point(site);
  const p = photograph.answer.site.find((item) => item.name === site)?.probability;
  byId("readout").replaceChildren(...(site === null ? [] : [make("b", {}, site), p === undefined ? "" : ` ${percent(p)}`]));
}

function showAttention({ attention }) {
  byId("attention").hidden = attention === null;
  byId("no-attention").hidden = attention !== null || bundle.labels.attention;
  byId("no-attention").textContent = bundle.labels.attention ? "" : `There are no maps of where it looked: ${bundle.labels.no_attention_because}.`;
  if (attention === null) return;
  overlay.keep(attention);
  photograph.task = attention.maps[0].task;
  showTasks();
}

function showTasks() {
  const { task } = photograph;
  const tasks = ["lesion", "site"].map((item) => [item, chosenClass(item)]).filter(([, name]) => name !== null);
  byId("tasks").replaceChildren(...taskChoice(tasks, task, chooseTask));
  showMap(task, chosenClass(task));
}

/** The class whose map is shown of a head; null: the bundle does not have the head. */
function chosenClass(task) {
  const { answer, lesion, site } = photograph;
  if (task === "lesion") return lesion;
  return answer.site.length ? (site ?? answer.site[0].name) : null;
}

function chooseTask(task) {
  photograph.task = task;
  overlay.set(true);
  showMap(task, chosenClass(task));
  showLesions();
}

/** Keep the map of a lesion over the photograph, or take it away again. */
function pinLesion(name) {
  const kept = overlay.visible && photograph.task === "lesion" && photograph.lesion === name;
  photograph.lesion = name;
  photograph.task = "lesion";
  overlay.set(!kept);
  showTasks();
  showLesions();
}

function pointAtLesion(name) {
  if (name !== null) showMap("lesion", name, true);
  else showMap(photograph.task, chosenClass(photograph.task));
}

/** Lay a map over the photograph, asking for all maps of its head if this one is not here yet. */
async function showMap(task, name, pointed = false) {
  const { file, asked } = photograph;
  photograph.wanted = `${task}/${name}`;
  try {
    if (!overlay.has(task, name)) {
      const names = task === "lesion" ? bundle.labels.lesions : photograph.answer.site;
      if (!asked.has(task)) asked.set(task, api.attention(file, task, names.map((item) => item.name)));
      const found = await asked.get(task);
      if (photograph?.file !== file) return;
      overlay.keep(found);
    }
    tell(byId("attention-problem"), "");
    if (photograph.wanted === `${task}/${name}`) overlay.show(task, name, pointed);
  } catch (error) {
    asked.delete(task);
    if (photograph?.file === file) tellOf(byId("attention-problem"), error, () => showMap(task, name));
  }
}

function showSimilar(answer) {
  byId("similar").hidden = answer.similar === null;
  if (answer.similar === null) return;
  const { neighbours } = answer.similar;
  byId("similar-lede").textContent = inCommon(neighbours);
  byId("cases").replaceChildren(...caseItems(neighbours, ownLabels(answer)));
  const credits = creditsOf(neighbours, bundle.model.index);
  byId("credits").textContent = credits ? `From ${credits}.` : "";
}

function say(text) {
  byId("said").textContent = text;
}

/** Say what went wrong where it did, and offer to try again where that may help. */
function tellOf(element, error, again) {
  if (!(error instanceof Problem)) throw error; // a fault of the page
  tell(element, error.message, error.passes ? again : null);
}

function leave() {
  underWay.abort();
  photograph = null;
  overlay.clear();
  forget();
}
