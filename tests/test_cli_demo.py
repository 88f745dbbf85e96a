"""`predilect demo`."""

from __future__ import annotations

import pytest

from made_commands import leave
from predilect.cli.demo import _clear
from predilect.errors import PredilectError

pytestmark = pytest.mark.usefixtures("without_figures")


def test_demo_empties_only_what_a_demo_made(tmp_path):
    out = tmp_path / "demo"
    _clear(out)
    (out / "run" / "deep").mkdir(parents=True)
    (out / "drawings").write_text("a file", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    (out / "drawn-atlas").symlink_to(tmp_path / "mine")
    _clear(out)
    assert [item.name for item in out.iterdir()] == [".predilect-demo"]
    assert (tmp_path / "mine" / "kept").exists()

    (out / "letters").touch()
    with pytest.raises(PredilectError, match="something else"):
        _clear(out)
    (out / "letters").unlink()
    (out / "run").mkdir()
    (out / ".predilect-demo").unlink()  # the same names, but no demo made them
    with pytest.raises(PredilectError, match="something else"):
        _clear(out)
    assert (out / "run").is_dir()


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_demo_refuses_what_is_no_folder(tmp_path, kind):
    out = tmp_path / "demo"
    if kind == "file":
        out.touch()
    else:
        out.symlink_to(tmp_path / "missing")
    with pytest.raises(PredilectError, match="--out"):
        _clear(out)


def test_demo_walks_the_whole_path(tmp_path, monkeypatch, capsys):
    from predilect.recipe import Recipe

    short = Recipe.open("demo", ["iterations=2", "warmup=1", "batch_size=8"])
    monkeypatch.setattr("predilect.cli.demo.Recipe.open", lambda _: short)
    assert leave("demo", "--out", tmp_path / "demo", "--images", 60) == 0
    shown = capsys.readouterr().out
    assert "say nothing of medicine" in shown
    assert (tmp_path / "demo" / "run" / "bundle" / "bundle.json").is_file()
