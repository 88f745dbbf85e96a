"""Findings on attention and retrieval in words: what may be said of these numbers, and what they do not cover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from predilect.evaluation.attention_scores import (
    AttentionEvaluation,
    CoincidenceGain,
    CurveComparison,
    HeadAttention,
    Randomisation,
    SystemAttention,
)
from predilect.evaluation.group_means import GroupMean
from predilect.evaluation.insight import Insight
from predilect.evaluation.retrieval_summary import RetrievalComparison, RetrievalEvaluation
from predilect.report.wording import Finding, disagree, interval, listed, number, shown_side, weakened

__all__ = [
    "MEASURE_TITLES",
    "attention_findings",
    "attention_label",
    "chance_overlap",
    "coincidence_label",
    "explained_heads",
    "insight_guide",
    "map_findings",
    "retrieval_findings",
    "retrieval_label",
]

MEASURE_TITLES: Mapping[str, str] = {
    "lesion_precision_at_5": "lesion precision@5",
    "lesion_map_at_r": "lesion mAP@R",
    "ndcg_at_5": "lesion nDCG@5",
    "ndcg": "lesion nDCG",
    "site_precision_at_5": "site precision@5",
    "site_map_at_r": "site mAP@R",
}
"""What each measure of retrieval is called, in the order of tables and figures."""

_BASELINES: Mapping[str, str] = {"random": "random maps", "gaussian": "the middle of the photograph"}
_FEW_CELLS = 25  # of fewer the top 20 % are less than five


def attention_findings(attention: AttentionEvaluation) -> list[Finding]:
    """What may be said of where the networks look, and of which lesions they look where they look for the site."""
    found = [item for name, system in attention.systems.items() for item in _coinciding(name, system, attention)]
    coarse = {name: system.cells for name, system in attention.systems.items() if system.cells[0] * system.cells[1] < _FEW_CELLS}
    for rows, columns in dict.fromkeys(coarse.values()):
        names = listed([name for name, cells in coarse.items() if cells == (rows, columns)])
        found.append(
            Finding(f"The maps of {names} have {rows} × {columns} cells only, too few to tell places well apart.", claimed=False)
        )
    found += [Finding(f"{name} has no attention maps: {reason}.", claimed=False) for name, reason in attention.unexplained.items()]
    return found


def map_findings(attention: AttentionEvaluation) -> list[Finding]:
    """Whether the maps of each head are true.

    For the curves a claim needs a 95 % interval that lies wholly on one side of 0, and a p below 0.05; for random weights an interval
    that lies above that of unrelated maps.
    """
    found = []
    for name, task, head in explained_heads(attention):
        found.append(_perturbed(f"{name}, maps of the {task}", head.perturbation.comparisons))
        found.append(_randomised(f"{name}, maps of the {task}", head.randomisation))
    return found


def _perturbed(what: str, comparisons: Sequence[CurveComparison]) -> Finding:
    """Whether maps point at what counts: in deletion the area is smaller than a baseline's, in insertion larger."""
    sides = {1: "more", -1: "less", 0: "unclear"}
    judged: dict[str, list[CurveComparison]] = {side: [] for side in sides.values()}
    for item in comparisons:
        sign = -1 if item.curve == "deletion" else 1
        judged[sides[sign * shown_side(item.difference.low, item.difference.high, item.difference.p)]].append(item)
    named = {side: _against(found) for side, found in judged.items() if found}
    doubtful = [item for item in comparisons if disagree(item.difference.low, item.difference.high, item.difference.p)]
    why = f"; interval and p disagree against {_against(doubtful)}" if doubtful else ""
    said = [f"{side} than {named[side]} would" for side in ("more", "less") if side in named]
    if not said:
        return Finding(f"{what}: not shown to point at what counts any better than {named['unclear']}{why}.", claimed=False)
    rest = f"; not shown to differ from {named['unclear']}" if "unclear" in named else ""
    return Finding(f"{what} point at what counts {' and '.join(said)}{rest}{why}.", claimed=True)


