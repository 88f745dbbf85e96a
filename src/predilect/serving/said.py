"""From probabilities to what is said of a photograph or a case: lesions with decisions, sites, the set, and whether it is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predilect.evaluation.answers import AnswerRule, Answers
from predilect.evaluation.case import combine_case
from predilect.labels.tasks import LESION, SITE, LabelSpace
from predilect.serving.answers import CaseAnswer, LesionAnswer, PhotographAnswer, SiteAnswer
from predilect.serving.steps import Scores

__all__ = ["Said", "combined", "say", "thresholds_of"]


@dataclass(frozen=True, slots=True)
class Said:
    """The part of an answer that photographs and cases have in common; see `serving.answers.PhotographAnswer`."""

    lesions: list[LesionAnswer]
    site: list[SiteAnswer]
    lesions_without_site: list[LesionAnswer] | None
    set: list[str] | None
    unsure: bool | None


def say(labels: LabelSpace, rule: AnswerRule | None, scores: Scores, probabilities: Scores, without_site: Scores | None) -> Said:
    """Put into words what is known of one photograph or case.

    Args:
        labels: The classes.
        rule: Decides; None: nothing is decided.
        scores: (1, C) by task, as the network gave them.
        probabilities: (1, C) by task: calibrated, and with a given site taken into account.
        without_site: The same without the given site; None where none was given.
    """
    answers = _answers(rule, probabilities)
    lesions = _lesions(labels, rule, scores, answers)
    found = None if answers.possible is None else set(np.array(labels[LESION].classes)[answers.possible[0]].tolist())
    return Said(
        lesions=lesions,
        site=_sites(labels, probabilities),
        lesions_without_site=None if without_site is None else _lesions(labels, rule, scores, _answers(rule, without_site)),
        set=None if found is None else [item.name for item in lesions if item.name in found],
        unsure=None if answers.unsure is None else bool(answers.unsure[0]),
    )


def combined(labels: LabelSpace, rule: AnswerRule | None, name: str, answers: Sequence[PhotographAnswer]) -> CaseAnswer:
    """Answer for a case; see `evaluation.case` for how and why.

    Args:
        labels: The classes.
        rule: That made the answers.
        name: Of the case.
        answers: To its photographs, at least one, all with the same given site or all without.
    """

    def of_all(lesions: Sequence[Sequence[LesionAnswer]], what: str) -> dict[str, np.ndarray]:
        found = {}
        if LESION in labels:
            rows = [{item.name: getattr(item, what) for item in row} for row in lesions]
            found[LESION] = np.array([[row[name] for name in labels[LESION].classes] for row in rows])
        if SITE in labels:
            told = [{item.name: item.probability for item in answer.site} for answer in answers]
            found[SITE] = np.array([[row[name] for name in labels[SITE].classes] for row in told])
        return found

    with_site = [answer.lesions for answer in answers]
    plain = [answer.lesions_without_site for answer in answers if answer.lesions_without_site is not None]
    said = say(
        labels,
        rule,
        combine_case(of_all(with_site, "score")),
        combine_case(of_all(with_site, "probability")),
        combine_case(of_all(plain, "probability")) if plain else None,
    )
    told = [answer.unfamiliar for answer in answers if answer.unfamiliar is not None]
    return CaseAnswer(
        name=name,
        photographs=[answer.name for answer in answers],
        lesions=said.lesions,
        site=said.site,
        given_site=answers[0].given_site,
        lesions_without_site=said.lesions_without_site,
        set=said.set,
        unsure=said.unsure,
        unfamiliar=any(told) if told else None,
        uniform=any(answer.uniform for answer in answers),
    )


def thresholds_of(labels: LabelSpace, rule: AnswerRule | None) -> dict[str, float | None]:
    """By lesion, from which probability it counts as present; None where nothing is decided."""
    if rule is None or rule.thresholds is None:
        return dict.fromkeys(labels[LESION].classes if LESION in labels else ())
    return {item.name: item.threshold for item in rule.thresholds.lesions}


def _answers(rule: AnswerRule | None, probabilities: Scores) -> Answers:
    return Answers(probabilities, None, None, None) if rule is None else rule.answer(probabilities)


def _lesions(labels: LabelSpace, rule: AnswerRule | None, scores: Scores, answers: Answers) -> list[LesionAnswer]:
    if LESION not in labels:
        return []
    names, thresholds = labels[LESION].classes, thresholds_of(labels, rule)
    decided = [-1] * len(names) if answers.decided is None else answers.decided[0].tolist()
    probabilities = answers.probabilities[LESION][0]
    return [
        LesionAnswer(
            name=names[k],
            probability=float(probabilities[k]),
            score=float(scores[LESION][0, k]),
            decision=None if decided[k] < 0 else decided[k] == 1,
            threshold=thresholds[names[k]],
        )
        for k in (-probabilities).argsort(kind="stable").tolist()
    ]


def _sites(labels: LabelSpace, probabilities: Scores) -> list[SiteAnswer]:
    if SITE not in probabilities:
        return []
    names, values = labels[SITE].classes, probabilities[SITE][0]
    return [SiteAnswer(names[k], min(1.0, float(values[k]))) for k in (-values).argsort(kind="stable").tolist()]
