"""What the report of a run shows beside the systems that were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from predilect.errors import RecipeError

__all__ = ["ENSEMBLES", "Ensemble", "ReportPlan", "check_members"]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Systems whose lesion scores are put together, photograph by photograph.

    Attributes:
        members: Names of trained systems.
        rule: The element-wise maximum or mean of their scores.
    """

    members: tuple[str, ...]
    rule: Literal["max", "mean"]


ENSEMBLES: Mapping[str, Ensemble] = {
    "ensemble": Ensemble(("resnet", "mtl"), "max"),
    "ensemble-mean": Ensemble(("resnet", "mtl"), "mean"),
}
"""The paper's ensemble of its two ResNet-50s ("the best evaluation scores"), and the mean beside it."""


def check_members(names: Sequence[str]) -> None:
    """Make sure that each ensemble among the names has its members among them.

    Raises:
        RecipeError: If one has not.
    """
    for name in names:
        missing = [member for member in ENSEMBLES[name].members if member not in names] if name in ENSEMBLES else []
        if missing:
            raise RecipeError(
                f"{name} is put together from {' and '.join(ENSEMBLES[name].members)}: name {' and '.join(missing)}, too"
            )


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """What is computed from the trained systems, and what is said of them.

    Attributes:
        ensembles: Names out of `ENSEMBLES`.
        pairs: (system, baseline) that are compared; None: each system with every one before it.
        beside_paper: Whether the paper's own numbers stand beside.
        notes: Sentences that the report begins with.
    """

    ensembles: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] | None = None
    beside_paper: bool = False
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "ensembles": list(self.ensembles),
            "pairs": None if self.pairs is None else [list(pair) for pair in self.pairs],
            "beside_paper": self.beside_paper,
            "notes": list(self.notes),
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """The plan that `record` returned."""
        pairs = record["pairs"]
        return cls(
            tuple(record["ensembles"]),
            None if pairs is None else tuple((a, b) for a, b in pairs),
            record["beside_paper"],
            tuple(record["notes"]),
        )

    def in_order(self, systems: Sequence[str]) -> list[str]:
        """The systems with each ensemble after the last of its members, as the paper's Table 1 has them."""
        names: list[str] = []
        for system in systems:
            names.append(system)
            names += [name for name in self.ensembles if name not in names and set(ENSEMBLES[name].members) <= set(names)]
        return names
