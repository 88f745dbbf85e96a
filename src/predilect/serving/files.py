"""Files answered as uploads are: the same pixels, the same network, the same words; and what is said of them as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from predilect.evaluation.calibration import Calibration
from predilect.labels.tasks import LESION, SITE, LabelSpace
from predilect.serving.answers import CaseAnswer, PhotographAnswer
from predilect.serving.predictor import Predictor
from predilect.serving.steps import Question

__all__ = ["Answered", "answer_cases", "answer_files", "answer_table", "case_name"]

Answered = PhotographAnswer | CaseAnswer | str
"""An answer, or why there is none."""

_AT_ONCE = 16  # photographs before the network; no more are held in memory


def answer_files(
    predictor: Predictor, files: Sequence[Path], question: Question, *, on_progress: Callable[[int, int], None] | None = None
) -> dict[Path, PhotographAnswer | str]:
    """Answer for each image file, or say why it cannot be used; the others go on.

    Args:
        predictor: What answers.
        files: Image files of any kind, each once.
        question: One that passes `Predictor.check`.
        on_progress: Told how many files are done.
    """
    answers: dict[Path, PhotographAnswer | str] = {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            prepared = dict(zip(some, pool.map(predictor.prepare_file, some), strict=True))
            usable = {path: item for path, item in prepared.items() if not isinstance(item, str)}
            seen = dict(zip(usable, predictor.observe(list(usable.values())), strict=True)) if usable else {}
            for path, item in prepared.items():
                answers[path] = item if isinstance(item, str) else predictor.answer(item, seen[path], question)
            if on_progress is not None:
                on_progress(len(answers), len(files))
    return answers


def case_name(folder: Path | None) -> str:
    """What the case is called that a photograph belongs to, by the folder that was named for it; None: it was named itself."""
    return "case" if folder is None else str(folder)


def answer_cases(
    predictor: Predictor, answers: Mapping[Path, PhotographAnswer | str], folders: Mapping[Path, Path | None]
) -> dict[str, CaseAnswer | str]:
    """Put the answers to the photographs of each case together.

    Args:
        predictor: That gave them.
        answers: To each photograph, or why there is none.
        folders: For each photograph the folder that was named, which is its case; None: those that were named one by one are a
            case together.

    Returns:
        By the folder, or ``case``; a reason where none of a case's photographs can be used.
    """
    members: dict[str, list[PhotographAnswer | str]] = {}
    for path, answer in answers.items():
        folder = folders[path]
        members.setdefault(case_name(folder), []).append(answer)
    found: dict[str, CaseAnswer | str] = {}
    for name, all_of_it in members.items():
        usable = [answer for answer in all_of_it if not isinstance(answer, str)]
        found[name] = predictor.answer_case(name, usable) if usable else "none of its photographs can be used"
    return found


def answer_table(
    labels: LabelSpace, answers: Mapping[str, Answered], image_ids: Mapping[str, str], calibration: Calibration | None
) -> pl.DataFrame:
    """One row for each photograph or case, in the form of a predictions table with more columns.

    Args:
        labels: The classes.
        answers: By name.
        image_ids: For each name what stands in ``image_id``.
        calibration: That the answers were made with; None: there is none.

    Returns:
        Columns ``image_id``, ``name``, ``error`` (null where there is an answer), the label columns (null where there is none), ``given_site``,
        ``present`` and ``set`` (lesions joined by ``;``, null where nothing is decided), ``not_decided`` (lesions that are neither present
        nor absent), ``not_calibrated`` (lesions whose number is the network's score), ``site_calibrated`` (null where no site is
        predicted), ``unsure``, ``unfamiliar``, ``uniform``.
    """

    def covered(task: str, name: str) -> bool:
        return calibration is not None and calibration.covers(task, name)

    rows = []
    for name, answer in answers.items():
        row: dict[str, object] = {"image_id": image_ids[name], "name": name}
        if isinstance(answer, str):
            rows.append({**row, "error": answer})
            continue
        row |= {f"{LESION}/{item.name}": item.probability for item in answer.lesions}
        row |= {f"{SITE}/{item.name}": item.probability for item in answer.site}
        decided = [item for item in answer.lesions if item.decision is not None]
        rows.append(
            {
                **row,
                "given_site": answer.given_site,
                "present": ";".join(item.name for item in decided if item.decision) if decided else None,
                "set": None if answer.set is None else ";".join(answer.set),
                "not_decided": ";".join(item.name for item in answer.lesions if item.decision is None),
                "not_calibrated": ";".join(item.name for item in answer.lesions if not covered(LESION, item.name)),
                "site_calibrated": all(covered(SITE, item.name) for item in answer.site) if answer.site else None,
                "unsure": answer.unsure,
                "unfamiliar": answer.unfamiliar,
                "uniform": answer.uniform,
            }
        )
    text, flag = pl.String(), pl.Boolean()
    schema = {
        **dict.fromkeys(("image_id", "name", "error"), text),
        **dict.fromkeys(labels.columns, pl.Float32()),
        **dict.fromkeys(("given_site", "present", "set", "not_decided", "not_calibrated"), text),
        **dict.fromkeys(("site_calibrated", "unsure", "unfamiliar", "uniform"), flag),
    }
    return pl.DataFrame(rows, schema=schema)
