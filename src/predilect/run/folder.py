"""A run folder: begun or gone on with, filled fold by fold, and evaluated."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl

from predilect.atlas.audit import AUDIT_FILE, Audit
from predilect.errors import RunError
from predilect.evaluation.ensemble import ensemble
from predilect.evaluation.measured import Tell, measure
from predilect.evaluation.scores import Evaluation
from predilect.files import checksum, remove_leftovers, replacing_folder
from predilect.locks import hold, holding
from predilect.predictions import Predictions, Truth
from predilect.report.published import published_table
from predilect.report.report import build_report, write_report
from predilect.report.wording import ensembles as ensembles_in_words
from predilect.run.finished import (
    LOG_FILE,
    PREDICTIONS_FILE,
    RESULT_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    check_files,
    finish,
    read_result,
    weights_path,
)
from predilect.run.insight import shown_insight
from predilect.run.plan import ENSEMBLES, ReportPlan
from predilect.run.progress import curves, spent
from predilect.run.record import RECORD_FILE, changes, check_same, notes, read_record, resumption, write_record

__all__ = ["Run"]

_TRUTH_FILE = Path("truth.parquet")
_LOCK_FILE = Path(".lock")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder.

    Attributes:
        path: The folder.
        info: What ``run.json`` holds: systems with their tasks and recipes, seeds, folds, hashes, versions, device, notes, and
            when and under what it was resumed.
    """

    path: Path
    info: Mapping[str, Any]

    @classmethod
    def goes_on(cls, path: Path, info: Mapping[str, Any], *, resume: bool) -> bool:
        """Whether there is a run to go on with; what cannot be started at all is refused, at no cost.

        Args:
            path: The folder.
            info: What ``run.json`` is to hold.
            resume: Whether an existing run of the same kind is gone on with.

        Raises:
            RunError: If the folder holds something else, or a run that was asked for differently.
        """
        if (path / RECORD_FILE).is_file():
            if not resume:
                raise RunError(f"{path} already holds a run; add --resume to go on with it, or choose another folder")
            check_same(path, read_record(path), info)
            return True
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise RunError(f"{path} already exists and is no run; choose another folder")
        return False

    @classmethod
    def start(cls, path: Path, info: Mapping[str, Any], truth: Truth | None, *, resume: bool, audit: Audit | None = None) -> Self:
        """Make a new run folder, or go on with an existing one; until this process ends, no other can work on it.

        Args:
            path: The folder.
            info: What ``run.json`` is to hold.
            truth: Labels of the photographs that will be tested; None where nothing is tested.
            resume: Whether an existing run of the same kind is gone on with.
            audit: That of the atlas, which the report shows; None where it has none.

        Raises:
            RunError: If the folder holds something else, a run that was asked for differently, or one at which another process
                is at work.
            DiskError: If the folder cannot be written to.
        """
        if cls.goes_on(path, info, resume=resume):
            _hold(path)
            run = cls.open(path)  # again, for another process may have gone on with it before it was held
            return run.resumed(info)
        with replacing_folder(path) as folder:
            files = {}
            if truth is not None:
                truth.write(folder / _TRUTH_FILE)
                files[str(_TRUTH_FILE)] = checksum(folder / _TRUTH_FILE)
            if audit is not None:
                audit.write(folder / AUDIT_FILE)
                files[AUDIT_FILE] = checksum(folder / AUDIT_FILE)
            info = {**info, "files": files, "resumed": []}
            write_record(folder, info)
        _hold(path)
        return cls(path, info)

    def resumed(self, info: Mapping[str, Any]) -> Self:
        """Remove what a kill has left, and write down under what the run goes on.

        Args:
            info: Holds the ``command``, the ``plan``, the ``versions`` and the ``machine`` of now.
        """
        remove_leftovers(self.path)
        for training in self._trainings():
            if (training / RESULT_FILE).is_file():  # killed between the last file of a training and the removal of its state
                (training / STATE_FILE).unlink(missing_ok=True)
        # What is shown beside the systems is computed from what they predicted, and may be asked for anew.
        plan = ReportPlan.of(info["plan"])
        for name in set(self.plan.ensembles) - set(plan.ensembles):
            shutil.rmtree(self.path / name, ignore_errors=True)
        asked_for = {"command": info["command"], "plan": info["plan"]} if plan != self.plan else {}
        added = {**self.info, **asked_for, "resumed": [*self.info["resumed"], resumption(info)]}
        write_record(self.path, added)
        return type(self)(self.path, added)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run folder for reading.

        Raises:
            RunError: If it is not one, is of another schema version, or what it was asked for was changed or is not all there.
        """
        return cls(path, read_record(path))

    @property
    def systems(self) -> Sequence[str]:
        """Names of the trained systems, in the order asked for."""
        return list(self.info["systems"])

    @property
    def precision(self) -> Literal["bf16", "fp32"]:
        """In which the run began, and goes on, on whatever device."""
        return "bf16" if self.info["precision"].startswith("bf16") else "fp32"

    @property
    def plan(self) -> ReportPlan:
        """What the report shows beside the trained systems."""
        return ReportPlan.of(self.info["plan"])

    @property
    def shown(self) -> Sequence[str]:
        """Names of the systems and ensembles that the report shows, in its order."""
        return self.plan.in_order(self.systems)

    @property
    def compared(self) -> Sequence[tuple[str, str]]:
        """(system, baseline) as the report compares them: as planned, or each with every one before it."""
        if self.plan.pairs is not None:
            return self.plan.pairs
        return [(later, first) for first, later in itertools.combinations(self.shown, 2)]

    def seed_folder(self, system: str, seed: int) -> Path:
        """Where one seed of one system lies."""
        return self.path / system / f"seed-{seed}"

    def fold_folder(self, system: str, seed: int, fold: int) -> Path:
        """Where one training lies."""
        return self.seed_folder(system, seed) / f"fold-{fold}"

    def _trainings(self) -> Iterator[Path]:
        """The folders of all trainings that have begun."""
        for system in self.systems:
            for seed in self.info["seeds"]:
                yield from (log.parent for log in sorted(self.seed_folder(system, seed).glob(f"*/{LOG_FILE}")))

    def without_checkpoint(self) -> list[Path]:
        """Folders of trainings that have begun and not ended, and whose checkpoint was lost: it is written before the log."""
        done = (RESULT_FILE, STATE_FILE)
        return [folder for folder in self._trainings() if not any((folder / name).is_file() for name in done)]

    def changes(self) -> list[dict[str, Any]]:
        """Under which other versions, or on which other machine, the run was resumed.

        Returns:
            For each time something was different from the start, ``time`` and, by its name, what it was then.
        """
        return changes(self.info)

    def notes(self) -> list[str]:
        """What a reader must know: the sentences of the sources, and under what else the run was resumed."""
        return notes(self.info)

    def fold_result(self, system: str, seed: int, fold: int) -> dict[str, Any] | None:
        """How a fold ended, or None while it has not.

        Raises:
            RunError: If the file that says so is damaged, or was changed.
        """
        return read_result(self.fold_folder(system, seed, fold))

    def finish_fold(self, system: str, seed: int, fold: int, result: Mapping[str, Any]) -> None:
        """Say how a fold ended, with the checksums of its files; its checkpoint is of no more use."""
        finish(self.fold_folder(system, seed, fold), result)

    def weights_checksum(self, system: str, seed: int, fold: int) -> str | None:
        """SHA-256 of the weights that a fold was tested with, whether they are still there or not; None while it is not finished.

        Raises:
            RunError: If the file that says so is damaged, or was changed.
        """
        result = self.fold_result(system, seed, fold)
        return None if result is None else result["files"].get(str(WEIGHTS_FILE))

    def predictions_checksums(self, system: str) -> dict[str, str]:
        """SHA-256 of what each finished fold of a system predicted, by its folder such as ``seed-1/fold-0``.

        Raises:
            RunError: If the file that says so is damaged, or was changed.
        """
        parts = [(seed, fold) for seed in self.info["seeds"] for fold in self.info["folds"]]
        results = {f"seed-{seed}/fold-{fold}": self.fold_result(system, seed, fold) for seed, fold in parts}
        return {part: result["files"][str(PREDICTIONS_FILE)] for part, result in results.items() if result is not None}

    def fold_weights(self, system: str, seed: int, fold: int) -> Path:
        """The file of the weights that a finished fold was tested with.

        Raises:
            RunError: If the fold is not finished, or its weights were removed or changed.
        """
        return weights_path(self.fold_folder(system, seed, fold))

    def _fold_predictions(self, system: str, seed: int, fold: int) -> Predictions:
        """What a finished fold predicted, all its files being as they were written; weights may have been removed."""
        folder = self.fold_folder(system, seed, fold)
        check_files(folder)
        return Predictions.read(folder / PREDICTIONS_FILE)

    def seed_predictions(self, system: str, seed: int) -> Predictions:
        """The out-of-fold predictions of one seed of a system or an ensemble, as the folds left them.

        Raises:
            RunError: If a fold is not finished, or its files are missing or were changed.
        """
        if system in self.plan.ensembles:
            chosen = ENSEMBLES[system]
            return ensemble([self.seed_predictions(member, seed) for member in chosen.members], chosen.rule)
        return Predictions.concatenate([self._fold_predictions(system, seed, fold) for fold in self.info["folds"]])

    def gather(self, system: str, seed: int) -> None:
        """Put the folds' predictions, or those of an ensemble's members, together into the seed's table, for other programs.

        Raises:
            RunError: If a fold is not finished, or its files are missing or were changed.
        """
        self.seed_predictions(system, seed).write(self.seed_folder(system, seed) / PREDICTIONS_FILE)

    def truth(self) -> Truth:
        """Labels of the photographs that are tested.

        Raises:
            RunError: If the table is missing or was changed.
        """
        self._check_own(_TRUTH_FILE)
        return Truth.read(self.path / _TRUTH_FILE)

    def audit(self) -> Audit | None:
        """The audit of the atlas as it was when the run was started; None where it had none.

        Raises:
            RunError: If the file is missing or was changed.
        """
        if AUDIT_FILE not in self.info["files"]:
            return None
        self._check_own(Path(AUDIT_FILE))
        return Audit.read(self.path / AUDIT_FILE)

    def _check_own(self, file: Path) -> None:
        """Refuse a file that was written when the run was made and is gone, or is another now."""
        path = self.path / file
        if not path.is_file():
            raise RunError(f"{path}: there is no such file; the run must be made anew")
        if checksum(path) != self.info["files"][str(file)]:
            raise RunError(f"{path} is not what was written (its checksum differs); the run must be made anew")

    def predictions(self) -> dict[str, Predictions]:
        """The out-of-fold predictions of each system and ensemble, all its seeds in one table, as the folds left them.

        Raises:
            RunError: If a fold is not finished, or its files are missing or were changed.
        """
        return {name: self.system_predictions(name) for name in self.shown}

    def system_predictions(self, system: str, seeds: Sequence[int] | None = None) -> Predictions:
        """The out-of-fold predictions of one system or ensemble, of some or by default all of its seeds in one table; see `predictions`."""
        chosen = self.info["seeds"] if seeds is None else seeds
        return Predictions.concatenate([self.seed_predictions(system, seed) for seed in chosen])

    def curves(self) -> pl.DataFrame:
        """Losses over the iterations of every training that has begun, as `predilect.run.progress.curves` has them."""
        parts = ((name, seed, fold) for name in self.systems for seed in self.info["seeds"] for fold in self.info["folds"])
        return curves((part, path) for part in parts if (path := self.fold_folder(*part) / LOG_FILE).is_file())

    def cost(self) -> dict[str, Any]:
        """What the finished folds took: ``trainings``, ``device_hours`` (training and testing), ``images_per_second`` (photographs
        trained on, by the time of training with its validations), and the same for each system in ``by_system``.
        """
        by_system: dict[str, list[tuple[Mapping[str, Any], int]]] = {}
        for name, asked_for in self.info["systems"].items():
            parts = [(name, seed, fold) for seed in self.info["seeds"] for fold in self.info["folds"]]
            results = [result for part in parts if (result := self.fold_result(*part)) is not None]
            by_system[name] = [(result, asked_for["recipe"]["batch_size"]) for result in results]
        whole = spent([part for parts in by_system.values() for part in parts])
        return {**whole, "by_system": {name: spent(parts) for name, parts in by_system.items() if parts}}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on the run while the block runs.

        Raises:
            RunError: If another one is at work on it.
        """
        with holding(self.path / _LOCK_FILE) as holder:
            if holder is not None:
                raise _busy(self.path, holder)
            yield

    def report(self, *, on_progress: Tell | None = None) -> Evaluation:
        """Evaluate the run and write its report into ``report/``.

        Args:
            on_progress: Told how much of which work is done.

        Raises:
            RunError: If another process is at work on the run, it is not finished, or a file was changed.
            PredilectError: If its tables are damaged, or the report cannot be written.
        """
        with self.held():
            audit, (insight, told) = (
                self.audit(),
                shown_insight(self.path, self.weights_checksum),
            )  # before the resampling, which takes longest
            measured = measure(
                self.truth(), self.predictions(), pairs=self.plan.pairs, calibrated=self.systems, on_progress=on_progress
            )
            provenance = {name: value for name, value in self.info.items() if name not in ("files", "resumed", "plan")}
            resumed: list[Any] = self.changes()
            report = build_report(
                measured.evaluation,
                provenance={**provenance, **({"resumed": resumed} if resumed else {}), **self.cost()},
                curves=self.curves(),
                notes=[*self.plan.notes, *ensembles_in_words(self.plan.ensembles), *self.notes(), *told],
                title=f"{', '.join(self.systems)} on {self.info['atlas']}",
                audit=audit,
                published=published_table() if self.plan.beside_paper else None,
                insight=insight,
                calibration=measured.calibration,
                known_site=measured.known_site,
            )
            write_report(report, self.path / "report")
            return measured.evaluation


def _hold(path: Path) -> None:
    holder = hold(path / _LOCK_FILE)
    if holder is not None:
        raise _busy(path, holder)


def _busy(path: Path, holder: int) -> RunError:
    return RunError(f"{path}: another process ({holder}) is at work on this run; wait until it ends, or stop it first")
