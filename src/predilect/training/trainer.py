"""What one training is made of: network, optimiser, rates, log and state, with a step, a validation and a checkpoint of them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from predilect.errors import DiskError, RunError
from predilect.files import write_text
from predilect.labels.tasks import LESION
from predilect.randomness import stream_seed
from predilect.recipe import Recipe
from predilect.run import LOG_FILE, STATE_FILE
from predilect.training.average import WeightAverage
from predilect.training.checkpoint import Checkpoint, lost_checkpoint, optimizer_tensors, read_checkpoint, write_checkpoint
from predilect.training.data import BatchOrder, TrainingData, TrainingPhotos, default_workers, training_loader
from predilect.training.inference import validation_losses
from predilect.training.schedule import RateSchedule
from predilect.training.step import make_optimizer, train_step
from predilect.vision.losses import presence_weights
from predilect.vision.network import Network

__all__ = ["Progress", "Trainer"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands.

    Attributes:
        iteration: Iterations done.
        iterations: Iterations at most.
        loss: Mean summed loss since the last log line; None before the first step.
        learning_rate: Of the backbone.
        images_per_second: Since the training was (re)started.
        validation_loss: The last summed validation loss, or None.
    """

    iteration: int
    iterations: int
    loss: float | None
    learning_rate: float
    images_per_second: float
    validation_loss: float | None


@dataclass(slots=True)
class _State:
    """What changes while a training runs, apart from tensors."""

    iteration: int = 0
    validation_loss: float | None = None
    ended: bool = False
    seconds: float = 0.0


