"""One training: batches in, chosen weights out, counted in iterations; it can be killed and resumed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric

from predilect.errors import RecipeError
from predilect.recipe import Recipe
from predilect.training.data import TrainingData
from predilect.training.stopping import held_signals
from predilect.training.trainer import Progress, Trainer
from predilect.vision.network import Network

__all__ = ["Fitted", "fit"]

_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_SECONDS_BETWEEN_TELLINGS = 1.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training ended; the network holds the chosen weights.

    Attributes:
        chosen_iteration: After how many iterations the weights are.
        iterations: Iterations done in all.
        drops: After which of them the rate fell.
        validation_loss: Of the chosen weights, where a validation was made there.
        seconds: Spent on it, validations included, over all stretches of a training that was resumed.
        images_per_second: Photographs trained on, by those seconds.
    """

    chosen_iteration: int
    iterations: int
    drops: tuple[int, ...]
    validation_loss: float | None
    seconds: float
    images_per_second: float


def fit(
    fabric: Fabric,
    network: Network,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    identity: str,
    drops: Sequence[int] | None = None,
    stop_at: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Train a network, going on from the checkpoint in `folder` where there is one.

    In a single process the first SIGINT or SIGTERM waits until the running step is done and its checkpoint written.

    Args:
        fabric: Gives device, precision and the other devices.
        network: With its starting weights; it ends with the chosen ones, in evaluation.
        data: What to learn from.
        recipe: How.
        seed: Decides order, augmentation and dropout.
        folder: Gets ``log.jsonl`` and ``checkpoint/state.safetensors``.
        identity: Hash of all that decides the training, kept in the checkpoint.
        drops: Iterations after which the rate falls, for a refit without validation.
        stop_at: End after so many iterations, for a refit; the schedule stays that of the recipe.
        on_progress: Told before the first step that is left, also if none is, after each log line, and about once a second between them.

    Raises:
        RunError: If the checkpoint cannot be used, or is missing though there is a log, or the loss is no longer finite.
        RecipeError: If a batch cannot be divided between the devices.
        PredilectError: If the folder cannot be written to.
    """
    if recipe.batch_size // recipe.accumulate < fabric.world_size:
        raise RecipeError(
            f"a part of a batch ({recipe.batch_size} / {recipe.accumulate}) is smaller than the {fabric.world_size} devices"
        )
    training = Trainer(fabric, network, data, recipe, seed=seed, folder=folder, identity=identity, drops=drops, stop_at=stop_at)
    training.resume()
    network.train()
    _drive(training, on_progress)
    state, schedule = training.state, training.schedule
    chosen, loss = state.iteration, state.validation_loss
    if training.best is not None:
        network.load_state_dict(training.best)
        chosen, loss = schedule.lowest_iteration, schedule.lowest
    elif training.average is not None:
        network.load_state_dict(training.average.network.state_dict())
    network.eval()
    speed = state.iteration * recipe.batch_size / state.seconds
    return Fitted(chosen, state.iteration, tuple(schedule.drops), loss, round(state.seconds, 2), round(speed, 2))


def _drive(training: Trainer, on_progress: Callable[[Progress], None] | None) -> None:
    """Take the steps that are left, with validations, log lines and checkpoints in between."""
    state, recipe = training.state, training.recipe
    has_validation = len(training.data.validation_rows) > 0
    start, begun, saved = state.iteration, time.perf_counter(), time.perf_counter()
    told = begun
    at_end = stop = False
    if on_progress is not None:
        on_progress(training.standing(0.0))
    # Of several processes each would stop after a step of its own: there the last checkpoint must do.
    with held_signals(hold=training.fabric.world_size == 1) as asked_to_stop:
        for parts in training.remaining():
            training.step(parts)
            at_end = state.iteration == training.stop_at
            validates = has_validation and (state.iteration % recipe.validate_every == 0 or at_end)
            logs = validates or at_end or state.iteration % training.log_every == 0
            # Log lines may be many minutes apart, and a person watches.
            if logs or (on_progress is not None and time.perf_counter() - told >= _SECONDS_BETWEEN_TELLINGS):
                rate = (state.iteration - start) * recipe.batch_size / (time.perf_counter() - begun)
                progress = training.log(training.validate() if validates else None, rate) if logs else training.standing(rate)
                if on_progress is not None:
                    on_progress(progress)
                    told = time.perf_counter()
            stop = asked_to_stop()
            if stop or state.ended or at_end or time.perf_counter() - saved >= _SECONDS_BETWEEN_CHECKPOINTS:
                training.save()
                saved = time.perf_counter()
            if state.ended or stop:
                break
    if stop and not (state.ended or at_end):
        raise KeyboardInterrupt  # whoever took the signal only took note of it
