"""Nothing above the torch line imports torch, nor do help, evaluate and report; and no package is asked for that nothing imports."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WATCHED = """
import atexit, os, sys
def look():
    loaded = sorted({"torch", "torchvision", "timm", "lightning_fabric"} & set(sys.modules))
    if loaded:
        print("loaded", loaded, file=sys.stderr, flush=True)
        os._exit(99)
atexit.register(look)
"""


def without_torch(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCHED + code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_watch_itself_works():
    result = without_torch("import predilect.vision.losses")
    assert result.returncode == 99
    assert "torch" in result.stderr


@pytest.mark.parametrize(
    "module", ["labels.taxonomy", "atlas.build", "atlas.synthetic", "evaluation.evaluate", "report.report", "run", "recipe"]
)
def test_modules_above_the_line_need_no_torch(module):
    result = without_torch(f"import predilect.{module}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["crossval", "--help"], ["predict", "--help"], ["demo", "--help"]])
def test_help_needs_no_torch(arguments):
    result = without_torch("from predilect.cli import main; main()", *arguments)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


def test_evaluate_needs_no_torch(tmp_path):
    (tmp_path / "truth.csv").write_text("image_id,group,lesion/crust,site/arm,site/face\n001,a,1,1,0\n002,b,0,0,1\n003,c,1,,\n")
    (tmp_path / "p.csv").write_text("image_id,lesion/crust,site/arm,site/face\n001,0.9,0.8,0.2\n002,0.2,0.3,0.7\n003,0.4,0.5,0.5\n")
    result = without_torch(
        "from predilect.cli import main; main()", "evaluate", "--predictions", f"mine={tmp_path / 'p.csv'}",
        "--truth", str(tmp_path / "truth.csv"), "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "report.html").is_file()


def test_each_package_that_an_installation_brings_is_imported():
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    providers = packages_distributions()
    needed = {provider.lower().replace("_", "-") for name in imported for provider in providers.get(name, ())}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    assert declared - needed == set()