class Trainer:
    """The parts of one training, put together once; `predilect.training.loop.fit` drives it."""

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        data: TrainingData,
        recipe: Recipe,
        *,
        seed: int,
        folder: Path,
        identity: str,
        drops: Sequence[int] | None,
        stop_at: int | None,
    ) -> None:
        self.fabric, self.network, self.data, self.recipe, self.seed = fabric, network, data, recipe, seed
        self.identity = identity
        self.stop_at = min(recipe.iterations, stop_at or recipe.iterations)
        self.log_path = folder / LOG_FILE
        self.checkpoint_path = folder / STATE_FILE
        self.has_folder = False
        self.schedule = RateSchedule(recipe, drops)
        self.bare_optimizer = make_optimizer(network, recipe)
        self.forward, self.optimizer = fabric.setup(network, self.bare_optimizer)
        self.lesion_weights: Tensor | None = None
        if recipe.rarity_exponent > 0 and LESION in data.labels:
            self.lesion_weights = presence_weights(data.labels[LESION][data.train_rows], recipe.rarity_exponent).to(fabric.device)
        self.average = WeightAverage(network, recipe.average_decay) if recipe.average_decay > 0 else None
        self.best: dict[str, Tensor] | None = None
        self.state = _State()
        self.log_every = max(1, recipe.validate_every // 10)
        self.lines: list[str] = []
        # Of the global batches since the last log line; left on the device.
        self.losses: dict[str, Tensor] = {}
        self.steps = 0
        self.clock = time.perf_counter()

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the lowest validation loss are kept, and not the last."""
        return self.recipe.keep == "best" and len(self.data.validation_rows) > 0

    @property
    def judged(self) -> Network:
        """The network that is validated and kept: the average of the weights where the recipe wants one."""
        return self.network if self.average is None else self.average.network

    def resume(self) -> None:
        """Go on from the checkpoint; without one, and without a log, from the beginning.

        Raises:
            RunError: If the checkpoint cannot be used, or is missing though there is a log.
        """
        if not self.checkpoint_path.is_file():
            if self.log_path.is_file():
                raise lost_checkpoint(self.log_path.parent)
            return
        checkpoint = read_checkpoint(self.checkpoint_path, self.identity)
        self.network.load_state_dict(checkpoint.part("model"))
        self.bare_optimizer.load_state_dict(checkpoint.optimizer_state(self.bare_optimizer.state_dict()))
        if self.average is not None:
            self.average.restore(checkpoint.part("average"))
        self.best = checkpoint.part("best") or None
        progress = dict(checkpoint.progress)
        self.schedule.restore(progress.pop("schedule"))
        self.losses = {task: total.to(self.fabric.device) for task, total in checkpoint.part("running").items()}
        self.steps = progress.pop("steps")
        self.lines = progress.pop("log")
        self.state = _State(**progress)
        if self.fabric.is_global_zero:
            self.write_log()  # as of the checkpoint: the process may have been killed between the two, or the file lost

    def write_log(self) -> None:
        """Write the log lines as the checkpoint has them."""
        write_text(self.log_path, "".join(f"{line}\n" for line in self.lines))

    def save(self) -> None:
        """Write checkpoint and log; of several processes only the first one does.

        Raises:
            DiskError: If they cannot be written, or the folder was there before and is gone.
        """
        now = time.perf_counter()
        self.state.seconds += now - self.clock
        self.clock = now
        if not self.fabric.is_global_zero:
            return
        if self.has_folder and not self.log_path.parent.is_dir():
            raise DiskError(self.log_path.parent, "it was removed, or its disk went away, while this training ran")
        tensors = {f"model/{name}": value for name, value in self.network.state_dict().items()}
        tensors.update(optimizer_tensors(self.bare_optimizer.state_dict()["state"]))
        if self.average is not None:
            tensors.update({f"average/{name}": value for name, value in self.average.tensors().items()})
        tensors.update({f"best/{name}": value for name, value in (self.best or {}).items()})
        tensors.update({f"running/{task}": total for task, total in self.losses.items()})
        progress = {**asdict(self.state), "steps": self.steps, "log": self.lines, "schedule": self.schedule.state()}
        # The checkpoint first, so that a log without one is always of a training whose checkpoint was lost.
        write_checkpoint(self.checkpoint_path, Checkpoint(self.identity, progress, tensors))
        self.write_log()
        self.has_folder = True

    def step(self, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Learn from one batch, given in parts: (b, 3, H, W) photographs and their (b,) rows each."""
        state = self.state
        rate = self.schedule.rate(state.iteration)
        for group in self.bare_optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        # Dropout draws from torch's global generator: a function of seed and iteration, so that a resumed run draws the same.
        torch.manual_seed(stream_seed(self.seed, "dropout", state.iteration, self.fabric.global_rank))
        losses = train_step(
            self.fabric,
            self.network,
            self.forward,
            self.optimizer,
            parts,
            labels=self.data.labels,
            batch_size=self.recipe.batch_size,
            lesion_weights=self.lesion_weights,
            site_weight=self.recipe.site_weight,
        )
        if self.average is not None:
            self.average.add(self.network)
        # Summed over the devices at once: a checkpoint may be due on one of them before all of them come to a log line.
        for task, share in losses.items():
            loss = cast("Tensor", self.fabric.all_reduce(share, reduce_op="sum"))
            self.losses[task] = self.losses[task] + loss if task in self.losses else loss
        self.steps += 1
        state.iteration += 1

    def validate(self) -> dict[str, float]:
        """Measure the validation losses by task, and let the schedule and the kept weights follow their sum.

        Raises:
            RunError: If it is no longer finite.
        """
        losses: dict[str, float] = {}
        if self.fabric.is_global_zero:
            losses = validation_losses(self.fabric, self.judged, self.data.images, self.data.validation_rows, self.data.labels)
        # One device decides for all: each has batch statistics of its own, and the schedules must not part.
        losses = self.fabric.broadcast(losses)
        self.network.train()
        total = self._finite(sum(losses.values()))
        self.state.validation_loss = total
        self.state.ended = self.schedule.observe(self.state.iteration, total)
        if self.keeps_best and self.schedule.lowest_iteration == self.state.iteration:
            self.best = {name: value.detach().clone() for name, value in self.judged.state_dict().items()}
        return losses

    def log(self, validation: dict[str, float] | None, images_per_second: float) -> Progress:
        """Add a log line on the iterations since the last one.

        Raises:
            RunError: If the loss is no longer finite.
        """
        means = self._mean_losses()
        progress = self._progress(self._finite(sum(means.values())), images_per_second)
        line = {
            "iteration": progress.iteration,
            "loss": progress.loss,
            "losses": means,
            "validation_loss": sum(validation.values()) if validation else None,
            "validation_losses": validation,
            "learning_rate": progress.learning_rate,
            "images_per_second": round(images_per_second, 2),
        }
        self.lines.append(json.dumps(line, allow_nan=False))
        self.losses, self.steps = {}, 0
        return progress

    def standing(self, images_per_second: float) -> Progress:
        """Where the training stands between two log lines; reading the losses waits for the device."""
        return self._progress(sum(self._mean_losses().values()) if self.steps else None, images_per_second)

    def remaining(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """The parts of each batch that is left, as lists."""
        if self.state.ended:
            return
        fabric, recipe = self.fabric, self.recipe
        order = BatchOrder(
            self.data.train_rows,
            recipe.batch_size,
            self.seed,
            range(self.state.iteration, self.stop_at),
            parts=recipe.accumulate,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        photos = TrainingPhotos(self.data.images, self.network.preprocessing, self.seed)
        parts: list[tuple[Tensor, Tensor]] = []
        for images, rows in training_loader(photos, order, default_workers(fabric.device), pin=fabric.device.type == "cuda"):
            parts.append((images, rows))
            if len(parts) == recipe.accumulate:
                yield parts
                parts = []

    def _mean_losses(self) -> dict[str, float]:
        """Of the iterations since the last log line, by task."""
        return {task: float(total) / self.steps for task, total in self.losses.items()}

    def _progress(self, loss: float | None, images_per_second: float) -> Progress:
        state, rate = self.state, self.schedule.rate(max(0, self.state.iteration - 1))
        return Progress(state.iteration, self.stop_at, loss, rate, images_per_second, state.validation_loss)

    def _finite(self, loss: float) -> float:
        if math.isfinite(loss):
            return loss
        rate = self.schedule.rate(self.state.iteration - 1)
        raise RunError(f"the loss is no longer finite after {self.state.iteration} iterations; lower learning_rate ({rate:g} now)")
