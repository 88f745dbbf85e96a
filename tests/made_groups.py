"""Tables of photographs and labels for the tests of groups and splits."""

from __future__ import annotations

import numpy as np
import polars as pl

from predilect.atlas.photo import Photo, photo_table


def photos(*rows: dict) -> pl.DataFrame:
    return photo_table(Photo(file_name=f"{row['image_id']}.jpg", **row) for row in rows)


def named(codes: np.ndarray) -> np.ndarray:
    return np.char.add("g", codes.astype(str))


def rare_labels(seed: int, n_labels: int = 30, n_photos: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Groups of 1 to 8 photographs, and labels of 10 to 40 positives that cluster within groups."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=n_photos // 4)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.zeros((len(codes), n_labels), dtype=np.int8)
    for column in labels.T:
        wanted = rng.integers(10, 41)
        while column.sum() < wanted:
            members = np.flatnonzero(codes == rng.integers(len(sizes)))
            column[members[rng.random(len(members)) < 0.6]] = 1
    return labels, named(codes)


def atlas(n_groups: int = 60, seed: int = 0) -> tuple[pl.DataFrame, list[str]]:
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_groups), rng.integers(1, 5, size=n_groups))
    n = len(patients)
    table = photos(*({"image_id": f"i{row:04}", "patient_id": f"p{patient}"} for row, patient in enumerate(patients)))
    lesions = (rng.random((n, 3)) < (0.5, 0.2, 0.1)).astype(np.int8)
    site = np.eye(4, dtype=np.int8)[rng.integers(4, size=n)]
    columns = ["lesion/papule", "lesion/erosion/ulcer", "lesion/scar", "site/hand", "site/face", "site/trunk", "site/leg"]
    labels = pl.DataFrame(np.column_stack([lesions, site]), schema=dict.fromkeys(columns, pl.Int8))
    known = pl.Series(rng.random(n) < 0.8)
    labels = labels.with_columns(pl.when(known).then(pl.col("^site/.*$")).name.keep())
    return pl.concat([table, labels], how="horizontal"), columns