def _against(comparisons: Sequence[CurveComparison]) -> str:
    """The baselines, each with the curves in which it is meant."""
    curves: dict[str, list[str]] = {}
    for item in comparisons:
        curves.setdefault(_BASELINES[item.baseline], []).append(item.curve)
    return listed([f"{name} ({listed(found)})" for name, found in curves.items()])


def _randomised(what: str, found: Randomisation) -> Finding:
    absolute, unrelated = found.absolute, found.unrelated
    numbers = (
        f"rank correlation without its sign {_estimate(absolute)}, between maps of different photographs {_estimate(unrelated)}"
    )
    if absolute.low is None or unrelated.low is None or absolute.high is None or unrelated.high is None:
        return Finding(f"{what}, random weights: {numbers}; nothing is claimed.", claimed=False)
    if absolute.low > unrelated.high:
        return Finding(
            f"{what}, random weights: these give maps more like the trained ones than those of different photographs are like each other "
            f"({numbers}), so that part of what the maps show was not learned.",
            claimed=True,
        )
    return Finding(
        f"{what}, random weights: not shown to give maps more like the trained ones than those of different photographs are like each "
        f"other ({numbers}).",
        claimed=False,
    )


def _coinciding(name: str, system: SystemAttention, attention: AttentionEvaluation) -> Iterator[Finding]:
    if system.coincidence is None:
        return
    limits = (
        f"mean correlation at least {attention.shortcut_correlation:g} and mean overlap at least {attention.shortcut_overlap:g}"
    )
    same = [item.lesion for item in system.coincidence.lesions if item.shortcut]
    if same:
        yield Finding(f"{name}: the maps of lesion and site are nearly the same ({limits}) for {listed(same)}.", claimed=True)
    else:
        yield Finding(
            f"{name}: for no lesion are its map and the site's nearly the same ({limits}, in at least 10 groups).", claimed=False
        )
    for gain in system.coincidence.gains:
        yield _set_against_gain(gain)


def _set_against_gain(gain: CoincidenceGain) -> Finding:
    r, low, high = gain.rank_correlation, gain.rank_correlation_low, gain.rank_correlation_high
    told = f"{gain.system_a} − {gain.system_b}, {len(gain.lesions)} lesions"
    if r is None or low is None or high is None:
        return Finding(f"{told}: gain and coincidence of maps cannot be compared, for too few lesions.", claimed=False)
    numbers = f"(rank correlation {number(r)}, 95 % interval {number(low)} to {number(high)})"
    said = f"lesions whose maps coincide with the site's gain {'more' if low > 0 else 'less'} {numbers}."
    if low <= 0 <= high:
        said = f"it is not shown that lesions whose maps coincide with the site's gain less, nor that they gain more {numbers}."
    return Finding(" ".join([f"{told}: {said}", *weakened(r, low, high)]), claimed=not low <= 0 <= high)


def retrieval_findings(retrieval: RetrievalEvaluation) -> list[Finding]:
    """For each pair of systems in which measures one is better.

    A claim needs a 95 % interval that lies wholly on one side of 0, and a p below 0.05.
    """
    pairs = dict.fromkeys((item.system_a, item.system_b) for item in retrieval.comparisons)
    return [_compared(a, b, [item for item in retrieval.comparisons if (item.system_a, item.system_b) == (a, b)]) for a, b in pairs]


def _compared(a: str, b: str, items: Sequence[RetrievalComparison]) -> Finding:
    winners = {1: a, -1: b, 0: ""}
    judged: dict[str, list[str]] = {a: [], b: [], "": []}
    for item in items:
        judged[winners[shown_side(item.low, item.high, item.p)]].append(MEASURE_TITLES[item.measure])
    doubtful = [MEASURE_TITLES[item.measure] for item in items if disagree(item.low, item.high, item.p)]
    why = f" (interval and p disagree in {listed(doubtful)})" if doubtful else ""
    won = [f"{name} is better than {other} in {listed(judged[name])}" for name, other in ((a, b), (b, a)) if judged[name]]
    if not won:
        return Finding(f"No winner is claimed between {a} and {b}{why}.", claimed=False)
    rest = f"; no winner is claimed in {listed(judged[''])}{why}" if judged[""] else ""
    return Finding(f"{'; '.join(won)}{rest}.", claimed=True)


