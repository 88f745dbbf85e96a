/** Cases of the bundle's index that the network finds alike. */

import { make } from "./dom.js";
import { counted, number, sentence } from "./words.js";

/** What is said of the photograph itself, to which cases are compared: lesions that are present, and the site that was given or is most probable. */
export function ownLabels({ lesions, site, given_site: given }) {
  const decided = lesions.some((item) => item.decision !== null);
  const present = decided ? lesions.filter((item) => item.decision) : lesions.slice(0, 1);
  return { lesions: new Set(present.map((item) => item.name)), site: given ?? site[0]?.name ?? null };
}

/** One item of the list for each case. */
export function caseItems(neighbours, own) {
  return neighbours.map((item) =>
    make(
      "li",
      { class: "case" },
      item.photograph ? make("img", { src: item.photograph, alt: `Case ${item.image_id}` }) : make("p", { class: "no-picture" }, "The index holds labels only"),
      labels(item, own),
      make("p", { class: "faint" }, `${item.image_id}, distance ${number(item.distance)}`),
    ),
  );
}

/** Which labels the cases have in common, the most frequent first. */
export function inCommon(neighbours) {
  const count = (names) => {
    const found = new Map();
    for (const name of names) found.set(name, (found.get(name) ?? 0) + 1);
    return [...found].filter(([, n]) => n > 1).sort((a, b) => b[1] - a[1]);
  };
  const shared = [...count(neighbours.flatMap((item) => item.lesions ?? [])), ...count(neighbours.flatMap((item) => item.site ?? []))];
  const n = neighbours.length;
  if (n < 2) return counted(n, "case");
  if (!shared.length) return `No two of these ${n} cases share a label`;
  return `${sentence(shared.map(([name, times], k) => `${name} in ${times}${k ? "" : ` of ${n}`}`).join(", "))}`;
}

/** Whom to credit for the photographs that are shown. */
export function creditsOf(neighbours, index) {
  const shown = new Set(neighbours.map((item) => item.source));
  const sources = (index?.sources ?? []).filter((source) => shown.has(source.name) || shown.has(null));
  return sources.map((source) => [source.name, source.credit, source.licence].filter((item) => item).join(", ")).join("; ");
}

function labels({ lesions, site }, own) {
  const list = make("ul", { class: "labels" });
  const add = (name, shared) => list.append(make("li", { class: shared ? "shared" : "" }, name, ...(shared ? [make("span", { class: "unseen" }, " (as here)")] : [])));
  if (lesions === null) list.append(make("li", { class: "unknown" }, "lesions not known"));
  else if (!lesions.length) list.append(make("li", { class: "unknown" }, "no lesion"));
  else for (const name of lesions) add(name, own.lesions.has(name));
  if (site === null) list.append(make("li", { class: "unknown" }, "site not known"));
  else add(site, site === own.site);
  return list;
}
