"""The paper's published numbers, for a report to show beside its own."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from predilect.evaluation.scores import Evaluation
from predilect.labels.rules import term_key
from predilect.labels.tasks import LESION
from predilect.report.wording import Estimate

__all__ = ["Published", "PublishedRow", "PublishedSystem", "published_frame", "published_rows", "published_table"]

_MEANS = ("map_class", "map_image")


class PublishedSystem(BaseModel):
    """What the paper printed for one system, each in [0, 1] with three decimals.

    Attributes:
        map_class: Mean over lesions of average precision (Eq. 9).
        map_image: Mean over photographs of average precision (Eq. 10).
        per_class: Average precision of each lesion, in the paper's order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    map_class: float = Field(ge=0, le=1)
    map_image: float = Field(ge=0, le=1)
    per_class: dict[str, float]


class Published(BaseModel):
    """Table 1 of the paper. Its numbers are those of another data set, so their height compares with nothing measured here.

    Attributes:
        reference: Where the numbers are printed.
        dataset: What they were measured on.
        n_images: Photographs in it.
        n_lesions: Lesion types in it.
        systems: By the name that the system has here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    reference: str
    dataset: str
    n_images: int
    n_lesions: int
    systems: dict[str, PublishedSystem]

    def lesion(self, system: str, name: str) -> float | None:
        """The average precision of a lesion, spelt in any case; None where the paper has not this system or lesion."""
        rows = {} if system not in self.systems else self.systems[system].per_class
        return next((value for lesion, value in rows.items() if term_key(lesion) == term_key(name)), None)

    def mean(self, system: str, metric: str) -> float | None:
        """A system's `map_class` or `map_image`; None where the paper has not this system, or not this mean."""
        scores = self.systems.get(system)
        return None if scores is None else {"map_class": scores.map_class, "map_image": scores.map_image}.get(metric)


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One of the paper's systems, or the difference of two of them, beside what was measured here.

    Attributes:
        name: The system, or ``a − b``.
        difference: Whether it is a difference.
        paper: `map_class` and `map_image` as printed, or the difference of the printed numbers.
        ours: The same here, each with its interval; without a value where there is no such system or comparison.
    """

    name: str
    difference: bool
    paper: tuple[float, float]
    ours: tuple[Estimate, Estimate]


def published_rows(evaluation: Evaluation, published: Published) -> list[PublishedRow]:
    """The two means of each of the paper's systems, and the differences of those pairs that were compared here too.

    Args:
        evaluation: What was scored.
        published: The paper's numbers.
    """
    means = {name: (scores.map_class, scores.map_image) for name, scores in published.systems.items()}
    rows = [PublishedRow(name, difference=False, paper=paper, ours=_measured(evaluation, name)) for name, paper in means.items()]
    compared = {
        (item.system_a, item.system_b, item.metric): Estimate(item.difference, item.low, item.high)
        for item in evaluation.comparisons
        if item.task == LESION and item.metric in _MEANS and {item.system_a, item.system_b} <= means.keys()
    }
    for a, b in dict.fromkeys((a, b) for a, b, _ in compared):
        paper = (means[a][0] - means[b][0], means[a][1] - means[b][1])
        ours = (compared[a, b, _MEANS[0]], compared[a, b, _MEANS[1]])
        rows.append(PublishedRow(f"{a} − {b}", difference=True, paper=paper, ours=ours))
    return rows


def _measured(evaluation: Evaluation, name: str) -> tuple[Estimate, Estimate]:
    scores = evaluation.systems[name].lesion if name in evaluation.systems else None
    if scores is None:
        return Estimate(None), Estimate(None)
    return (
        Estimate(scores.map_class, scores.map_class_low, scores.map_class_high),
        Estimate(scores.map_image, scores.map_image_low, scores.map_image_high),
    )


def published_table() -> Published:
    """Table 1 of Liao & Luo (AAAI-17 workshop), lesions named as the taxonomy preset ``dermquest`` names them.

    Examples:
        >>> table = published_table()
        >>> table.systems["mtl"].per_class["alopecia"], table.systems["resnet"].per_class["alopecia"]
        (0.843, 0.845)
    """
    table = tomllib.loads(resources.files("predilect.report").joinpath("published.toml").read_text(encoding="utf-8"))
    systems = {
        name: {
            "map_class": table["map_class"][column],
            "map_image": table["map_image"][column],
            "per_class": {lesion: row[column] for lesion, row in table["ap"].items()},
        }
        for column, name in enumerate(table["systems"])
    }
    whole = {name: table[name] for name in ("reference", "dataset", "n_images", "n_lesions")}
    return Published.model_validate({**whole, "systems": systems})


def published_frame(published: Published) -> pl.DataFrame:
    """The numbers one per row: columns `system`, `metric` (`map_class`, `map_image` or `ap`), `lesion` (null for a mean), `value`."""
    rows = [
        row
        for name, scores in published.systems.items()
        for row in (
            (name, "map_class", None, scores.map_class),
            (name, "map_image", None, scores.map_image),
            *((name, "ap", lesion, value) for lesion, value in scores.per_class.items()),
        )
    ]
    schema = {"system": pl.String, "metric": pl.String, "lesion": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")
