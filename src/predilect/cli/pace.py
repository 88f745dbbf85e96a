"""What a log shows of long work, where no terminal shows a bar: a line when a part begins and how long it took, and what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

__all__ = ["CountLog", "TrainingLog", "about", "duration"]

_SHORT = 60.0  # seconds: work that is over sooner needs no more than its name
_PARTS = 10  # of counted work


def duration(seconds: float) -> str:
    """How long something took, to the second and from an hour on to the minute.

    Examples:
        >>> duration(12.2), duration(312), duration(6540), duration(3600)
        ('12 s', '5 min 12 s', '1 h 49 min', '1 h')
    """
    whole = round(seconds) if seconds < 3600 else 60 * round(seconds / 60)
    minutes, units = whole // 60, ("h", "min", "s")
    shown = [f"{n} {unit}" for n, unit in zip((minutes // 60, minutes % 60, whole % 60), units, strict=True) if n]
    return " ".join(shown) or "0 s"


def about(seconds: float) -> str:
    """How long something may take, which nobody knows to the second.

    Examples:
        >>> about(50), about(312), about(6570)
        ('about 50 s', 'about 5 min', 'about 1 h 50 min')
    """
    return f"about {duration(seconds if seconds < _SHORT else 60 * round(seconds / 60))}"


@dataclass(slots=True)
class CountLog:
    """The lines of work that tells how many of how many are done.

    Its name when it begins; of work that takes over a minute also each tenth that is done, at most one a minute, and its end.

    Attributes:
        what: The work in a word or two.
        say: Prints a line.
    """

    what: str
    say: Callable[[str], None]
    _begun: float | None = field(default=None, init=False)
    _before: int = field(default=0, init=False)
    _told: float = field(default=0.0, init=False)
    _part: int = field(default=0, init=False)

    def tell(self, done: int, total: int) -> None:
        """Say what is to be said now that so many of so many are done."""
        now = monotonic()
        part = _PARTS * done // max(1, total)
        if self._begun is None:
            self._begun, self._told, self._before, self._part = now, now, done, part
            self.say(self.what)
        spent, ended = now - self._begun, part == _PARTS
        if part <= self._part or (spent if ended else now - self._told) < _SHORT:
            return
        self._told, self._part = now, part
        if ended:
            self.say(f"{self.what}: done in {duration(spent)}")
        else:
            left = spent * (total - done) / max(1, done - self._before)  # what was done before says nothing of the pace
            self.say(f"{self.what}: {done:,} of {total:,}; {about(left)} to go")


@dataclass(slots=True)
class TrainingLog:
    """The lines of trainings, one after the other: when one begins, and how long it took, with what may be left of all.

    A training that goes on from a checkpoint counts for the share of it that is done here; where that is none, as of one that had
    yet to be tested alone, nothing is expected from it.

    Attributes:
        trainings: How many there are in all.
        finished: How many of them are finished.
        say: Prints a line.
    """

    trainings: int
    finished: int
    say: Callable[[str], None]
    _spent: float = field(default=0.0, init=False)
    _done: float = field(default=0.0, init=False)  # trainings that were done in that time
    _share: float = field(default=0.0, init=False)
    _since: float = field(init=False)
    _running: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._since = monotonic()

    def begin(self, name: str, share: float = 1.0) -> None:
        """Say that a training runs, and with that that the one before has ended, which may be before its last iteration.

        Args:
            name: What is trained.
            share: How much of it is left to do, in [0, 1].
        """
        self.end()
        self._running, self._share = True, share
        self.say(f"training {self.finished + 1} of {self.trainings}: {name}")

    def end(self) -> None:
        """Say how long the training that ran took, from the end of the one before on, and what those that are left may take."""
        if not self._running:
            return
        now = monotonic()
        spent, left = now - self._since, self.trainings - self.finished - 1
        self.finished, self._since, self._running = self.finished + 1, now, False
        if self._share > 0:
            self._spent, self._done = self._spent + spent, self._done + self._share
        to_go = f"; {about(left * self._spent / self._done)} to go" if left and self._done else ""
        self.say(f"training {self.finished} of {self.trainings} done in {duration(spent)}{to_go}")
