/** What the bundle is, in words. */

import { make } from "./dom.js";
import { aimed, counted, listed, percent } from "./words.js";

const WITHOUT_SITE = "Thresholds and the list of what cannot be excluded were fitted without a given site.";

export const NO_PRIOR = "This model was made without a site prior, so the true site cannot be given.";

/** For someone who has not yet chosen a photograph. */
export function canTell(labels, model) {
  const lesions = labels.lesions.map((item) => item.name);
  const sites = labels.sites.map((item) => item.name);
  const facts = [];
  if (lesions.length) facts.push([counted(lesions.length, "lesion"), [`${listed(lesions)}.`, labels.aim ? aimed(labels.aim) : "No thresholds were chosen: it gives probabilities, and decides nothing."]]);
  if (sites.length) facts.push([counted(sites.length, "body site"), [`${listed(sites)}.`, siteWords(labels)]]);
  const heads = [lesions.length && "each lesion", sites.length && "each site"].filter((item) => item);
  facts.push(["Where it looked", [labels.attention ? `A map over the photograph for ${listed(heads)}.` : `There are no maps: ${labels.no_attention_because}.`]]);
  if (labels.similar) facts.push(["Similar cases", [`The five most alike among ${counted(model.index.n_photographs, "photograph")} of ${model.index.atlas}.`]]);
  return [described(facts), ...notes(model)];
}

/** All that there is to be known. */
export function aboutModel(labels, model) {
  const { provenance, input } = model;
  const trained = [provenance.n_images !== null && counted(Number(provenance.n_images), "photograph"), provenance.atlas && `atlas ${provenance.atlas}`];
  const views = input.views === "center" ? "the centre of the photograph" : "ten crops of the photograph, averaged";
  const facts = [
    ["Intended use", [model.intended_use]],
    ["Model", [`${model.system}, ${model.backbone}, recipe ${model.recipe}`]],
    ["It sees", [`${views}, ${input.crop} × ${input.crop} pixels after its shorter side was scaled to ${input.test_side}`]],
    ["Trained on", trained.some((item) => item) ? [trained.filter((item) => item).join(", ")] : []],
    ["Lesions", labels.lesions.length ? [listed(labels.lesions.map(lesionWords)), ...(labels.aim ? [aimed(labels.aim)] : [])] : []],
    ["Cannot be excluded", labels.max_miss_rate === null ? [] : [missWords(labels.max_miss_rate)]],
    ["Body sites", labels.sites.length ? [sitesNamed(labels), siteWords(labels)] : []],
    ["Sources", model.sources.map(credit)],
    ["Licences", model.licences],
    ["Index", model.index ? [`${counted(model.index.n_photographs, "photograph")} of ${model.index.atlas}`, ...model.index.sources.map(credit)] : []],
    ["Weights", [model.model]],
    ["Made by", [provenance.command, `Predilect ${model.version}`].filter((item) => item)],
  ];
  return [...notes(model), described(facts.filter(([, lines]) => lines.length))];
}

/** What the list of lesions that cannot be excluded promises; `given`: whether a site is, for which nothing is promised. */
export function missWords(rate, given = false) {
  if (given) return `${WITHOUT_SITE} That such a list misses at most ${percent(rate)} of the lesions is not shown to hold now that a site is given.`;
  return (
    `On average over patients like those of the training, such a list misses at most ${percent(rate)} of the lesions on a photograph that shows some. ` +
    "For one lesion, one site or one kind of patient it may be more; and it was fitted on what the networks of the folds said, each of photographs that it had not learnt from."
  );
}

function siteWords(labels) {
  return labels.site_conditioning
    ? ["Choose the true site on the body, and the lesions follow.", labels.max_miss_rate !== null && WITHOUT_SITE].filter((item) => item).join(" ")
    : NO_PRIOR;
}

function sitesNamed({ sites, site_calibration: calibration }) {
  return `${listed(sites.map((item) => item.name))}${calibration === "none" ? " (not calibrated)" : ""}`;
}

function lesionWords({ name, machine_made: machine, calibration }) {
  const asides = [machine && "labelled by a model", calibration === "none" && "not calibrated"].filter((item) => item);
  return asides.length ? `${name} (${asides.join(", ")})` : name;
}

function credit({ name, licence, credit: whom }) {
  return [name, whom, licence].filter((item) => item).join(", ");
}

/** What a reader of its answers must know. */
export function notes(model) {
  return model.notes.map((note) => make("p", { class: "notice" }, note));
}

function described(facts) {
  const list = make("dl");
  for (const [term, lines] of facts) list.append(make("dt", {}, term), make("dd", {}, ...lines.map((line) => make("p", {}, line))));
  return list;
}
