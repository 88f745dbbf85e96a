"""The learning rate over the iterations: warm-up, cosine, and the paper's drops on a plateau."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from predilect.recipe import Recipe

__all__ = ["RateSchedule"]


class RateSchedule:
    """The learning rate of each iteration, and whether the training should end.

    Args:
        recipe: Gives rate, schedule, warm-up and what a plateau is.
        drops: Iterations after which the rate falls, for a refit that has no validation to find its own plateaus.
    """

    def __init__(self, recipe: Recipe, drops: Sequence[int] | None = None) -> None:
        self.recipe = recipe
        self.drops = list(drops or ())
        self.lowest = math.inf
        self.lowest_iteration = 0
        self.reference = math.inf  # the loss that the next one must beat by the threshold
        self.stale = 0  # validations since the last improvement
        self.stale_at_rate = 0  # of them, those since the rate last fell

    def rate(self, iteration: int) -> float:
        """The backbone's learning rate in an iteration, counted from 0."""
        recipe = self.recipe
        rate = recipe.learning_rate * min(1.0, (iteration + 1) / (recipe.warmup + 1))
        if recipe.schedule == "cosine":
            done = max(0, iteration - recipe.warmup) / (recipe.iterations - recipe.warmup)
            rate *= (1 + math.cos(math.pi * min(1.0, done))) / 2
        return rate * recipe.plateau_factor ** sum(iteration >= drop for drop in self.drops)

    def observe(self, iteration: int, loss: float) -> bool:
        """Take in a validation loss after so many iterations.

        Args:
            iteration: Iterations done.
            loss: The system's summed validation loss.

        Returns:
            Whether the training ends here: the last plateau was reached, or patience ran out.
        """
        recipe = self.recipe
        if loss < self.lowest:
            self.lowest, self.lowest_iteration = loss, iteration
        # A relative threshold, as PyTorch's ReduceLROnPlateau has it; the first validation always improves.
        if loss < self.reference * (1 - recipe.plateau_threshold) or math.isinf(self.reference):
            self.reference, self.stale, self.stale_at_rate = loss, 0, 0
            return False
        self.stale += 1
        self.stale_at_rate += 1
        if recipe.schedule == "plateau" and self.stale_at_rate >= recipe.plateau_patience:
            self.stale_at_rate = 0
            self.drops.append(iteration)
            if len(self.drops) >= recipe.plateaus:
                return True
        return 0 < recipe.patience <= self.stale

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as JSON values."""
        return {
            "drops": self.drops,
            "lowest": _finite(self.lowest),
            "lowest_iteration": self.lowest_iteration,
            "reference": _finite(self.reference),
            "stale": self.stale,
            "stale_at_rate": self.stale_at_rate,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.drops = list(state["drops"])
        self.lowest = math.inf if state["lowest"] is None else state["lowest"]
        self.lowest_iteration = state["lowest_iteration"]
        self.reference = math.inf if state["reference"] is None else state["reference"]
        self.stale, self.stale_at_rate = state["stale"], state["stale_at_rate"]


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value
