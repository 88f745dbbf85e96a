"""Bad input and wrong usage end in one line on stderr, and every command explains itself."""

from __future__ import annotations

import re

import pytest

from made_commands import leave, one_line
from predilect.cli import _COMMANDS

TOO_LONG = "a" * 300
BAD_INPUT = [
    "import nowhere photographs --out new",
    "import imagefolder missing --out new",
    "import imagefolder small.toml --out new",
    "import imagefolder photographs --out atlas",
    "import imagefolder photographs --out new --monet",
    "import imagefolder photographs --out small.toml/new --taxonomy small.toml",
    f"import imagefolder {TOO_LONG} --out new",
    "refine missing --taxonomy as-is",
    "refine atlas --taxonomy nothing",
    "refine atlas --taxonomy photographs/p000.png.toml",
    "split missing",
    "split small.toml",
    f"split {TOO_LONG}",
    "split atlas --folds 30",
    "train missing --recipe demo --out new",
    "train atlas --recipe demoo --out new",
    "train atlas --recipe missing.toml --out new",
    "train atlas --recipe not-text.toml --out new",
    "train atlas --recipe tiny.toml --out new --set iteration=3",
    "train atlas --recipe tiny.toml --out new --set nothing",
    "train atlas --recipe tiny.toml --out new --set preprocessing=3",
    "train atlas --recipe tiny.toml --out new --system mlt",
    "train atlas --recipe tiny.toml --out new --fold 9",
    "train atlas --recipe tiny.toml --out photographs",
    "train atlas --recipe tiny.toml --out small.toml",
    "train atlas --recipe tiny.toml --out small.toml/new",
    f"train atlas --recipe tiny.toml --out {TOO_LONG}",
    "crossval atlas --systems mtl,mtl --recipe tiny.toml --out new",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --seeds 1,-2",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --seeds 1,01",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --seeds 99999999999999999999",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --refit resnet",
    "crossval atlas --systems mtl --recipe tiny.toml --out run --resume",
    "crossval atlas --systems mtl,ensemble --recipe tiny.toml --out new",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --refit ensemble",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --weights test_resnet",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --weights resnet50=small.safetensors",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --weights test_resnet=absent.safetensors",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --from-scratch --weights test_resnet=absent.safetensors",
    "reproduce missing --out new",
    "reproduce atlas --out new --systems mlt",
    "reproduce atlas --out new --systems mtl,ensemble",
    "reproduce atlas --out new --folds 9",
    "reproduce atlas --out new --set iteration=3",
    "report missing",
    "report atlas",
    "explain missing atlas",
    "explain run missing",
    "explain run atlas --systems mlt",
    "explain run atlas --seeds 9",
    f"report {TOO_LONG}",
    "attend run/bundle photographs/p000.png --out new --lesion nose",
    "predict missing photographs/p000.png",
    "predict run/bundle missing.png",
    "predict run/bundle photographs/*.tif",
    "predict run/bundle photographs/p000.png --site nose",
    "predict run/bundle photographs/p000.png --format parquet",
    "predict run/bundle photographs/p000.png --out new",
    "predict run/bundle photographs/p000.png --format csv --out new",
    "bundle missing atlas --out new",
    "bundle run missing --out new",
    "bundle run atlas --system ensemble --out new",
    "bundle run atlas --aim f2 --out new",
    "bundle run atlas --aim sensitivity=1 --out new",
    "bundle run atlas --aim sensitivity=0.01 --out new",
    "bundle run atlas --photographs --out new",
    "bundle run atlas --weights test_resnet=tiny.toml --out new",
    "bundle run atlas --out run/bundle",
    f"predict run/bundle {TOO_LONG}",
    "evaluate --predictions mtl --truth run/truth.parquet --out new",
    "evaluate --predictions a=x.csv a=y.csv --truth run/truth.parquet --out new",
    "evaluate --predictions a=missing.csv --truth run/truth.parquet --out new",
    "evaluate --predictions a=photographs --truth run/truth.parquet --out new",
    "evaluate --predictions a=not-text.csv --truth not-text.csv --out new",
    "demo --out photographs",
    "demo --out small.toml",
]
BAD_USAGE = [
    "trian atlas",
    "train atlas --recipe tiny.toml",
    "train atlas --recipe tiny.toml --out new --seed -1",
    "train atlas --recipe tiny.toml --out new --seed 99999999999999999999",
    "train atlas --recipe tiny.toml --out new --seed one",
    "train atlas --recipe tiny.toml --out new --fold -2",
    "train atlas --recipe tiny.toml --out new --no-such",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --folds 1",
    "reproduce atlas --out new --budget huge",
    "crossval atlas --systems mtl --recipe tiny.toml --out new --folds -3",
    "import imagefolder photographs --out new --max-rejected -1",
    "split atlas --folds 1",
    "split atlas --tuning 1",
    "split atlas --seed -1",
    "demo --seed -1",
    "demo --images 59",
    "demo --images 901",
    "predict run/bundle",
    "bundle run atlas",
    "bundle run atlas --max-miss 0.9 --out new",
    "bundle run atlas --max-miss 0.0001 --out new",
    "similar run/bundle photographs/p000.png -k 0",
    "similar run/bundle photographs/p000.png --metric manhattan",
    "export run/bundle --tta five",
    "serve run/bundle --port 70000",
    "explain run atlas --sample -1",
    "import imagefolder photographs --out new --images macro",
    "predict run/bundle photographs/p000.png --format xml",
]


