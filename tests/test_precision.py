"""What was begun in one precision goes on in it, also on a machine that would choose another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from made_commands import RECIPE, leave
from predilect.run import Run
from predilect.training import devices

pytestmark = pytest.mark.usefixtures("without_figures")

NOTE = "computes in bf16, for which this machine has no instructions"


def on_a_machine(monkeypatch, *, with_bf16: bool) -> None:
    monkeypatch.setattr(devices, "computes_bf16", lambda: with_bf16)


@pytest.fixture
def crossval(place, tmp_path):
    """The arguments of a cross-validation in ``auto``."""
    recipe = tmp_path / "auto.toml"
    recipe.write_text(RECIPE.replace('"fp32"', '"auto"'), encoding="utf-8")
    return ("crossval", place.atlas, "--systems", "mtl", "--recipe", recipe, "--out", tmp_path / "run")


def written(run: Path) -> list[bytes]:
    return [(run / "mtl" / "seed-1" / f"fold-{fold}" / "predictions.parquet").read_bytes() for fold in (0, 1)]


@pytest.mark.parametrize("with_bf16", [True, False])
def test_a_run_goes_on_as_it_began_on_a_machine_that_would_choose_otherwise(crossval, tmp_path, monkeypatch, capsys, with_bf16):
    on_a_machine(monkeypatch, with_bf16=with_bf16)
    assert leave(*crossval) == 0
    run = tmp_path / "run"
    before = written(run)
    shutil.rmtree(run / "mtl" / "seed-1" / "fold-1")
    on_a_machine(monkeypatch, with_bf16=not with_bf16)
    capsys.readouterr()
    assert leave(*crossval, "--resume") == 0
    assert (NOTE in capsys.readouterr().out) == with_bf16
    assert written(run) == before
    assert Run.open(run).precision == ("bf16" if with_bf16 else "fp32")


def test_a_run_in_bf16_is_bundled_and_explained_in_bf16(crossval, place, tmp_path, monkeypatch, capsys):
    on_a_machine(monkeypatch, with_bf16=True)
    assert leave(*crossval) == 0
    on_a_machine(monkeypatch, with_bf16=False)
    chosen = []
    make_fabric = devices.make_fabric
    monkeypatch.setattr(devices, "make_fabric", lambda precision: chosen.append(precision) or make_fabric(precision))
    run = tmp_path / "run"
    for command in (
        ("bundle", run, place.atlas, "--out", tmp_path / "bundle"),
        ("explain", run, place.atlas, "--sample", 0),
        ("cases", run, place.atlas, "--out", tmp_path / "cases", "--random", 1, "--worst", 0),
    ):
        capsys.readouterr()
        assert leave(*command) == 0, command
        assert NOTE in capsys.readouterr().out, command
    assert chosen == ["bf16"] * 3
