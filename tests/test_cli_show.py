"""What the terminal shows: tables, bars, the recorded command line, and how a signal ends a command."""

from __future__ import annotations

import builtins
import io
import re
import shlex
import signal
from typing import Self

import pytest
from rich.console import Console

from made_commands import leave, one_line
from predilect.__main__ import main as start_command_line
from predilect.cli import show
from predilect.cli.show import command_line, counting, print_table, training, typed
from predilect.training.trainer import Progress


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("/home/dr-x/patients", "patients"),
        ("--out=/home/dr-x/runs/a", "--out=a"),
        ("mtl=/home/dr-x/a=b.csv", "mtl=a=b.csv"),
        ("weights='/home/dr-x/w.safetensors'", "weights=w.safetensors"),
        ("--set=weights=/home/dr-x/w.safetensors", "--set=weights=w.safetensors"),
        ("runs/a", "runs/a"),
        ("patients/anna/new", "new"),
        ("mtl=patients/anna/p.csv", "mtl=p.csv"),
        ("lesion/erythema", "lesion/erythema"),
        ("--resume", ""),
        ("/", "/"),
        ("iterations=3", "iterations=3"),
    ],
)
def test_of_a_path_the_command_line_keeps_the_last_component(argument, kept, tmp_path, monkeypatch):
    (tmp_path / "patients" / "anna").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    before = typed.set([argument])
    try:
        assert command_line() == f"predilect {kept}".rstrip()
    finally:
        typed.reset(before)


def test_ctrl_c_leaves_with_130(monkeypatch, capsys, tmp_path):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("predilect.cli.scores.Run.open", stopped)
    assert leave("report", tmp_path) == 130
    assert one_line(capsys.readouterr().err) == "stopped\n"


def test_ctrl_c_while_the_modules_load_is_one_word(monkeypatch, capsys):
    def stopped(name: str, *_: object) -> None:
        if name == "predilect.cli":
            raise KeyboardInterrupt
        return real(name, *_)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", stopped)
    with pytest.raises(SystemExit) as left:
        start_command_line()
    assert left.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(("terminal", "lines"), [(True, 5), (False, 2)])
def test_a_table_folds_words_in_a_terminal_only_and_loses_nothing(monkeypatch, terminal, lines):
    out = io.StringIO()
    monkeypatch.setattr(
        "predilect.cli.show.console",
        Console(file=out, width=60, force_terminal=terminal, color_system=None, markup=show.console._markup),
    )
    cells = ["lesion/squamous cell [in situ]/keratoacanthoma [/x]", "1,234", "one, two, three, four, five, six, seven, eight"]
    print_table("Title", ["class", "present", "words"], [cells])
    shown = out.getvalue().splitlines()
    assert max(map(len, shown)) <= 60 or not terminal
    rows = [line for line in shown[1:] if line.strip() and "─" not in line]
    assert len(rows) == lines, shown
    letters = "".join("".join(rows).split())
    assert all(letters.count(letter) >= "".join(cells).count(letter) for letter in set("".join(cells)) - {" "})


@pytest.mark.parametrize(("terminal", "width"), [(True, 80), (True, 100), (False, 100)])
def test_a_table_of_paths_is_shortened_in_their_middle_and_folded_everywhere(monkeypatch, terminal, width):
    out = io.StringIO()
    console = Console(file=out, width=width if terminal else 400, force_terminal=terminal, color_system=None, soft_wrap=True)
    monkeypatch.setattr("predilect.cli.show.console", console)
    header = ["photograph", "lesions", "cannot be excluded", "site", "remarks"]
    long = "squamous cell carcinoma/keratoacanthoma"
    cells = [f"0.31 (0.06) {long}, present\n0.12 nevus", f"{long}\nnevus", "0.90 lower extremity", "unlike the atlas's photographs"]
    path = f"/home/somebody/photographs/{'of a day/' * 9}first.jpeg"
    print_table("Title", header, [[path, *cells], ["a.jpg", *cells]], words=header, paths=["photograph"])
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert re.search(r"/home/\S*….*first\.jpeg", shown)
    assert "a.jpg " in shown
    letters = "".join(shown.split())
    assert all(letters.count(letter) >= 2 * "".join(cells).count(letter) for letter in set("".join(cells)) - {" ", "\n"})


