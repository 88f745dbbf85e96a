"""The sections of a model card on how well a system does: scores, probabilities, what was fitted on what, limits.

Each function gives a section as blocks of Markdown, its heading first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from predilect.evaluation.calibration_scores import Number, Reliability, SystemCalibration
from predilect.evaluation.fitted_parts import FittedParts
from predilect.evaluation.measured import Measured
from predilect.evaluation.scores import SystemScores
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth
from predilect.report.calibration_wording import calibration_findings, calibration_method
from predilect.report.known_site_wording import known_site_findings
from predilect.report.markdown import bullets, escaped, table
from predilect.report.wording import HEADLINE_METRICS, cautions, interval, listed, many, number

__all__ = ["Tested", "fitted_on", "limits", "tested_probabilities", "tested_scores", "untested"]


@dataclass(frozen=True, eq=False, slots=True)
class Tested:
    """How the networks of a cross-validation did, of the system that the bundle holds, alone.

    Attributes:
        truth: Of the photographs that they were tested on.
        measured: What was measured on these.
    """

    truth: Truth
    measured: Measured


def untested() -> list[str]:
    """Where no fold was held out."""
    return ["## Scores", "**None.** No fold was held out, so no photograph tells how well this network does."]


def tested_scores(system: str, tested: Tested) -> list[str]:
    """How well the networks of the folds ranked, overall and by class."""
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


def tested_probabilities(system: str, fitted: FittedParts, tested: Tested) -> list[str]:
    """Whether probabilities, decisions and sets mean what they say, and what a known site brings."""
    calibration, known_site = tested.measured.calibration, tested.measured.known_site
    blocks = ["## Probabilities"]
    if calibration is None:
        return [*blocks, f"Not calibrated: {escaped(fitted.missing.get('calibration', 'there are too few folds'))}."]
    found = calibration.systems[system]
    rows = [_reliability(name, item, calibration.n_folds) for name, item in found.lesions.items()]
    rows += [] if found.site is None else [_reliability("most probable site", found.site, calibration.n_folds)]
    blocks += [
        bullets([escaped(finding.sentence) for finding in calibration_findings(calibration)]),
        "Expected calibration error (ECE) and Brier score, before and after, on folds that the calibration was not fitted on:",
        table(
            ["class", "method", "ECE before", "after", "by chance", "Brier before", "after", "Brier of the base rate"],
            rows,
            words=2,
        ),
        *_decisions(found, calibration.aim),
    ]
    if known_site is not None:
        blocks += [
            "### The site is known",
            f"Of the {many(known_site.n_images, 'photograph')} whose site is known, in the folds:",
            bullets([escaped(finding.sentence) for finding in known_site_findings(known_site)]),
        ]
    return blocks


def _reliability(name: str, item: Reliability, n_folds: int) -> list[str]:
    return [
        escaped(name) + ("\\*" if item.machine_made else ""),
        calibration_method(item, n_folds),
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


def fitted_on(info: Mapping[str, Any], fitted: FittedParts, tested: Tested | None) -> list[str]:
    """Which part of the bundle was fitted on what."""
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


def limits(fitted: FittedParts, tested: Tested | None) -> list[str]:
    """What it does not know and cannot do."""
    said = [
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
            said.append(
                f"Too rare to be calibrated, so that their scores stand as the network gives them: {escaped(listed(poor))}."
            )
        if rule.sets is not None:
            said.append(
                f"Sets of what cannot be excluded leave out at most {100 * rule.sets.max_miss_rate:g} % of a photograph's lesions on average over "
                f"patients like the atlas's. For one lesion, one site or one kind of patient it may be far more."
            )
    if familiarity is not None:
        said.append(
            f"A photograph is called unfamiliar where at most {100 * familiarity.novelty.false_alarm_rate:g} % of the patients like the atlas's would be. "
            "Which strange photographs are noticed is not known."
            + (
                ""
                if familiarity.novelty.threshold is not None
                else " Here the groups are too few for such a rate: it warns of none."
            )
        )
    said += [escaped(sentence) for sentence in (*fitted.unreached(), *fitted.caveats())]
    said += [] if tested is None else [escaped(sentence) for sentence in cautions(tested.measured.evaluation)]
    return ["## Limits", bullets(said)]


def _estimate(item: Number) -> str:
    return f"{number(item.value)} {interval(item.low, item.high)}".rstrip()
