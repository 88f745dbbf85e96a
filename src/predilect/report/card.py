"""The model card of a bundle, in Markdown: what it is, what it is for and what not, where it comes from, how well it does, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import polars as pl

from predilect.evaluation.calibration_scores import Number, Reliability, SystemCalibration
from predilect.evaluation.fitted_parts import FittedParts
from predilect.evaluation.measured import Measured
from predilect.evaluation.scores import SystemScores
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth
from predilect.report.calibration_wording import calibration_findings
from predilect.report.known_site_wording import known_site_findings
from predilect.report.markdown import escaped, table
from predilect.report.wording import HEADLINE_METRICS, INTENDED_USE, cautions, interval, listed, many, number

__all__ = ["Tested", "model_card"]

_YEARS = 20
_AGES = ("below 20", "20 to 39", "40 to 59", "60 to 79", "from 80")


@dataclass(frozen=True, eq=False, slots=True)
class Tested:
    """How the networks of a cross-validation did, of the system that the bundle holds, alone.

    Attributes:
        truth: Of the photographs that they were tested on.
        measured: What was measured on these.
    """

    truth: Truth
    measured: Measured


def model_card(info: Mapping[str, Any], fitted: FittedParts, tested: Tested | None) -> str:
    """Write a card.

    Args:
        info: What `bundle.json` holds: ``system``, ``labels``, ``preprocessing``, ``recipe``, ``provenance``, ``licences``.
        fitted: What was fitted for the bundle.
        tested: None where no fold was held out.

    Returns:
        Markdown (CommonMark with tables).
    """
    sections = [
        _what(info),
        _use(),
        _data(info, tested),
        _training(info),
        *([_untested()] if tested is None else [_scores(info["system"], tested), _probabilities(info["system"], fitted, tested)]),
        _fitted_on(info, fitted, tested),
        _limits(fitted, tested),
    ]
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _what(info: Mapping[str, Any]) -> list[str]:
    said = {LESION: "which of {} it shows, one, several or none", SITE: "on which of {} it was taken"}
    counted = {LESION: "lesion", SITE: "body site"}
    parts = [said[task].format(many(len(item["classes"]), counted[task])) for task, item in info["labels"].items()]
    atlas = escaped(str(info["provenance"].get("atlas", "an atlas")))
    blocks = [
        f"# {escaped(info['system'])} on {atlas}",
        f"A network ({escaped(info['recipe']['backbone'])}) that says of a photograph of skin {', and '.join(parts)}. Made with Predilect.",
    ]
    for task, item in info["labels"].items():
        names = [escaped(name) + ("\\*" if name in item["machine"] else "") for name in item["classes"]]
        blocks.append(f"{counted[task].capitalize()}s: {', '.join(names)}.")
    if any(item["machine"] for item in info["labels"].values()):
        blocks.append("\\* A model, not a person, made the labels of these: what is said of them is what that model would say.")
    return blocks


def _use() -> list[str]:
    return [
        "## Intended use",
        INTENDED_USE,
        _bullets(
            [
                "To compare systems, to study which photographs are hard, to teach how such a network answers and errs, to build software around it.",
                "Not to diagnose, not to rule anything out, not to sort patients, not to choose a treatment, with or without a physician.",
                "Not for photographs of other kinds than those below: other cameras, sites, lesions, ages or skin tones. Nothing is known of those.",
            ]
        ),
    ]


def _data(info: Mapping[str, Any], tested: Tested | None) -> list[str]:
    provenance = info["provenance"]
    rows = [[escaped(source[key] or "not given") for key in ("name", "licence", "credit")] for source in provenance["sources"]]
    blocks = ["## Data", table(["source", "licence", "credit"], rows, words=3)] if rows else ["## Data", "No source is named."]
    if provenance.get("notes"):
        blocks.append(_bullets([escaped(note) for note in provenance["notes"]]))
    people = [] if tested is None else _people(tested.truth)
    if people:
        assert tested is not None
        blocks += [
            f"What is known of the {many(len(tested.truth), 'photograph')} that were tested:",
            table(["", "", "photographs"], people, words=2),
            "Scores were not broken down by these; a network may do worse on a group that is small here, and nothing below would show it.",
        ]
    elif tested is not None:
        blocks.append("Skin tone, age and sex are not known of any photograph, so nothing can be said of subgroups.")
    return blocks


def _people(truth: Truth) -> list[list[str]]:
    """Photographs by skin tone, age and sex; what nobody noted stands last."""
    known, rows = truth.covariates, []
    tone = pl.concat_str([pl.col("skin_tone"), pl.col("skin_tone_scale")], separator=", ")
    columns = {
        "skin tone": (("skin_tone", "skin_tone_scale"), tone),
        "age": (("age",), (pl.col("age") // _YEARS).clip(0, len(_AGES) - 1)),
        "sex": (("sex",), pl.col("sex")),
    }
    for title, (needed, value) in columns.items():
        if set(needed) <= set(known.columns) and known[needed[0]].count():
            number_first = pl.col("value").cast(pl.String).str.extract(r"^(\d+)").cast(pl.Int64)  # 2 comes before 10
            counts = known.select(value=value).group_by("value").len().sort(number_first, "value", nulls_last=True)
            rows += [[title, _person(item), f"{n:,}"] for item, n in counts.iter_rows()]
    return rows


def _person(value: str | float | None) -> str:
    """A skin tone, a sex, or a number that stands for a span of age."""
    if value is None:
        return "not known"
    return escaped(value) if isinstance(value, str) else _AGES[int(value)]


def _training(info: Mapping[str, Any]) -> list[str]:
    recipe, provenance, preprocessing = info["recipe"], info["provenance"], info["preprocessing"]
    starts = {"pretrained": "weights of the backbone's own library", "none": "random weights"}
    rows = [
        ["tasks", listed([escaped(task) for task in info["labels"]])],
        ["backbone", escaped(recipe["backbone"])],
        ["started from", escaped(starts.get(recipe["weights"], recipe["weights"]))],
        ["recipe", escaped(recipe["name"])],
        ["learnt from", many(provenance.get("n_images", 0), "photograph")],
        ["iterations", f"{provenance.get('iterations', 0):,}, with {recipe['batch_size']} photographs each"],
        ["optimiser", f"{recipe['optimizer']}, rate {recipe['learning_rate']:g}, {recipe['schedule']}"],
        ["seed", str(provenance.get("seed", "not known"))],
        ["looks at", _views(preprocessing)],
    ]
    commands = [" ".join(str(provenance[key]).split()) for key in ("command", "made_by") if key in provenance]
    told = ["The commands:", "\n".join(f"    {command}" for command in dict.fromkeys(commands))] if commands else []
    return ["## Training", table(["", ""], rows, words=2), *told]


def _views(preprocessing: Mapping[str, Any]) -> str:
    crop, side = preprocessing["crop"], preprocessing["test_side"]
    seen = "ten crops" if preprocessing["views"] == "ten-crop" else "the centre"
    return f"{seen} of {crop} × {crop} pixels, the shorter side being scaled to {side}"


def _untested() -> list[str]:
    return ["## Scores", "**None.** No fold was held out, so no photograph tells how well this network does."]


def _scores(system: str, tested: Tested) -> list[str]:
    evaluation = tested.measured.evaluation
    scores, truth = evaluation.systems[system], evaluation.truth
    folds = many(len(evaluation.folds.folds), "fold") if evaluation.folds else "no folds"
    blocks = [
        "## Scores",
        (
            f"Of the networks of {folds}, each on photographs that it did not learn from: {many(truth.n_images, 'photograph')} in "
            f"{many(truth.n_groups, 'group')}, {many(len(scores.seeds), 'training seed')}. **This network learnt from all of them and was tested on none.** "
            "In brackets 95 % intervals over groups; average precision (AP) is that of scores before calibration."
        ),
        table(["", "", "95 % interval"], _headline(scores)),
    ]
    if scores.lesion is not None:
        rows = [
            [
                escaped(name) + ("\\*" if item.machine_made else ""),
                number(item.ap),
                interval(item.ap_low, item.ap_high),
                f"{item.n_positive:,}",
                f"{item.n_positive_groups:,}",
                number(item.n_positive / item.n_known if item.n_known else None),
            ]
            for name, item in scores.lesion.per_class.items()
        ]
        blocks.append(table(["lesion", "AP", "95 % interval", "photographs", "groups", "base rate"], rows))
    if scores.site is not None:
        rows = [
            [
                escaped(name),
                number(place.top1),
                interval(place.top1_low, place.top1_high),
                number(place.top3),
                f"{place.n_images:,}",
                f"{place.n_groups:,}",
            ]
            for name, place in scores.site.per_class.items()
        ]
        blocks.append(table(["body site", "top-1", "95 % interval", "top-3", "photographs", "groups"], rows))
    return blocks


def _headline(scores: SystemScores) -> list[list[str]]:
    rows = []
    for part, metrics in ((scores.lesion, HEADLINE_METRICS[LESION]), (scores.site, HEADLINE_METRICS[SITE])):
        for metric, title in metrics.items() if part is not None else ():
            value, low, high = (getattr(part, f"{metric}{end}") for end in ("", "_low", "_high"))
            rows.append([title, number(value), interval(low, high)])
    return rows


def _probabilities(system: str, fitted: FittedParts, tested: Tested) -> list[str]:
    calibration, known_site = tested.measured.calibration, tested.measured.known_site
    blocks = ["## Probabilities"]
    if calibration is None:
        return [*blocks, f"Not calibrated: {escaped(fitted.missing.get('calibration', 'there are too few folds'))}."]
    found = calibration.systems[system]
    rows = [_reliability(name, item) for name, item in found.lesions.items()]
    rows += [] if found.site is None else [_reliability("most probable site", found.site)]
    blocks += [
        _bullets([escaped(finding.sentence) for finding in calibration_findings(calibration)]),
        "Expected calibration error (ECE) and Brier score, before and after, on folds that the calibration was not fitted on:",
        table(["class", "method", "ECE before", "after", "by chance", "Brier before", "after", "base rate"], rows, words=2),
        *_decisions(found, calibration.aim),
    ]
    if known_site is not None:
        blocks += [
            "### The site is known",
            f"Of the {many(known_site.n_images, 'photograph')} whose site is known, in the folds:",
            _bullets([escaped(finding.sentence) for finding in known_site_findings(known_site)]),
        ]
    return blocks


def _reliability(name: str, item: Reliability) -> list[str]:
    return [
        escaped(name) + ("\\*" if item.machine_made else ""),
        item.method,
        _estimate(item.before.ece),
        _estimate(item.after.ece),
        number(item.after.ece_by_chance),
        _estimate(item.before.brier),
        _estimate(item.after.brier),
        number(item.base_rate_brier),
    ]


def _decisions(found: SystemCalibration, aim: str) -> list[str]:
    if not found.decisions:
        return []
    rows = [
        [
            escaped(name) + ("\\*" if item.machine_made else ""),
            number(item.threshold),
            f"{item.n_decided:,} of {item.n_known:,}",
            f"{item.n_positive_decided:,} of {item.n_positive:,}",
            *(_estimate(part) for part in (item.sensitivity, item.specificity, item.precision)),
        ]
        for name, item in found.decisions.items()
    ]
    return [
        f"### Decisions, for {_aim(aim)}",
        (
            "A lesion counts as present from its threshold on. What thresholds do, on folds that they were not fitted on, counted over the "
            "photographs decided on; where the groups outside a fold are too few for a threshold, nothing is decided in it:"
        ),
        table(["lesion", "threshold", "decided", "of these with the lesion", "sensitivity", "specificity", "precision"], rows),
    ]


def _aim(aim: str) -> str:
    return "the largest F1" if aim == "f1" else f"a {aim.replace('=', ' of ')}"


def _fitted_on(info: Mapping[str, Any], fitted: FittedParts, tested: Tested | None) -> list[str]:
    rows = [["weights", f"{many(info['provenance'].get('n_images', 0), 'photograph')}, all groups"]]
    rule, prior, familiarity = fitted.rule, fitted.site_prior, fitted.familiarity
    if tested is not None:
        scored = f"what the folds' networks said of {many(len(tested.truth), 'photograph')} that they had not learnt from"
        rows += [] if rule is None else [["calibration", scored]]
        if rule is not None and rule.thresholds is not None and rule.sets is not None:
            bound = f"{100 * rule.sets.max_miss_rate:g} %"
            nested = "the same, each photograph calibrated without its own fold, no site being given"
            rows.append([f"thresholds, for {_aim(str(rule.thresholds.aim))}, and sets, with a bound of {bound}", nested])
        rows += [] if prior is None else [["site prior", f"the same, of {many(prior.n_groups, 'group')} of known site"]]
        if familiarity is not None:
            rows.append(
                ["usual distances", f"the folds' held-out photographs, {many(familiarity.novelty.n_groups, 'group')}, of one seed"]
            )
    blocks = ["## What was fitted on what", table(["", "fitted on"], rows, words=2)]
    if rule is not None:
        blocks.append(
            "**The calibration comes from the folds' networks and is applied to this one**, of the same recipe, which learnt from all "
            "photographs. It may be a little better than they were, and rather less sure where it is wrong; nothing here measures "
            "that. The same is true of thresholds, sets and the site prior. Thresholds and the bound of the sets were fitted without a given "
            "site: once one is given they are still applied, and what they promise is not shown to hold. The numbers above are another matter: what "
            "is said there of one fold was fitted on the others."
        )
    return blocks


def _limits(fitted: FittedParts, tested: Tested | None) -> list[str]:
    limits = [
        (
            "It knows the lesions, sites, cameras and skin tones of its atlas, and no others. In another clinic lesions are more or less common, "
            "and every probability is off by that."
        ),
        "A lesion that is not on its list is never named, and a photograph without skin gets an answer too.",
    ]
    rule, familiarity = fitted.rule, fitted.familiarity
    if rule is not None:
        poor = [item.name for item in rule.calibration.lesions if item.method == "none"]
        if poor:
            limits.append(
                f"Too rare to be calibrated, so that their scores stand as the network gives them: {escaped(listed(poor))}."
            )
        if rule.sets is not None:
            limits.append(
                f"Sets of what cannot be excluded leave out at most {100 * rule.sets.max_miss_rate:g} % of a photograph's lesions on average over "
                f"patients like the atlas's. For one lesion, one site or one kind of patient it may be far more."
            )
    if familiarity is not None:
        limits.append(
            f"A photograph is called unfamiliar where at most {100 * familiarity.novelty.false_alarm_rate:g} % of the patients like the atlas's would be. "
            "Which strange photographs are noticed is not known."
            + (
                ""
                if familiarity.novelty.threshold is not None
                else " Here the groups are too few for such a rate: it warns of none."
            )
        )
    limits += [escaped(sentence) for sentence in fitted.caveats()]
    limits += [] if tested is None else [escaped(sentence) for sentence in cautions(tested.measured.evaluation)]
    return ["## Limits", _bullets(limits)]


def _estimate(item: Number) -> str:
    return f"{number(item.value)} {interval(item.low, item.high)}".rstrip()


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence, _ in groupby(sentences))
