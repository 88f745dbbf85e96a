"""What a photograph is labelled with: a task and its classes, and the tasks of an atlas together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from predilect.errors import LabelError, nearest

__all__ = ["LESION", "SITE", "LabelSpace", "Task", "TaskKind", "split_column"]

LESION = "lesion"
SITE = "site"

TaskKind = Literal["multilabel", "multiclass"]

_KINDS: Mapping[str, TaskKind] = {LESION: "multilabel", SITE: "multiclass"}


@dataclass(frozen=True, slots=True)
class Task:
    """One question asked of a photograph, with its possible answers.

    Attributes:
        name: ``"lesion"`` (multilabel: any number of classes hold) or ``"site"`` (multiclass: exactly one holds).
        classes: Class names in the order of every array axis and table column; no ``;``, not ``none``, no blanks at the ends.
        machine: Those classes whose labels a model made rather than a person; they stay out of headline means.

    Raises:
        LabelError: If a name is empty, used twice or not allowed.
    """

    name: str
    classes: tuple[str, ...]
    machine: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.name not in _KINDS:
            raise LabelError(f"unknown task {self.name!r}: {nearest(self.name, _KINDS)}")
        if not self.classes:
            raise LabelError(f"task {self.name!r} has no classes")
        seen: set[str] = set()
        for item in self.classes:
            if not item or item != item.strip() or ";" in item or item.lower() == "none" or not item.isprintable():
                raise LabelError(f"{item!r} cannot be a {self.name} class: names are not empty, not 'none', and hold no ';'")
            if item in seen:
                raise LabelError(f"{self.name} class {item!r} is named twice")
            seen.add(item)
        for item in sorted(self.machine - seen):
            raise LabelError(f"machine-made {self.name} class {item!r} is not a class: {nearest(item, self.classes)}")

    @property
    def kind(self) -> TaskKind:
        """Whether several classes may hold at once (``multilabel``) or exactly one (``multiclass``)."""
        return _KINDS[self.name]

    @property
    def columns(self) -> tuple[str, ...]:
        """Table columns of the task, ``<task>/<class>``, in class order."""
        return tuple(f"{self.name}/{item}" for item in self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def index(self, name: str) -> int:
        """Position of a class on the class axis.

        Raises:
            LabelError: If there is no such class.
        """
        try:
            return self.classes.index(name)
        except ValueError:
            raise LabelError(f"unknown {self.name} {name!r}: {nearest(name, self.classes)}") from None


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The tasks of an atlas, lesion before site.

    Attributes:
        tasks: At least one task, each name at most once, in the fixed order lesion, site.
    """

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names:
            raise LabelError("a label space needs at least one task")
        if names != [name for name in _KINDS if name in names]:
            raise LabelError(f"tasks must be in the order {', '.join(_KINDS)}, each at most once; found {', '.join(names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Task names in order."""
        return tuple(task.name for task in self.tasks)

    @property
    def columns(self) -> tuple[str, ...]:
        """Table columns of all tasks in order."""
        return tuple(column for task in self.tasks for column in task.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Task:
        for task in self.tasks:
            if task.name == name:
                return task
        raise LabelError(f"there is no task {name!r} here: {nearest(name, self.names)}")

    def restricted_to(self, names: Iterable[str]) -> Self:
        """The same label space with only the named tasks, as a single-task system sees it.

        Raises:
            LabelError: If a name is not a task of this label space.
        """
        wanted = {self[name].name for name in names}
        return type(self)(tuple(task for task in self.tasks if task.name in wanted))

    @classmethod
    def from_columns(cls, columns: Sequence[str], machine: Iterable[str] = ()) -> Self:
        """Read the label space off table columns ``<task>/<class>``, split at the first slash.

        Args:
            columns: Label columns only, in class order.
            machine: Columns among them whose labels are machine-made.

        Raises:
            LabelError: If a column is not of that form or names an unknown task.
        """
        classes: dict[str, list[str]] = {}
        for column in columns:
            task, name = split_column(column)
            classes.setdefault(task, []).append(name)
        marked: dict[str, set[str]] = {}
        for column in machine:
            task, name = split_column(column)
            if name not in classes.get(task, []):
                raise LabelError(f"machine-made column {column!r} is not among the label columns: {nearest(column, columns)}")
            marked.setdefault(task, set()).add(name)
        return cls(
            tuple(
                Task(name, tuple(classes[name]), frozenset(marked.get(name, ())))
                for name in (*(name for name in _KINDS if name in classes), *sorted(set(classes) - set(_KINDS)))
            )
        )

    def to_json(self) -> dict[str, dict[str, list[str]]]:
        """The label space as plain JSON values; `from_json` reads it back."""
        return {task.name: {"classes": list(task.classes), "machine": sorted(task.machine)} for task in self.tasks}

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, Sequence[str]]]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            LabelError: If the names in it are not allowed.
        """
        return cls(tuple(Task(name, tuple(item["classes"]), frozenset(item["machine"])) for name, item in value.items()))


def split_column(column: str) -> tuple[str, str]:
    """Split a label column at its first slash: ``"lesion/erosion/ulcer"`` is class ``"erosion/ulcer"`` of task ``"lesion"``.

    Raises:
        LabelError: If there is no slash or a side of it is empty.
    """
    task, slash, name = column.partition("/")
    if not (task and slash and name):
        raise LabelError(f"{column!r} is not a label column: it must be <task>/<class>")
    return task, name
