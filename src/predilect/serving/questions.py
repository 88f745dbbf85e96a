"""What the fields of a form ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from predilect.errors import nearest
from predilect.labels.tasks import LESION, SITE
from predilect.serving.problems import ProblemError
from predilect.serving.steps import Question, Wanted
from predilect.serving.uploads import Form, Upload

__all__ = [
    "MAX_NEIGHBOURS",
    "NEIGHBOURS",
    "attention_question",
    "one_file",
    "prediction_question",
    "similar_question",
    "some_files",
]

NEIGHBOURS = 5
MAX_NEIGHBOURS = 20

_BESIDE = ("attention", "similar", "sites")
_EVERY_TASK: Mapping[str, None] = {LESION: None, SITE: None}


def some_files(form: Form) -> tuple[Upload, ...]:
    """The files of a form's field ``files``, at least one.

    Raises:
        ProblemError: 422 if there is none, or files lie in another field.
    """
    return _files(form, "files")


def one_file(form: Form) -> tuple[Upload, ...]:
    """The one file of a form's field ``file``.

    Raises:
        ProblemError: 422 if there is not one, or files lie in another field.
    """
    found = _files(form, "file")
    if len(found) > 1:
        raise _wrong(f"One photograph is looked at, found {len(found)}.")
    return found


def prediction_question(form: Form) -> Question:
    """What a form asks for with ``site``, ``with`` and ``k``.

    Raises:
        ProblemError: 422 if a field is unknown or has a value that is not allowed.
    """
    fields = _checked(form, ("site", "with", "k"))
    beside = {item.strip() for value in fields.get("with", ()) for item in value.split(",")}
    for item in sorted(beside - set(_BESIDE)):
        raise _wrong(f"with = {item!r}: {nearest(item, _BESIDE)}")
    if "k" in fields and "similar" not in beside:
        raise _wrong("k counts similar photographs, and needs with = similar beside it.")
    return Question(
        site=_single(fields, "site"),
        maps=_EVERY_TASK if "attention" in beside else None,
        similar=Wanted(_number(fields)) if "similar" in beside else None,
        every_site="sites" in beside,
    )


def attention_question(form: Form) -> Question:
    """What a form asks for with ``task`` and any number of ``name``.

    Raises:
        ProblemError: 422 if a field is unknown or has a value that is not allowed.
    """
    fields = _checked(form, ("task", "name"))
    task, names = _single(fields, "task"), tuple(dict.fromkeys(fields.get("name", ())))
    if task is None:
        if names:
            raise _wrong("name needs task, lesion or site, beside it.")
        return Question(maps=_EVERY_TASK)
    if task not in _EVERY_TASK:
        raise _wrong(f"task = {task!r}: {nearest(task, _EVERY_TASK)}")
    return Question(maps={task: names or None})


def similar_question(form: Form) -> Question:
    """What a form asks for with ``k``, ``lesion`` and ``site``, which here is one that the photographs of the answer show.

    Raises:
        ProblemError: 422 if a field is unknown or has a value that is not allowed.
    """
    fields = _checked(form, ("k", "lesion", "site"))
    return Question(similar=Wanted(_number(fields), _single(fields, "lesion"), _single(fields, "site")))


def _files(form: Form, field: str) -> tuple[Upload, ...]:
    for name in form.files:
        if name != field:
            raise _wrong(f"The photographs belong into the field {field!r}, found {name!r}.")
    if field not in form.files:
        raise _wrong(f"There is no photograph: it belongs into the field {field!r}, with a file name.")
    return form.files[field]


def _checked(form: Form, allowed: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The fields that say something; a form on a page sends empty ones too."""
    for name in form.fields:
        if name not in allowed:
            raise _wrong(f"There is no field {name!r}: {nearest(name, allowed)}")
    said = {name: tuple(value for value in values if value.strip()) for name, values in form.fields.items()}
    return {name: values for name, values in said.items() if values}


def _single(fields: Mapping[str, tuple[str, ...]], name: str) -> str | None:
    values = fields.get(name, ())
    if len(values) > 1:
        raise _wrong(f"{name} is given {len(values)} times, once is allowed.")
    return values[0] if values else None


def _number(fields: Mapping[str, tuple[str, ...]]) -> int:
    told = _single(fields, "k")
    if told is None:
        return NEIGHBOURS
    if not (told.isascii() and told.isdecimal() and 1 <= int(told) <= MAX_NEIGHBOURS):
        raise _wrong(f"k = {told!r}: allowed are whole numbers from 1 to {MAX_NEIGHBOURS}.")
    return int(told)


def _wrong(detail: str) -> ProblemError:
    return ProblemError(422, detail, kind="wrong-field")
