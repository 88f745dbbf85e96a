"""Systems that are told the site, in words: what may be said of the numbers, and what they do not cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predilect.evaluation.known_site import BASELINES
from predilect.evaluation.known_site_scores import KnownSite, SiteEffects
from predilect.evaluation.scores import Comparison
from predilect.report.known_site_tables import (
    KNOWN_SITE_METRICS,
    KnownSiteRow,
    LesionEffectRow,
    compared,
    difference_cell,
    difference_rows,
    effect_rows,
    shown_system,
    system_rows,
)
from predilect.report.site_prior_figure import told_and_not
from predilect.report.wording import Finding, disagree, listed, p_value, shown_side, signed

__all__ = [
    "KnownSiteSection",
    "known_site_caption",
    "known_site_findings",
    "known_site_guide",
    "known_site_label",
    "known_site_section",
]


@dataclass(frozen=True, slots=True)
class KnownSiteSection:
    """Everything that the template ``known_site.html`` shows, but its figure.

    Attributes:
        systems: Numbers, a row for each system and state.
        differences: Paired differences, a row for each pair.
        metrics: Titles of the columns of both.
        shown: The system whose lesions stand one by one.
        effects: These lesions.
        findings: What may be said.
        guide: How to read it.
    """

    systems: list[KnownSiteRow]
    differences: list[KnownSiteRow]
    metrics: list[str]
    shown: str
    effects: list[LesionEffectRow]
    findings: list[Finding]
    guide: list[str]


def known_site_section(found: KnownSite) -> KnownSiteSection:
    """The section of a report, ready for its template."""
    shown = shown_system(found)
    return KnownSiteSection(
        systems=system_rows(found),
        differences=difference_rows(found),
        metrics=list(KNOWN_SITE_METRICS.values()),
        shown=shown,
        effects=effect_rows(found, shown),
        findings=known_site_findings(found),
        guide=known_site_guide(found),
    )


def known_site_findings(found: KnownSite) -> list[Finding]:
    """What may be said: for each system whether the site helps, in order and in probability, and what it is worth without a photograph.

    As everywhere, a gain is claimed only where the interval lies on one side of 0, p is below 0.05 and, for mAP-class, the mean over folds
    agrees. The comparison is with the system recalibrated, which lacks nothing but the site; a change of order is not claimed where that
    with the system itself points the other way.
    """
    said = []
    for system, effects in found.effects.items():
        pair = told_and_not(system)
        if not any(effects.spreads):
            said.append(Finding(f"{system}: in no fold was a given site of any use beyond what the image told.", claimed=False))
            continue
        losses = compared(found, pair, "log_loss")
        ranks, claimed = _ranks(found, system)
        than = f" than those of {pair[1]}"
        sentence = f"{system}: told the site, it {ranks}. Its probabilities {_probabilities(losses, found, than)}."
        said.append(Finding(sentence, claimed=claimed or bool(_side(losses))))
    losses = compared(found, (BASELINES[1], BASELINES[0]), "log_loss")
    sentence = f"Without a photograph, when the share of a lesion at the site replaces its share overall, probabilities {_probabilities(losses, found)}."
    return [*said, Finding(sentence, claimed=bool(_side(losses)))]


def known_site_guide(found: KnownSite) -> list[str]:
    """How the numbers were made, and what they do not say."""
    told = "; ".join(_telling(name, effects) for name, effects in found.effects.items())
    two = [name for name, effects in found.effects.items() if effects.site_system not in {None, name}]
    networks = [
        f"{name}+site takes the site probabilities of {found.effects[name].site_system}, so it needs two networks for each photograph. A "
        f"bundle holds one: none gives {name}+site."
        for name in two
    ]
    return [
        (
            f"Only the {found.n_images:,} photographs of known site are scored here, with and without it, so the numbers differ from those "
            "of all photographs. What conditions a fold on the site was fitted on the other folds. Lesions with fewer than 10 positive or "
            "10 negative groups there stay as they are."
        ),
        (
            "A given site changes a lesion's log-odds by its effect there minus the effect expected of what was known of the site before: "
            "what the image told is not to be counted twice. How much of a site head's word the lesions' scores hold already, from 0 (then how "
            f"often each site occurs is all that was known) to 1, is chosen within the other folds. Here: {told}."
        ),
        *networks,
        (
            "What knows the site may also calibrate once more, on photographs of known site; how much, from nothing on, is chosen within the "
            "other folds. So gains by the site are judged against the system recalibrated: fitted alike to the same photographs, with the site "
            f"withheld. {_recalibrating(found)}"
        ),
        (
            "Calibration is part of the way, differs from fold to fold, and so moves pooled average precision by itself. The mean over folds is "
            "free of that. A better or worse order is not claimed where the difference from the system itself points the other way."
        ),
        (
            "Log-loss (nats) and the Brier score are means over lesions of their means over photographs; lower is better. prevalence and "
            "prevalence+site never saw a photograph."
        ),
    ]


def known_site_caption(system: str) -> str:
    """What stands under the figure."""
    return (
        f"What a given site does in {system}. Left, what it multiplies a lesion’s odds by, shrunk to 1 where the data say little, mean over "
        "folds; what was expected of the site before is divided out when it is applied. Right, the paired gain over the system "
        "recalibrated, without the site, with 95 % intervals; n counts photographs that show the lesion."
    )


def known_site_label(found: KnownSite, system: str) -> str:
    """What the figure shows, for those who do not see it."""
    rows = [row for row in effect_rows(found, system) if row.strongest][:3]
    strongest = "; ".join(f"{row.lesion}: {', '.join(row.strongest)}" for row in rows)
    return f"Effects of the site on the lesions of {system}, and what they bring. The strongest: {strongest or 'none'}."


def _telling(name: str, effects: SiteEffects) -> str:
    """Who told a system's site, and how much of it counted."""
    if effects.site_system is None:
        return f"{name} has no site head, and how often each site occurs is all that was known"
    head = "its own site head" if effects.site_system == name else effects.site_system
    fits = zip(effects.head_weights, effects.spreads, strict=True)
    weights = [f"{weight:g}" if spread else "not at all, the site being of no use," for weight, spread in fits]
    same = len(set(weights)) == 1
    return f"{name} by {head}, {f'{weights[0]} in every fold' if same else f'{listed(weights)} in the folds'}"