def explained_heads(attention: AttentionEvaluation) -> list[tuple[str, str, HeadAttention]]:
    """System, task and checks of each head whose maps were checked."""
    return [(name, task, head) for name, system in attention.systems.items() for task, head in system.heads.items()]


def chance_overlap(attention: AttentionEvaluation) -> str:
    """How much two maps that know nothing of each other overlap, for each number of cells of systems with two heads; nothing without any."""
    found = {
        system.cells: f"{number(system.overlap_by_chance)} for maps of {system.cells[0]} × {system.cells[1]} cells"
        for system in attention.systems.values()
        if system.coincidence is not None
    }
    return listed(list(found.values())) if found else ""


def attention_label(attention: AttentionEvaluation) -> str:
    """The figure of deletion and insertion for those who do not see it."""
    said = [
        f"{name}, {task}: deletion {number(maps['map'].deletion_area.value)} against {number(maps['random'].deletion_area.value)} in a "
        f"random order, insertion {number(maps['map'].insertion_area.value)} against {number(maps['random'].insertion_area.value)}"
        for name, task, head in explained_heads(attention)
        for maps in [head.perturbation.maps]
    ]
    return f"Areas under the curves. {'; '.join(said)}."


def coincidence_label(attention: AttentionEvaluation) -> str:
    """The figure of coincidence for those who do not see it."""
    said = [
        f"{name}: mean correlation {number(system.coincidence.correlation.value)}, mean overlap {number(system.coincidence.overlap.value)} "
        f"(by chance {number(system.overlap_by_chance)})"
        for name, system in attention.systems.items()
        if system.coincidence is not None
    ]
    return f"Coincidence of the maps of lesions and sites. {'; '.join(said)}. The numbers are in the table of maps."


def retrieval_label(retrieval: RetrievalEvaluation) -> str:
    """The figure of retrieval for those who do not see it."""
    said = [
        f"{name} {number(scores.lesion_precision_at_5.value)} by lesion and {number(scores.site_precision_at_5.value)} by site"
        for name, scores in retrieval.systems.items()
    ]
    return f"Retrieval of alike photographs. Precision at 5: {'; '.join(said)}. The numbers are in the table of retrieval."


def insight_guide(insight: Insight) -> list[str]:
    """How the numbers of attention and retrieval were made, and what they do not cover."""
    attention, retrieval = insight.attention, insight.retrieval
    guide = [
        (
            f"Retrieval: each fold's own network embeds its {retrieval.n_queries:,} tested photographs in all and those of the other "
            f"folds, which answer, nearest first by Euclidean distance; those of the query's own group never do. precision@{retrieval.top} "
            "is the share of the first that show a lesion (are of the site) of the query; mAP@R the mean over the R alike ones, where R are "
            "looked at, of the precision up to each; nDCG weighs each photograph by the Jaccard index of the two sets of lesions. What is "
            "not known of a photograph is not judged. Intervals cover the sampling of queries, not that of the photographs that answer."
        ),
    ]
    if attention.systems:
        guide.append(
            "Attention maps tell on which places a score rests, not why, and nothing of whether it is right. Whether two of them coincide is "
            "seen on the centre crop, of each lesion that a photograph is known to show, and of its site, or where that is not known the "
            "predicted one. Two maps that coincide may mean a shortcut, or that lesion and site are seen at the same place, as a lesion that "
            "fills the photograph is."
        )
    if any(system.heads for system in attention.systems.values()):
        guide.append(
            f"Deletion, insertion and random weights were tried on {attention.sample:,} tested photographs, the same for each system, with the "
            "class that the network predicts: deletion and insertion on the whole photograph, random weights on its centre crop. A photograph with places blurred is like none that the network knows: the areas compare "
            "orders of the same places with each other and mean nothing by themselves."
        )
    return guide


def _estimate(mean: GroupMean) -> str:
    return f"{number(mean.value)} {interval(mean.low, mean.high)}".rstrip()
