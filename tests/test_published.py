"""The paper's Table 1 as it is shipped: held to the printed means, to the paper's own claims and to the preset's names."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from made_evaluation import made_evaluation
from predilect.labels.taxonomy import Taxonomy
from predilect.report.published import published_frame, published_rows, published_table

TABLE = published_table()
RESNET, MTL, ENSEMBLE = (TABLE.systems[name].per_class for name in ("resnet", "mtl", "ensemble"))
ROUNDING = 0.0005 + 0.0005  # of a printed mean, and the most that the rounded rows can move it


def test_the_table_is_that_of_the_paper():
    assert (TABLE.dataset, TABLE.n_images, TABLE.n_lesions) == ("DermQuest", 21_657, 25)
    assert list(TABLE.systems) == ["alexnet", "resnet", "mtl", "ensemble"]
    assert {name: (scores.map_class, scores.map_image) for name, scores in TABLE.systems.items()} == {
        "alexnet": (0.598, 0.704),
        "resnet": (0.726, 0.778),
        "mtl": (0.757, 0.792),
        "ensemble": (0.761, 0.798),
    }
    # One row each from the top, the middle and the foot of the printed table, all four columns.
    for lesion, row in {
        "alopecia": (0.763, 0.845, 0.843, 0.855),
        "hyperpigmented papule": (0.589, 0.690, 0.738, 0.730),
        "vesicular/pustular": (0.664, 0.792, 0.814, 0.823),
    }.items():
        assert tuple(scores.per_class[lesion] for scores in TABLE.systems.values()) == row
    with pytest.raises(ValidationError, match="frozen"):
        TABLE.n_images = 1


@pytest.mark.parametrize("name", list(TABLE.systems))
def test_the_printed_mean_of_each_column_is_the_mean_of_its_rows(name):
    scores = TABLE.systems[name]
    assert len(scores.per_class) == TABLE.n_lesions
    mean = np.mean(list(scores.per_class.values()))
    assert mean == pytest.approx(scores.map_class, abs=ROUNDING)
    # As printed, the rows even give the printed digits.
    assert f"{mean:.3f}" == f"{scores.map_class:.3f}"
    assert scores.map_image > scores.map_class


def test_each_system_is_above_the_one_before_it_in_both_means():
    means = np.array([(scores.map_class, scores.map_image) for scores in TABLE.systems.values()])
    assert (np.diff(means, axis=0) > 0).all()


def test_the_examples_of_the_text_gain_four_points_and_alopecia_nothing():
    gains = {lesion: round(MTL[lesion] - RESNET[lesion], 3) for lesion in MTL}
    named = {"comedones": 0.044, "edema": 0.044, "hyperpigmented papule": 0.048, "oozing": 0.079, "tumour": 0.040}
    assert {lesion: gains[lesion] for lesion in named} == named
    assert {lesion for lesion, gain in gains.items() if gain >= 0.04} - set(named) == {"cyst", "other papule", "squames/scales"}
    assert {lesion for lesion, gain in gains.items() if gain <= 0} == {"alopecia", "other plaque"}


def test_the_ensemble_was_no_choice_per_class():
    # A choice per class, made on what is scored, is never below the better of the two, and never above it.
    assert sum(ENSEMBLE[lesion] < MTL[lesion] for lesion in MTL) == 7
    assert sum(ENSEMBLE[lesion] > max(MTL[lesion], RESNET[lesion]) for lesion in MTL) == 17


def test_lesions_are_named_as_the_preset_refines_them():
    preset = Taxonomy.open("dermquest")
    merged = {part: name for name, parts in preset.lesion.merges.items() for part in parts}
    assert set(MTL) == {merged.get(term, term) for term in preset.lesion.terms}


def test_the_frame_holds_every_number_once():
    frame = published_frame(TABLE)
    assert frame.columns == ["system", "metric", "lesion", "value"]
    assert frame.height == 4 * (25 + 2)
    assert frame.unique(["system", "metric", "lesion"]).height == frame.height
    assert frame.row(by_predicate=(pl.col("system") == "mtl") & (pl.col("lesion") == "oozing")) == ("mtl", "ap", "oozing", 0.674)
    assert frame.filter(system="ensemble", metric="map_image")["value"].to_list() == [0.798]


def test_rows_set_the_papers_means_and_differences_beside_ours():
    evaluation = made_evaluation(12, 9, systems=("resnet", "resnet-site", "mtl"))
    rows = {row.name: row for row in published_rows(evaluation, TABLE)}
    assert list(rows) == ["alexnet", "resnet", "mtl", "ensemble", "mtl − resnet"]
    assert [estimate.value for estimate in rows["ensemble"].ours] == [None, None]
    mtl = evaluation.systems["mtl"].lesion
    assert (rows["mtl"].ours[1].value, rows["mtl"].ours[1].low) == (mtl.map_image, mtl.map_image_low)
    gain = rows["mtl − resnet"]
    assert gain.difference
    assert gain.paper == pytest.approx((0.757 - 0.726, 0.792 - 0.778))
    compared = {item.metric: item for item in evaluation.comparisons if item.task == "lesion"}
    assert [(item.value, item.low, item.high) for item in gain.ours] == [
        (compared[metric].difference, compared[metric].low, compared[metric].high) for metric in ("map_class", "map_image")
    ]
