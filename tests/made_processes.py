"""Processes that can be killed at any moment, and commands in some of their own, forked from a server that has imported torch once."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What takes long to import, but for polars: it starts threads as soon as it is imported, and a forked process would wait for them.
_THREADLESS = [
    "pytest", "torch", "torchvision.transforms.v2", "timm", "lightning_fabric", "scipy.sparse", "matplotlib.figure", "pydantic",
    "cyclopts", "rich.progress", "jinja2", "safetensors.torch", "faiss", "pyarrow",
]  # fmt: skip
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # several threads on few cores would spin while they wait for each other
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(_THREADLESS)

CHANGES = ("os.rename", "os.remove")
"""What Python reports before it happens, and after which a run folder is another one."""


class Life:
    """One process that runs one command, in a group of its own, and says what it has to say into a file.

    Args:
        arguments: Of the command line.
        spoken: The file; what earlier lives said stays in it.
        dies_before: The process kills itself before so many changes of files, counted from 1.
        counted: Which reports of Python count as changes.
        dies_in: The process kills itself in this iteration of a training, counted from 1.
        checkpoints: Iterations between two checkpoints, whatever the clock says; 0: there is none but those that are always
            written.
        workers: Loader processes.
        threads: Of torch.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        spoken: Path,
        *,
        dies_before: int | None = None,
        counted: Sequence[str] = CHANGES,
        dies_in: int | None = None,
        checkpoints: int = 5,
        workers: int = 0,
        threads: int = 1,
    ) -> None:
        told = {"dies_before": dies_before, "counted": tuple(counted), "dies_in": dies_in, "checkpoints": checkpoints}
        given = ([str(argument) for argument in arguments], spoken)
        self.process = _SERVER.Process(target=_live, args=given, kwargs={**told, "workers": workers, "threads": threads})
        self.process.start()

    def kill(self, *, group: bool = True) -> None:
        """End it as the kernel would for want of memory: at once, and with it all it has started, or it alone."""
        assert self.process.pid is not None
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)

    def stop(self, number: int) -> None:
        """Ask the whole group to end, as a terminal or a cluster does."""
        assert self.process.pid is not None
        os.killpg(self.process.pid, number)

    def group(self) -> list[int]:
        """The processes of its group that live."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:  # it ended meanwhile
                continue
            if int(group) == self.process.pid and state not in "ZX":
                found.append(int(stat.parent.name))
        return found

    def end(self, timeout: float = 300) -> int:
        """Wait until it ends, and tell how: an exit code, or a signal's number below 0."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            self.kill()
            raise TimeoutError(f"the process was still running after {timeout} s")
        self.process.close()
        return code


def _live(
    arguments: list[str],
    spoken: Path,
    *,
    dies_before: int | None,
    counted: tuple[str, ...],
    dies_in: int | None,
    checkpoints: int,
    workers: int,
    threads: int,
) -> None:
    os.setpgid(0, 0)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that nobody's server has forked
    descriptor = os.open(spoken, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    from predilect.cli import main
    from predilect.report import report
    from predilect.training import loop, trainer

    torch.set_num_threads(threads)
    step = trainer.Trainer.step

    def stepping(training: Any, parts: Any) -> None:
        if training.state.iteration + 1 == dies_in:
            die()
        step(training, parts)
        due = checkpoints > 0 and training.state.iteration % checkpoints == 0
        loop._SECONDS_BETWEEN_CHECKPOINTS = 0.0 if due else math.inf

    trainer.Trainer.step = stepping
    trainer.default_workers = lambda _: workers
    report.draw_all = lambda *_: []  # figures take longer than all the rest
    if dies_before is not None:
        sys.addaudithook(_death(dies_before, counted))
    main(arguments)


def _death(before: int, counted: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    left = before

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in counted and Path(os.fsdecode(arguments[0])).exists():
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hear


def wait_until(happened: Callable[[], bool], timeout: float = 60) -> None:
    """Wait for something, and fail if it does not happen."""
    end = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)


_OF_THE_CLOCK = {"command", "seconds", "images_per_second", "device_hours", "by_system", "resumed", "sha256"}


def content(run: Path) -> dict[str, object]:
    """All files of a run, without what depends on the clock or tells of its interruptions."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir() or name in (".lock", "report/report.html"):
            found[name] = None
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _timeless(item) for key, item in value.items() if key not in _OF_THE_CLOCK and key != "log.jsonl"}


def in_child(work: Callable[[], object]) -> int:
    """How a child process that does some work ends: its exit code, or a signal's number below 0."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def mounted(place: Path, *what: str) -> bool:
    """Whether a file system could be mounted at a place: on Linux, for who has the right."""
    if sys.platform != "linux" or os.geteuid():
        return False
    return subprocess.run(["mount", *what, str(place)], capture_output=True, check=False).returncode == 0