@pytest.mark.parametrize("resume", [(), ("--resume",)])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_with_the_command_that_goes_on(place, monkeypatch, capsys, resume, number, code):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("predilect.cli.train.compare", lambda *_, **__: signal.raise_signal(number))
    given = ("crossval", place.atlas, "--systems", "mtl", "--recipe", place.recipe, "--out", "a folder")
    assert leave(*given, *resume) == code
    said = one_line(capsys.readouterr().err)
    assert said.startswith("stopped; go on with: predilect ")
    assert shlex.split(said.partition("predilect ")[2]) == [*map(str, given), "--resume"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["bundle", "explain"])
def test_a_command_that_goes_on_by_itself_is_named_as_it_was_given(place, monkeypatch, capsys, name):
    monkeypatch.setattr(f"predilect.cli.{name}.splits_of", lambda _: signal.raise_signal(signal.SIGINT))
    given = (name, place.run, place.atlas, *(("--out", "a folder") if name == "bundle" else ()))
    assert leave(*given) == 130
    said = one_line(capsys.readouterr().err)
    assert said.startswith("stopped; go on with: predilect ")
    assert shlex.split(said.partition("predilect ")[2]) == [*map(str, given)]


def test_a_command_that_begins_anew_says_only_that_it_was_stopped(place, monkeypatch, capsys):
    monkeypatch.setattr("predilect.cli.audit.examine", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert leave("audit", place.atlas) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_the_bar_of_all_trainings_counts_what_was_finished_and_what_ended_early(monkeypatch):
    totals: list[float] = []

    class Recorder:
        def __init__(self, *_: object, **__: object) -> None:
            self.lines = 0

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def add_task(self, _: str, *, completed: float = 0, **__: object) -> int:
            if self.lines == 0:
                totals.append(completed)
            self.lines += 1
            return self.lines - 1

        def update(self, line: int, *, completed: float = 0, **_: object) -> None:
            if line == 0:
                totals.append(completed)

    monkeypatch.setattr("predilect.cli.show.Progress", Recorder)
    with training(6, finished=2) as tell:
        for fold, iteration in ((2, 10), (2, 40), (3, 10), (4, 100)):  # none but the last reaches its last iteration
            tell("mtl", 1, fold, Progress(iteration, 100, 0.5, 0.001, 30.0, None))
    assert totals == [2, 2, 3, 4]


@pytest.mark.parametrize(
    ("width", "name", "figures"),
    [
        (80, "resnet-site", ["loss 3.292"]),
        (80, "mtl-scratch", ["loss 3.292"]),
        (100, "resnet-site", ["loss 3.292", "held out 3.645"]),
        (160, "mtl", ["loss 3.292", "held out 3.645", "rate 1.3e-03", "67 images/s"]),
    ],
)
def test_of_a_line_of_progress_figures_go_where_it_is_too_long_and_all_else_stands(monkeypatch, width, name, figures):
    out = io.StringIO()
    monkeypatch.setattr("predilect.cli.show.console", Console(file=out, width=width, force_terminal=True, color_system=None))
    monkeypatch.setattr("predilect.cli.show._NO_BARS", False)
    with training(10) as tell:
        tell(name, 1, 2, Progress(132, 20_000, 3.292, 0.0013, 67.0, 3.645))
    *_, whole, line = [row for row in re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "\n", out.getvalue()).splitlines() if row.strip()]
    assert re.fullmatch(r"trainings [ ━╸╺]+ 0/10 +0:00:00 -:--:--", whole.strip())
    told = re.fullmatch(rf"{name} seed 1 fold 2 [ ━╸╺]+ 132/20000 0:00:0\d [-:0-9]+(.*)", line.strip())
    assert told is not None
    assert re.split(r" {2,}", told[1].strip()) == figures
    assert max(len(whole), len(line)) <= width


@pytest.mark.parametrize("width", [80, 100])
def test_a_bar_counts_once_it_knows_of_how_many(monkeypatch, width):
    out = io.StringIO()
    monkeypatch.setattr("predilect.cli.show.console", Console(file=out, width=width, force_terminal=True, color_system=None))
    with counting("checking the images") as tell:
        tell(9_999, 10_000)
    shown = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "\n", out.getvalue())
    assert "?" not in shown
    assert re.search(r"checking the images [ ━╸╺]+9999/10000 0:00:0\d [-:0-9]{7}", shown)
