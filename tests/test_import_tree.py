"""A tree of 5,000 photographs in nested folders, 40 of them broken: 4,960 in the atlas and 40 reasons."""

from __future__ import annotations

import polars as pl
import pytest

from made_images import CASES, jpeg, picture
from predilect.atlas.build import build_atlas, packing_path
from predilect.atlas.importers import imagefolder
from predilect.errors import TooManyRejectedError
from predilect.labels.taxonomy import Taxonomy

N, BROKEN = 5000, 40


def test_a_tree_of_photographs_with_some_broken(tmp_path):
    source, out = tmp_path / "source", tmp_path / "atlas"
    hostile = [name for name, make in CASES.items() if make().said is not None and len(make().data) < 200_000][:BROKEN]
    few = [jpeg(picture(seed)) for seed in range(20)]
    rows, broken = [], {}
    for k in range(N):
        path = source / f"{k % 10}" / f"{k % 12}" / f"{k % 3}" / f"{k:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.relative_to(source).as_posix()
        rows.append({"file_name": name, "lesions": ("papule", "crust")[k % 2]})
        if k % (N // BROKEN) == 7:
            made = CASES[hostile[len(broken)]]()
            path.write_bytes(made.data)
            broken[k + 1] = (name, made.said)
        else:
            path.write_bytes(few[k % len(few)])
    pl.DataFrame(rows).write_csv(source / "metadata.csv")
    imported = imagefolder.read(source)
    with pytest.raises(TooManyRejectedError, match=r"40 of 5000 rows.*--max-rejected 40 --resume goes on"):
        build_atlas(imported, Taxonomy.preset("as-is"), out, max_rejected=39)
    assert not out.exists()

    told = []
    atlas = build_atlas(
        imported,
        Taxonomy.preset("as-is"),
        out,
        max_rejected=40,
        resume=True,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(N, N)]  # all of it was packed before
    assert atlas.counts.model_dump() == {"photos": 4960, "rejected": 40, "excluded": 0, "unlisted": 0}
    rejected = pl.read_csv(out / "rejected.csv")
    assert dict(zip(rejected["row"], rejected["file"], strict=True)) == {row: name for row, (name, _) in broken.items()}
    for row, reason in rejected.select("row", "reason").iter_rows():
        assert broken[row][1] in reason
    assert atlas.images().image_ids.tolist() == atlas.photos["image_id"].to_list()
    assert not packing_path(out).exists()
