"""What each fold holds, counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from made_groups import atlas, photos
from predilect.atlas.balance import balance_table
from predilect.atlas.splits import Splits, make_splits
from predilect.errors import SplitError

SHARED = Path(__file__).parents[1].parent / "shared"
HASH = "0123456789abcdef"


def test_the_balance_table_counts_by_fold():
    table = photos(*({"image_id": name, "patient_id": patient} for name, patient in zip("abcdefg", "1123456", strict=True)))
    table = table.with_columns(
        pl.Series("lesion/scar", [1, 1, 0, 1, None, 0, 1], dtype=pl.Int8),
        pl.Series("lesion/cyst", [0, 0, None, 0, None, 0, 1], dtype=pl.Int8),
        pl.Series("site/hand", [1, None, 1, 1, 1, 1, 1], dtype=pl.Int8),
    )
    made = Splits(
        image_ids=np.array(list("gfedcba")),
        groups=np.array(list("gfedcaa")),
        folds=np.array([-1, 1, 1, 1, 0, 0, 0]),
        content_hash=HASH,
        seed=0,
    )
    expected = pl.DataFrame(
        [
            ("photographs", 7, 6, 1, 3, 3, 0.0),
            ("groups", 6, 6, 1, 2, 3, 0.2),
            ("lesion known", 6, 5, 1, 3, 2, 0.2),
            ("site known", 6, 6, 1, 2, 3, 0.2),
            ("lesion/scar", 4, 3, 1, 2, 1, 1 / 3),
            ("lesion/cyst", 1, 1, 1, 0, 0, None),
            ("site/hand", 6, 6, 1, 2, 3, 0.2),
        ],
        schema=["label", "total", "groups", "tuning", "fold 0", "fold 1", "largest_deviation"],
        orient="row",
    )
    found = balance_table(made, table, ["lesion/scar", "lesion/cyst", "site/hand"])
    assert found.columns == expected.columns
    assert found.drop("largest_deviation").rows() == expected.drop("largest_deviation").rows()
    assert found["largest_deviation"].to_list() == pytest.approx(expected["largest_deviation"].to_list())


def test_the_balance_table_of_other_photographs_is_an_error():
    table, columns = atlas()
    made = make_splits(table, columns, content_hash=HASH)
    with pytest.raises(SplitError, match="lists image_id 'i0000', which the atlas lacks"):
        balance_table(made, table[1:], columns)


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="the development photographs are not here")
def test_patients_of_pad_ufes_20_stay_together_and_every_diagnosis_is_in_every_fold():
    found = pl.read_csv(SHARED / "data" / "pad-ufes-20" / "metadata.csv", infer_schema=False)
    diagnoses = [f"lesion/{name}" for name in found["diagnostic"].unique().sort()]
    table = found.select(
        pl.col("img_id").alias("image_id"), "patient_id", "lesion_id", pl.lit(None, pl.String).alias("case_id"), pl.lit("pad").alias("source"),
        *((pl.col("diagnostic") == name.removeprefix("lesion/")).cast(pl.Int8).alias(name) for name in diagnoses),
    )  # fmt: skip
    made = make_splits(table, diagnoses, folds=5, content_hash=HASH)
    assert len(set(made.groups.tolist())) == found["patient_id"].n_unique()
    balance = balance_table(made, table, diagnoses)
    enough = balance.filter(pl.col("groups") >= 5).select(r"^fold \d$")
    assert enough.height >= 5
    assert enough.min_horizontal().min() >= 1
