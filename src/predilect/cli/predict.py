"""`predilect predict`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from predilect.atlas.given import GivenImages, given_images
from predilect.cli.show import console, counting, print_table
from predilect.cli.train import Flag
from predilect.errors import TableError
from predilect.files import write_text
from predilect.report.wording import UNDEFINED, listed, many
from predilect.tables import write_table

if TYPE_CHECKING:
    from predilect.serving.answers import CaseAnswer, LesionAnswer, PhotographAnswer
    from predilect.serving.files import Answered
    from predilect.serving.predictor import Predictor

__all__ = ["predict_command"]

_SHOWN = 3


def predict_command(
    bundle: Path,
    images: list[Path],
    /,
    *,
    site: str | None = None,
    case: Flag = False,
    tta: Literal["center", "ten-crop"] | None = None,
    format_: Annotated[Literal["table", "json", "csv", "parquet"], Parameter(name="--format")] = "table",
    out: Path | None = None,
    runtime: str = "torch",
) -> int:
    """Say of photographs which lesions they show and on which body site.

    Probabilities are calibrated where the bundle has a calibration; a lesion is called present where its probability reaches the
    threshold that was chosen for the bundle's aim. Beside that stand the lesions that cannot be excluded; an answer is unsure where none is present and
    some cannot be excluded. A photograph of nearly one colour is remarked on. One that cannot be used is named, the others go on, and the
    exit code is 1. Not a medical device: the bundle's card.md says what it may be used for.

    Example: `predilect predict runs/clinic/bundle photographs/ --site arm --format csv --out predictions.csv`

    Args:
        bundle: The bundle folder.
        images: Photographs, folders of photographs, and patterns such as 'photographs/**/*.jpg'.
        site: Where all of them were taken, if that is known: the lesions are conditioned on it.
        case: Answer for all photographs of a case together: those of each folder that is named are a case, and those that are named one by one.
            Of each lesion the highest probability counts, of the site the mean.
        tta: What is looked at of a photograph; by default what the bundle was calibrated with.
        format_: table for people; json as the API answers; csv or parquet in the form that evaluate reads, where image_id is the file's name without
            its ending, with its folders where names repeat, and what a reader must know of them goes to standard error.
        out: The file to write instead of printing; parquet needs one.
        runtime: What computes: torch, onnx with the model that `predilect export BUNDLE` made, or onnx=FILE with one elsewhere.
    """
    if format_ == "parquet" and out is None:
        raise TableError("--format parquet needs a file to write: --out FILE.parquet")
    if format_ == "table" and out is not None:
        raise TableError(f"--out {out}: a table for people is printed; to write a file, say --format json, csv or parquet")
    if out is not None and out.suffix != f".{format_}":
        raise TableError(f"--out {out}: a file of --format {format_} ends in .{format_}")
    given = given_images(images)

    from predilect.bundle import Bundle
    from predilect.serving.files import answer_cases, answer_files
    from predilect.serving.predictor import Predictor
    from predilect.serving.steps import Question

    predictor, question = Predictor.open(Bundle.open(bundle), runtime=runtime, views=tta, attention=False), Question(site=site)
    predictor.check(question)
    if console.quiet:  # of several processes one is enough
        return 0
    with counting("looking", beside=True) as tell:
        photographs = answer_files(predictor, list(given.files), question, on_progress=tell)
    said = _Said(
        photographs,
        answer_cases(predictor, photographs, given.files) if case else None,
        [
            *_notes(predictor),
            *_unshown(predictor, site, case=case),
            *_passed_over(given),
            *(_incomplete(photographs, given) if case else []),
        ],
    )
    _show(predictor, said, format_, out)
    failed = {path: reason for path, reason in photographs.items() if isinstance(reason, str)}
    for path, reason in failed.items():
        sys.stderr.write(f"error {path}: {reason}\n")
    return 1 if failed else 0


@dataclass(frozen=True, eq=False, slots=True)
class _Said:
    """What there is to show: answers to photographs and, if asked for, to cases, and what a reader must know of them."""

    photographs: Mapping[Path, PhotographAnswer | str]
    cases: Mapping[str, CaseAnswer | str] | None
    notes: Sequence[str]


def _notes(predictor: Predictor) -> list[str]:
    """What the bundle lacks, and what was fitted for another look at photographs."""
    notes, rule = predictor.caveats(), predictor.fitted.rule
    rare = [] if rule is None else [item.name for item in rule.calibration.lesions if item.curve is None]
    if rare:
        notes.append(f"Too rare to be calibrated and decided on: {listed(rare)}.")
    if rule is not None and rule.calibration.site is not None and rule.calibration.site.temperature is None:
        notes.append("The site's probabilities are not calibrated: too few groups have a known site.")
    return notes


def _unshown(predictor: Predictor, site: str | None, *, case: bool) -> list[str]:
    """Of what is asked, that for which thresholds and sets were not fitted."""
    rule = predictor.fitted.rule
    if rule is None or (rule.thresholds is None and rule.sets is None):
        return []
    fitted, unshown = "Thresholds and the bound of what cannot be excluded were fitted", "what they promise is not shown to hold"
    notes = [] if site is None else [f"{fitted} without a given site: {unshown} once one is given."]
    notes += [f"{fitted} on single photographs: {unshown} of a case, where each may add a false alarm."] if case else []
    return notes


def _passed_over(given: GivenImages) -> list[str]:
    if not given.n_others:
        return []
    return [f"Passed over in the folders, as no images by their names: {many(given.n_others, 'other file')}."]


def _incomplete(photographs: Mapping[Path, PhotographAnswer | str], given: GivenImages) -> list[str]:
    """Of which cases some photographs are missing; one of which all are has its own remark."""
    from predilect.serving.files import case_name

    unread: dict[str, list[bool]] = {}
    for path, answer in photographs.items():
        unread.setdefault(case_name(given.files[path]), []).append(isinstance(answer, str))
    return [
        f"Of {name}, {sum(missing)} of {many(len(missing), 'photograph')} could not be read: what only they show is not in the answer."
        for name, missing in unread.items()
        if any(missing) and not all(missing)
    ]


def _show(predictor: Predictor, said: _Said, format_: str, out: Path | None) -> None:
    """Print the answers, or write them into a file."""
    answers: dict[str, Answered] = {str(path): answer for path, answer in said.photographs.items()}
    if format_ == "json":
        _put(json.dumps(_as_json(predictor.bundle.model, answers, said), indent=2, ensure_ascii=False) + "\n", out)
        return
    if said.cases is not None:  # with those photographs that are in none of them
        answers = {**said.cases, **{name: answer for name, answer in answers.items() if isinstance(answer, str)}}
    if format_ == "table":
        _print_answers(answers, said, calibrated=predictor.fitted.rule is not None)
        for note in said.notes:
            console.print(f"note      {note}")
        return
    from predilect.serving.files import answer_table

    ids = {str(path): name for path, name in _image_ids(list(said.photographs)).items()}
    names = {name: ids.get(name, name) for name in answers}
    table = answer_table(predictor.bundle.labels, answers, names, predictor.fitted.calibration)
    for note in said.notes:  # a table has no place for them, and what is printed of it is read by programs
        sys.stderr.write(f"note      {note}\n")
    if out is None:
        sys.stdout.write(table.write_csv())
    else:
        write_table(table, out, TableError)
        console.print(f"answers   {out}")


def _print_answers(answers: Mapping[str, Answered], said: _Said, *, calibrated: bool) -> None:
    what = "photograph" if said.cases is None else "case"
    header = [what, "lesions", "cannot be excluded", "site", "remarks"]
    rows = []
    for name, answer in answers.items():
        if isinstance(answer, str):  # why a photograph is not read, its error line says, which is of any length
            rows.append([name, "", "", "", answer if said.cases is not None and name in said.cases else "not read"])
        else:
            rows.append([name, *_cells(answer)])
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    print_table("Probabilities" if calibrated else "Most probable, not calibrated", header, rows, words=header, paths=(what,))
    given = next((answer.given_site for answer in answers.values() if not isinstance(answer, str)), None)
    if given is not None:
        console.print(f"note      site given: {given}; in brackets what the probability is without the site")


def _put(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)
        console.print(f"answers   {out}")


def _as_json(model: str, photographs: Mapping[str, Answered], said: _Said) -> dict[str, Any]:
    def shown(answers: Mapping[str, Answered]) -> list[Any]:
        from pydantic import TypeAdapter

        return [
            {"name": name, "error": answer}
            if isinstance(answer, str)
            else TypeAdapter(type(answer)).dump_python(answer, mode="json")
            for name, answer in answers.items()
        ]

    together = {} if said.cases is None else {"cases": shown(said.cases)}
    return {"model": model, "results": shown(photographs), **together, "notes": list(said.notes)}


def _cells(answer: PhotographAnswer | CaseAnswer) -> tuple[str, str, str, str]:
    """Lesions, what cannot be excluded, site and remarks."""
    before = {item.name: item for item in answer.lesions_without_site or ()}
    shown = [item for k, item in enumerate(answer.lesions) if k < _SHOWN or item.decision]
    remarks = ["unsure"] if answer.unsure else []
    remarks += ["unlike the atlas's\nphotographs"] if answer.unfamiliar else []
    remarks += ["nearly one colour"] if answer.uniform else []
    places = [f"{place.probability:.2f} {place.name}" for place in answer.site[:_SHOWN]]
    lesions = "\n".join(_lesion(item, before.get(item.name)) for item in shown)
    return lesions, _possible(answer), "\n".join(places), "\n".join(remarks)


def _possible(answer: PhotographAnswer | CaseAnswer) -> str:
    """The set: what is in it or, where that is most lesions, how many are and which are not."""
    if answer.set is None:
        return UNDEFINED
    excluded = [item.name for item in answer.lesions if item.name not in answer.set]
    if not answer.set:
        return "none"
    if not excluded:
        return f"all {len(answer.lesions)}"
    if len(excluded) < len(answer.set):
        return f"{len(answer.set)} of {len(answer.lesions)}; excluded: {', '.join(excluded)}"
    return "\n".join(answer.set)


def _lesion(item: LesionAnswer, before: LesionAnswer | None) -> str:
    changed = before is not None and f"{before.probability:.2f}" != f"{item.probability:.2f}"
    without = f" ({before.probability:.2f})" if before is not None and changed else ""
    return f"{item.probability:.2f}{without} {item.name}" + (", present" if item.decision else "")


def _image_ids(paths: Sequence[Path]) -> dict[Path, str]:
    """An identifier for each file: as short as the files still differ in it."""
    shorter_first: tuple[Callable[[Path], str], ...] = (lambda path: path.stem, lambda path: str(path.with_suffix("")))
    distinct = dict.fromkeys(paths)
    for name in shorter_first:
        ids = {path: name(path) for path in distinct}
        if len(set(ids.values())) == len(ids):
            return ids
    return {path: str(path) for path in distinct}