@pytest.mark.parametrize(
    ("command", "code"),
    [(command, 1) for command in BAD_INPUT] + [(command, 2) for command in BAD_USAGE],
    ids=lambda x: str(x)[:70],
)
def test_bad_input_and_usage_end_in_one_line_on_stderr(place, monkeypatch, capsys, command, code):
    monkeypatch.chdir(place.root)
    (place.root / "not-text.toml").write_bytes(b"name = '\xff\xfe'")
    (place.root / "not-text.csv").write_bytes(b"image_id,lesion/a\n\xff\xfe,1\n")
    assert leave(*command.split(" ")) == code
    shown = capsys.readouterr()
    told = {"", "image_id", "checking the images", "looking for copies"}
    assert set(shown.out.split("\n")) <= told or command.startswith("predict")
    assert one_line(shown.err).startswith({1: "error ", 2: "usage "}[code])
    assert len(re.sub(r"a{300}", "", shown.err)) > 20
    assert not (place.root / "new").exists()


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_help_has_an_example(name, capsys):
    assert leave(name, "--help") == 0
    assert f"Example: predilect {name}" in capsys.readouterr().out


def test_the_help_lists_every_command(capsys):
    assert leave("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in _COMMANDS)
    assert "Not a medical device" in shown
    assert "Exit codes: 0 done; 1 " in shown


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("trian atlas", 'usage Unknown command "trian". Did you mean "train"? See predilect --help'),
        ("train", 'usage Command "train" parameter ATLAS requires an argument. See predilect train --help'),
        ("split atlas --seed -1", 'usage Invalid value "-1" for --seed. Must be >= 0. See predilect split --help'),
        ("report run another", "usage Nothing takes 'another'. See predilect report --help"),
    ],
)
def test_wrong_usage_is_told_in_whole_sentences(capsys, command, said):
    assert leave(*command.split(" ")) == 2
    assert one_line(capsys.readouterr().err) == f"{said}\n"


def test_several_settings_may_follow_one_another(monkeypatch, place, capsys):
    given: list[object] = []
    monkeypatch.setattr("predilect.cli.train.compare", lambda _, chosen, *__, **___: given.extend(chosen))
    settings = ("--set", "iterations=4", "validate_every=2", "--set", "warmup=1")
    assert leave("train", place.atlas, "--recipe", place.recipe, *settings, "--fold", 0, "--out", place.root / "never") == 0
    (system,) = given
    assert (system.recipe.iterations, system.recipe.validate_every, system.recipe.warmup) == (4, 2, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("predict run/bundle photographs --format parquet", "--format parquet needs a file to write: --out FILE.parquet"),
        ("predict run/bundle photographs --out a.csv", "--out a.csv: a table for people is printed; to write a file, say --format"),
        ("predict missing photographs", "missing: there is no such folder"),
        (
            "predict half photographs",
            "half/bundle.json cannot be read: it is no whole JSON (line 1, column 2); copy the bundle again",
        ),
        ("refine atlas --taxonomy nope", "; a file of your own ends in .toml"),
    ],
)
def test_bad_input_is_told_with_what_helps(place, monkeypatch, capsys, command, said):
    monkeypatch.chdir(place.root)
    (place.root / "half").mkdir(exist_ok=True)
    (place.root / "half" / "bundle.json").write_text("{", encoding="utf-8")
    assert leave(*command.split(" ")) == 1
    assert said in one_line(capsys.readouterr().err)
