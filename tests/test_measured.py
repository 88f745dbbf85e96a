"""All that a report measures: what is there when, and that nothing reported of a fold was fitted on its labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from made_commands import leave
from made_known_sites import drawn, folds_of, predictions_of
from predilect.evaluation import evaluate_calibration, measured
from predilect.evaluation.evaluate import evaluate
from predilect.evaluation.measured import measure
from predilect.labels.tasks import LESION
from predilect.report.report import report_schema

pytestmark = pytest.mark.usefixtures("without_figures")
FOLD = 1


@pytest.fixture(scope="module")
def moved():
    return drawn(n_groups=90, n_lesions=2, strength=1.5)


@pytest.fixture(scope="module")
def systems(moved):
    return {"resnet": predictions_of(moved, ["lesion"]), "mtl": predictions_of(moved, seeds=(1,))}


@pytest.fixture
def scored(monkeypatch):
    """Everything that is scored for a report as it is handed to what scores it: ``{what: (ids, values)}``."""
    found = {}

    def keep(what, ids, values):
        found[f"{what} {sum(key.startswith(what) for key in found)}"] = (np.asarray(ids).tolist(), np.array(values))

    def evaluated(truth, predictions, **options):
        for name, table in predictions.items():
            keep(f"raw {name}", table.image_ids, table.scores[LESION])
        return evaluate(truth, predictions, **options)

    said = evaluate_calibration._Class.said

    def of_class(self, scores, truth):
        p, _, _ = said(self, scores, truth)
        keep(f"probability of {self.column}", truth.image_ids[self.rows], p)
        return said(self, scores, truth)

    answers_out_of_fold = evaluate_calibration.answers_out_of_fold

    def answered(fits, *options):
        answers = answers_out_of_fold(fits, *options)
        for each in answers.values():
            keep("decisions", fits.matched.truth.image_ids, each.decided)
            keep("sets", fits.matched.truth.image_ids, each.possible)
            keep("unsure", fits.matched.truth.image_ids, each.unsure)
        return answers

    score_known_site = measured.score_known_site

    def site_known(tables, **options):
        for name, system in tables.systems.items():
            for state in ("plain", "calibrated", "conditioned"):
                table = getattr(system, state)
                keep(f"{name} {state}", table.image_ids, table.scores[LESION])
        for name, table in tables.baselines.items():
            keep(name, table.image_ids, table.scores[LESION])
        return score_known_site(tables, **options)

    monkeypatch.setattr(measured, "evaluate", evaluated)
    monkeypatch.setattr(evaluate_calibration._Class, "said", of_class)
    monkeypatch.setattr(evaluate_calibration, "answers_out_of_fold", answered)
    monkeypatch.setattr(measured, "score_known_site", site_known)
    return found


def test_nothing_in_a_report_was_fitted_on_the_fold_that_it_is_reported_on(moved, systems, scored, tmp_path, capsys):
    """Every lesion label of a fold is turned round: all that is scored of that fold stays as it was, bit for bit."""
    labels = moved.truth.values["lesion"].copy()
    labels[folds_of(moved.truth) == FOLD] = 1 - labels[folds_of(moved.truth) == FOLD]
    turned = replace(moved.truth, values={**moved.truth.values, "lesion": labels})
    tables = []
    for name, table in systems.items():
        table.write(tmp_path / f"{name}.parquet")
        tables.append(f"{name}={tmp_path / name}.parquet")
    runs = {}
    for name, truth in (("before", moved.truth), ("after", turned)):
        truth.write(tmp_path / f"{name}.csv")
        assert leave("evaluate", "--predictions", *tables, "--truth", tmp_path / f"{name}.csv", "--out", tmp_path / name) == 0
        runs[name] = dict(scored)
        scored.clear()
    capsys.readouterr()
    before, after = runs["before"], runs["after"]
    assert before.keys() == after.keys()
    fold_of = dict(zip(moved.truth.image_ids.tolist(), folds_of(moved.truth).tolist(), strict=True))
    fitted = []
    for what, (ids, values) in before.items():
        here = np.array([fold_of[key] == FOLD for key in ids])
        assert ids == after[what][0]
        np.testing.assert_array_equal(after[what][1][here], values[here], err_msg=what)
        if (after[what][1][~here] != values[~here]).any():
            fitted.append(what.rsplit(" ", 1)[0])
    # And what is fitted does depend on the labels of that fold, everywhere else.
    wanted = {f"{system} {state}" for system in systems for state in ("calibrated", "conditioned")}
    wanted |= {"decisions", "sets", "prevalence", "prevalence+site"}
    wanted |= {f"probability of lesion/{name}" for name in moved.truth.labels["lesion"].classes}
    assert wanted <= set(fitted)
    assert not any(what.startswith(("raw", "mtl plain", "probability of site")) for what in fitted)
    report = json.loads((tmp_path / "before" / "report.json").read_text())
    assert report["calibration"]["systems"].keys() == {"resnet", "mtl"}
    assert {"mtl+site", "resnet+site", "prevalence"} <= report["known_site"]["systems"].keys()
    assert {"calibration", "known_site"} <= report_schema()["properties"].keys()


def test_what_needs_folds_is_absent_without_them(moved, systems):
    told = []
    table = systems["mtl"]
    none = measure(moved.truth, {"mtl": replace(table, folds=None)}, on_progress=lambda *steps: told.append(steps))
    assert (none.calibration, none.known_site) == (None, None)
    assert {what for what, _, _ in told} == {"resampling"}
    two = measure(moved.truth, {"mtl": predictions_of(moved, n_folds=2)})
    assert two.calibration is not None
    assert two.known_site is None


def test_only_those_that_are_asked_for_are_calibrated(moved, systems):
    told = []
    found = measure(moved.truth, systems, calibrated=["mtl"], on_progress=lambda *steps: told.append(steps))
    assert found.evaluation.systems.keys() == {"resnet", "mtl"}
    assert found.calibration.systems.keys() == {"mtl"}
    assert found.known_site.effects.keys() == {"mtl"}
    works = list(dict.fromkeys(what for what, _, _ in told))
    assert works == ["resampling", "measuring calibrations", "learning what sites do", "resampling, the site being known"]
    for work in works:
        done, total = [steps[1:] for steps in told if steps[0] == work][-1]
        assert done == total