def _recalibrating(found: KnownSite) -> str:
    """In how many folds each system was calibrated once more."""
    folds = {name: [spread > 0 for spread in effects.recalibrations] for name, effects in found.effects.items()}
    if not any(map(any, folds.values())):
        return "Here nothing was calibrated once more in any fold, so that is the calibrated system."
    each = [f"{name} in {sum(did) or 'none'} of {len(did)} folds" for name, did in folds.items()]
    return f"Calibrated once more here: {'; '.join(each)}. In the other folds that is the calibrated system."


def _side(item: Comparison) -> int:
    """1 or -1 where the interval lies on one side of 0 and all else agrees; 0 where nothing is claimed."""
    if disagree(item.low, item.high, item.p):
        return 0
    values = [item.difference, item.low, item.high, *([] if item.fold_mean_difference is None else [item.fold_mean_difference])]
    signs = {0 if value is None else int(np.sign(value)) for value in values}
    return signs.pop() if len(signs) == 1 else 0


def _told(item: Comparison) -> str:
    folds = "" if item.fold_mean_difference is None else f"; fold mean {signed(item.fold_mean_difference)}"
    cell = difference_cell(item)
    doubt = f"; interval and p = {p_value(item.p)} disagree" if disagree(item.low, item.high, item.p) else ""
    return f"{cell.value} {cell.interval}".rstrip() + folds + doubt


def _ranks(found: KnownSite, system: str) -> tuple[str, bool]:
    """Whether the site changes the order, against the system recalibrated and against the system itself, and whether that is a claim."""
    with_site, without = told_and_not(system)
    item, plain = (compared(found, (with_site, other), "map_class") for other in (without, system))
    side, than = _side(item), f"than {without} without the site (mAP-class {_told(item)})"
    if side == 0:
        return f"is not shown to rank photographs better or worse {than}", False
    better = {1: "better", -1: "worse"}
    itself = f"{system} itself ({_told(plain)})"
    if shown_side(plain.low, plain.high, plain.p) == -side:
        return f"ranks photographs {better[side]} {than}, but {better[-side]} than {itself}, so neither is claimed", False
    if _side(plain) == side:
        return f"ranks photographs {better[side]} {than}, and than {itself}", True
    return f"ranks photographs {better[side]} {than}; against {itself} it is not shown", True


def _probabilities(item: Comparison, found: KnownSite, than: str = "") -> str:
    verb = {-1: f"are better{than}", 0: f"are not shown to be better or worse{than}", 1: f"are worse{than}"}
    before = found.systems[item.system_b].mean.log_loss
    share = "" if item.difference is None or not before else f", {100 * abs(item.difference) / before:.1f} % of {before:.4f}"
    return f"{verb[_side(item)]} (log-loss {_told(item)}{share})"
