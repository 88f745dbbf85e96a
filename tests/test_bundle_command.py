"""`predilect bundle`: of a finished run one folder, the same that `crossval --refit` makes."""

from __future__ import annotations

import json

import pytest

from made_commands import leave, one_line
from predilect.bundle import Bundle
from predilect.evaluation.fitted_parts import fit_parts
from predilect.insight.bundle_index import INDEX_FOLDER, open_index
from predilect.run import Run

pytestmark = pytest.mark.usefixtures("without_figures")


def contents(folder) -> dict:
    return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))


def test_a_bundle_of_a_run_is_that_of_its_refit(place, tmp_path, capsys):
    out = tmp_path / "b"
    assert leave("bundle", place.run, place.atlas, "--system", "mtl", "--out", out) == 0
    shown = capsys.readouterr().out
    assert f"card      {out / 'card.md'}" in shown
    assert f"bundle    {out}" in shown
    theirs, ours = contents(place.run / "bundle"), contents(out)
    for info in (theirs, ours):
        del info["sha256"], info["files"]["card.md"]  # which names the command
        assert info["provenance"].pop("made_by").startswith("predilect ")
    assert ours == theirs
    assert not (out / INDEX_FOLDER).exists()
    for caveat in Bundle.open(out).fitted.caveats():
        assert f"note {' '.join(caveat.split())}" in " ".join(shown.split())


def test_aim_bound_and_index_are_as_asked_for(place, tmp_path, capsys):
    out = tmp_path / "b"
    options = ("--system", "resnet", "--aim", "sensitivity=0.99", "--max-miss", "0.2", "--index", "--photographs")
    assert leave("bundle", place.run, place.atlas, *options, "--out", out) == 0
    shown = capsys.readouterr().out
    bundle, run = Bundle.open(out), Run.open(place.run)
    assert bundle.system == "resnet"
    assert str(bundle.fitted.rule.thresholds.aim) == "sensitivity=0.99"
    assert bundle.fitted.rule.sets.max_miss_rate == 0.2
    expected = fit_parts(run.system_predictions("resnet"), run.truth(), aim=bundle.fitted.rule.thresholds.aim, max_miss_rate=0.2)
    assert (bundle.fitted.rule, bundle.fitted.site_prior) == (expected.rule, expected.site_prior)
    index = open_index(bundle)
    assert len(index) == len(index.images) == bundle.provenance["n_images"]
    (unreached,) = bundle.fitted.unreached()
    assert unreached.startswith("A sensitivity of 0.99 cannot be promised for 3 of the 3 that are decided on: it takes 99 groups")
    assert f"note      {unreached}\n" in shown
    assert "for a sensitivity of 0.99, and sets, with a bound of 20 %" in (out / "card.md").read_text(encoding="utf-8")
    assert not (place.run / "resnet" / "seed-1" / "refit" / "checkpoint" / "state.safetensors").exists()


def test_a_system_that_the_run_has_not_is_named(place, tmp_path, capsys):
    assert leave("bundle", place.run, place.atlas, "--system", "mlt", "--out", tmp_path / "b") == 1
    assert "did you mean 'mtl'" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "b").exists()


def test_a_place_that_is_taken_is_refused_before_any_training(place, capsys):
    before = (place.run / "bundle" / "bundle.json").read_bytes()
    assert leave("bundle", place.run, place.atlas, "--out", place.run / "bundle") == 1
    assert "already exists" in one_line(capsys.readouterr().err)
    assert (place.run / "bundle" / "bundle.json").read_bytes() == before
