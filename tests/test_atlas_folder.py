from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from made_sources import write_folder, write_image, write_milk10k
from predilect.atlas.build import build_atlas, rejected_path, replay
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import imagefolder, milk10k
from predilect.atlas.jpeg import prepare_image
from predilect.atlas.photo import PHOTO_SCHEMA
from predilect.errors import AtlasError, LabelError, PredilectError, TooManyRejectedError
from predilect.files import checksum
from predilect.labels.taxonomy import Taxonomy

ROWS = [
    {
        "file_name": "p/000655.png",
        "lesions": "papule;scar",
        "lesions_unknown": "",
        "site": "arm",
        "patient_id": "01",
        "age": "34",
        "zoom": "2",
    },
    {
        "file_name": "p/000656.jpg",
        "lesions": "none",
        "lesions_unknown": "scar",
        "site": "",
        "patient_id": "01",
        "age": "",
        "zoom": "3",
    },
    {"file_name": "q/7.jpg", "lesions": "", "lesions_unknown": "", "site": "leg", "patient_id": "2", "age": "50", "zoom": ""},
    {
        "file_name": "q/8.jpg",
        "lesions": "Papule",
        "lesions_unknown": "",
        "site": "arm;leg",
        "patient_id": "",
        "age": "",
        "zoom": "",
    },
]
ONE_LESION = 'schema_version = 1\nname = "one"\ndrop_below = 1\n[lesion]\nmerges = { "bump" = ["papule", "scar"] }\n[site]\nunknown_terms = "drop"\n'


@pytest.fixture
def source(tmp_path) -> Path:
    return write_folder(tmp_path / "source", ROWS)


def _build(source: Path, out: Path, **options) -> Atlas:
    return build_atlas(imagefolder.read(source), Taxonomy.preset("as-is"), out, **options)


@pytest.fixture
def atlas(source, tmp_path) -> Atlas:
    return _build(source, tmp_path / "atlas")


class TestBuilding:
    def test_row_i_is_packed_image_i(self, atlas, source):
        images = atlas.images()
        assert images.image_ids.tolist() == atlas.photos["image_id"].to_list() == ["000655", "000656", "7", "8"]
        for row, (name, width, height, sha256) in enumerate(
            atlas.photos.select("file_name", "width", "height", "sha256").iter_rows()
        ):
            prepared = prepare_image(source / name, 512)
            assert images[row] == prepared.data
            assert (width, height, sha256) == (prepared.width, prepared.height, prepared.sha256)

    def test_photos_hold_raw_terms_carried_columns_and_labels(self, atlas):
        labels = ["lesion/papule", "lesion/scar", "site/arm", "site/leg"]
        assert atlas.photos.columns == [*PHOTO_SCHEMA.names(), "zoom", "width", "height", "sha256", *labels, "refinement_flag"]
        assert atlas.photos["lesions"].to_list() == [["papule", "scar"], [], None, ["Papule"]]
        assert atlas.photos["zoom"].to_list() == ["2", "3", None, None]
        assert atlas.photos.select(labels).rows() == [
            (1, 1, 1, 0),
            (0, None, None, None),
            (None, None, 0, 1),
            (1, 0, None, None),
        ]
        assert atlas.photos["refinement_flag"].to_list() == [None, None, None, "several sites"]
        assert atlas.labels.columns == tuple(labels)

    def test_the_folder_tells_what_it_is(self, atlas):
        names = ["atlas.json", "images.arrow", "photos.parquet", "refinement.csv", "rejected.csv", "taxonomy.toml"]
        assert sorted(path.name for path in atlas.path.iterdir()) == names
        description = json.loads((atlas.path / "atlas.json").read_text())
        assert description["schema_version"] == 1
        assert description["counts"] == {"photos": 4, "rejected": 0, "excluded": 0, "unlisted": 0}
        assert description["sha256"] == {name: checksum(atlas.path / name) for name in names[2:]}
        assert description["images_size"] == (atlas.path / "images.arrow").stat().st_size
        log = pl.read_csv(atlas.path / "refinement.csv")
        assert log.filter(pl.col("raw_term") == "Papule").select("became", "n_images").row(0) == ("papule", 1)

    def test_sources_and_taxonomy_come_back_as_they_were(self, tmp_path):
        imported = milk10k.read(write_milk10k(tmp_path / "source"), images="dermoscopic")
        taxonomy = Taxonomy.preset("milk10k").model_copy(update={"drop_below": 1})
        atlas = build_atlas(imported, taxonomy, tmp_path / "atlas")
        assert atlas.sources == imported.sources
        assert atlas.taxonomy == taxonomy
        assert atlas.counts.excluded == 3
        assert (atlas.path / "atlas.json").read_text() == (
            build_atlas(imported, taxonomy, tmp_path / "b").path / "atlas.json"
        ).read_text()

    def test_progress_is_told(self, source, tmp_path):
        seen = []
        _build(source, tmp_path / "atlas", on_progress=lambda done, total: seen.append((done, total)))
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def test_the_truth_is_the_labels(self, atlas):
        groups = np.array(["a", "a", "b", "c"])
        truth = atlas.truth(groups)
        assert truth.image_ids.tolist() == ["000655", "000656", "7", "8"]
        assert truth.values["lesion"].tolist() == [[1, 1], [0, -1], [-1, -1], [1, 0]]
        assert truth.values["site"].tolist() == [[1, 0], [-1, -1], [0, 1], [-1, -1]]
        assert truth.values["lesion"].dtype == np.int8
        assert truth.covariates["age"].to_list() == [34, None, 50, None]
        assert truth.group_indices().tolist() == [0, 0, 1, 2]
        assert atlas.truth(None).groups is None
        with pytest.raises(ValueError, match="1 groups for 4"):
            atlas.truth(groups[:1])


class TestContentHash:
    def test_it_is_made_as_described(self, atlas):
        labels = {
            "lesion": {"classes": ["papule", "scar"], "machine": []},
            "site": {"classes": ["arm", "leg"], "machine": []},
        }
        text = json.dumps(labels, separators=(",", ":")) + "\n"
        text += "".join(f"{image_id}\t{sha256}\n" for image_id, sha256 in atlas.photos.select("image_id", "sha256").iter_rows())
        cells = b"".join(
            bytes(255 if cell is None else cell for cell in row) for row in atlas.photos.select(atlas.labels.columns).iter_rows()
        )
        assert atlas.content_hash == hashlib.sha256(text.encode() + cells).hexdigest()

    def test_it_depends_on_the_content_alone(self, atlas, source, tmp_path):
        assert _build(source, tmp_path / "elsewhere").content_hash == atlas.content_hash
        moved = source.rename(tmp_path / "moved")
        assert _build(moved, tmp_path / "again").content_hash == atlas.content_hash
        write_image(moved / "q" / "7.jpg", seed=99)
        other_pixels = _build(moved, tmp_path / "pixels").content_hash
        manifest = moved / "metadata.csv"
        manifest.write_text(manifest.read_text().replace("papule;scar", "papule"))
        hashes = {atlas.content_hash, other_pixels, _build(moved, tmp_path / "labels").content_hash}
        assert len(hashes) == 3


class TestRejecting:
    @pytest.fixture
    def gaps(self, source) -> Path:
        """Row 1 has no image, row 3 a broken one."""
        (source / "p" / "000655.png").unlink()
        (source / "q" / "7.jpg").write_bytes(b"no image")
        write_image(source / "extra.png")
        return source

    def test_a_missing_image_stops_the_import_before_any_is_opened(self, gaps, tmp_path):
        out = tmp_path / "atlas"
        with pytest.raises(TooManyRejectedError) as refusal:
            _build(gaps, out)
        message = str(refusal.value)
        for part in (
            "1 of 4 rows",
            "0 are allowed",
            "before any was opened",
            "row 1, p/000655.png",
            "--max-rejected 1",
            str(rejected_path(out)),
        ):
            assert part in message
        assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas.rejected.csv", "source"]

    def test_a_broken_image_stops_it_too_and_all_reasons_are_told(self, gaps, tmp_path):
        out = tmp_path / "atlas"
        with pytest.raises(TooManyRejectedError, match=r"2 of 4 rows.*--max-rejected 2 --resume goes on"):
            _build(gaps, out, max_rejected=1)
        table = pl.read_csv(rejected_path(out))
        assert table.columns == ["file", "row", "reason"]
        assert table.select("file", "row").rows() == [("p/000655.png", 1), ("q/7.jpg", 3)]
        assert "no image of that name" in table["reason"][0]
        assert "no image of a known format" in table["reason"][1]
        assert sorted(path.name for path in tmp_path.iterdir()) == [".atlas-packing", "atlas.rejected.csv", "source"]
        _build(gaps, out, max_rejected=2, resume=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas", "source"]

    def test_what_is_allowed_is_left_out_and_listed(self, gaps, tmp_path):
        with pytest.raises(TooManyRejectedError):
            _build(gaps, tmp_path / "atlas")
        atlas = _build(gaps, tmp_path / "atlas", max_rejected=2)
        assert atlas.photos["image_id"].to_list() == ["000656", "8"] == atlas.images().image_ids.tolist()
        assert atlas.counts.model_dump() == {"photos": 2, "rejected": 2, "excluded": 0, "unlisted": 1}
        assert pl.read_csv(atlas.path / "rejected.csv").select("file", "row").rows() == [("p/000655.png", 1), ("q/7.jpg", 3)]
        assert not rejected_path(atlas.path).exists()
        with pytest.raises(ValueError, match="negative"):
            _build(gaps, tmp_path / "b", max_rejected=-1)

    def test_only_the_first_reasons_are_printed(self, tmp_path):
        root = write_folder(tmp_path / "source", [{"file_name": f"{number}.jpg", "lesions": "x"} for number in range(25)])
        for number in range(1, 25):
            (root / f"{number}.jpg").write_bytes(b"?")
        with pytest.raises(TooManyRejectedError, match=r"24 of 25 rows(.|\n)*24 x it is no image.*row 4, 3\.jpg and 21 more"):
            _build(root, tmp_path / "atlas")
        assert pl.read_csv(rejected_path(tmp_path / "atlas")).height == 24

    def test_nothing_left_is_an_error(self, tmp_path):
        root = write_folder(tmp_path / "source", [{"file_name": "1.jpg", "lesions": "x"}])
        (root / "1.jpg").write_bytes(b"?")
        with pytest.raises(AtlasError, match="no photograph is left"):
            _build(root, tmp_path / "atlas", max_rejected=1)
        (root / "1.jpg").unlink()
        with pytest.raises(AtlasError, match="no photograph is left"):
            _build(root, tmp_path / "atlas", max_rejected=1)
        assert [path.name for path in tmp_path.iterdir()] == ["source"]

    def test_an_unknown_term_is_named_by_its_row_in_the_source(self, gaps, tmp_path):
        taxonomy = Taxonomy.from_toml(
            'schema_version = 1\nname = "t"\n[lesion]\nterms = ["papule", "scar"]\n[site]\nterms = ["arm"]', "t"
        )
        with pytest.raises(LabelError, match=r"metadata\.csv, row 3: the taxonomy does not know the site 'leg'"):
            build_atlas(imagefolder.read(gaps), taxonomy, tmp_path / "atlas", max_rejected=2)
        assert [path.name for path in tmp_path.iterdir()] == ["source"]

    def test_an_existing_folder_is_not_overwritten(self, atlas, source):
        before = (atlas.path / "atlas.json").read_text()
        with pytest.raises(PredilectError, match="already exists"):
            _build(source, atlas.path)
        assert (atlas.path / "atlas.json").read_text() == before

    @pytest.mark.parametrize("column", ["width", "sha256", "refinement_flag", "lesion/papule"])
    def test_a_column_of_the_atlas_s_own_is_refused(self, tmp_path, column):
        root = write_folder(tmp_path / "source", [{"file_name": "1.jpg", "lesions": "x", column: "1"}])
        with pytest.raises(AtlasError, match=f"column '{column}' is one that the atlas makes itself"):
            _build(root, tmp_path / "atlas")

    def test_an_interrupted_import_leaves_no_atlas(self, source, tmp_path):
        def interrupt(*_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            _build(source, tmp_path / "atlas", on_progress=interrupt)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".atlas-packing", "source"]


class TestOpening:
    def test_what_was_built_opens_the_same(self, atlas):
        again = Atlas.open(atlas.path)
        assert again.photos.equals(atlas.photos)
        assert (again.labels, again.taxonomy, again.sources, again.content_hash) == (
            atlas.labels, atlas.taxonomy, atlas.sources, atlas.content_hash,
        )  # fmt: skip
        assert len(again) == 4

    @pytest.mark.parametrize("name", ["photos.parquet", "taxonomy.toml", "refinement.csv", "rejected.csv", "images.arrow"])
    def test_a_changed_or_missing_file_is_refused(self, atlas, name):
        path = atlas.path / name
        path.write_bytes(path.read_bytes() + b"\n")
        with pytest.raises(AtlasError, match=f"{name} (is missing or )?was changed"):
            Atlas.open(atlas.path)
        path.unlink()
        with pytest.raises(AtlasError, match=name):
            Atlas.open(atlas.path)

    def test_labels_changed_by_hand_are_refused(self, atlas):
        path = atlas.path / "photos.parquet"
        pl.read_parquet(path).with_columns(pl.lit(1, dtype=pl.Int8).alias("lesion/scar")).write_parquet(path)
        with pytest.raises(AtlasError, match=r"photos\.parquet was changed"):
            Atlas.open(atlas.path)

    def test_images_of_another_atlas_are_refused(self, atlas, source, tmp_path):
        manifest = source / "metadata.csv"
        manifest.write_text(manifest.read_text().replace("q/7.jpg", "q/9.jpg"))
        (source / "q" / "7.jpg").rename(source / "q" / "9.jpg")
        other = _build(source, tmp_path / "other")
        (other.path / "images.arrow").replace(atlas.path / "images.arrow")
        with pytest.raises(AtlasError, match="does not hold the images"):
            Atlas.open(atlas.path).images()

    def test_another_schema_version_or_shape_is_refused(self, atlas):
        path = atlas.path / "atlas.json"
        description = json.loads(path.read_text())
        for change, said in [
            ({"schema_version": 2}, "found schema_version 2, this version of Predilect reads 1"),
            ({"counts": {"photos": "many"}}, r"counts\.photos"),
            ({"note": "more"}, "note"),
        ]:
            path.write_text(json.dumps(description | change))
            with pytest.raises(AtlasError, match=said):
                Atlas.open(atlas.path)
        path.unlink()
        with pytest.raises(AtlasError, match=r"atlas\.json: there is no such file"):
            Atlas.open(atlas.path)
        with pytest.raises(AtlasError, match="no such atlas folder"):
            Atlas.open(atlas.path / "nowhere")


class TestReplaying:
    def test_labels_change_and_all_else_stays(self, atlas):
        (atlas.path / "splits.parquet").write_bytes(b"folds of before")
        images = (atlas.path / "images.arrow").stat()
        other = replay(atlas.path, Taxonomy.from_toml(ONE_LESION, "one"))
        assert other.labels.columns == ("lesion/bump",)
        assert other.photos["lesion/bump"].to_list() == [1, None, None, 1]
        assert other.raw().equals(atlas.raw())
        assert (other.sources, other.counts) == (atlas.sources, atlas.counts)
        assert other.content_hash != atlas.content_hash
        assert other.images()[2] == Atlas.open(atlas.path).images()[2]
        assert (atlas.path / "images.arrow").stat().st_ino == images.st_ino
        assert (atlas.path / "splits.parquet").read_bytes() == b"folds of before"
        assert "bump" in (atlas.path / "refinement.csv").read_text()

    def test_what_was_half_written_in_it_is_left_behind(self, atlas):
        (atlas.path / ".writing-abc").mkdir()
        (atlas.path / ".writing-abc" / "splits.parquet").write_bytes(b"half")
        (atlas.path / "notes").mkdir()
        (atlas.path / "notes" / "mine.txt").write_text("mine")
        replay(atlas.path, Taxonomy.from_toml(ONE_LESION, "one"))
        assert not (atlas.path / ".writing-abc").exists()
        assert (atlas.path / "notes" / "mine.txt").read_text() == "mine"

    def test_who_may_read_it_stays(self, atlas):
        atlas.path.chmod(0o700)
        replay(atlas.path, Taxonomy.from_toml(ONE_LESION, "one"))
        assert stat.S_IMODE(atlas.path.stat().st_mode) == 0o700

    def test_the_way_back_is_open(self, atlas):
        replay(atlas.path, Taxonomy.from_toml(ONE_LESION, "one"))
        back = replay(atlas.path, Taxonomy.preset("as-is"))
        assert back.content_hash == atlas.content_hash
        assert back.photos.equals(atlas.photos)

    def test_a_taxonomy_that_does_not_fit_leaves_the_atlas_as_it_was(self, atlas, tmp_path):
        taxonomy = Taxonomy.from_toml('schema_version = 1\nname = "t"\n[lesion]\nterms = ["papule"]', "t")
        with pytest.raises(LabelError, match=r"photos\.parquet, row 1: the taxonomy does not know the lesion 'scar'"):
            replay(atlas.path, taxonomy)
        assert Atlas.open(atlas.path).content_hash == atlas.content_hash
        assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas", "source"]

    def test_what_a_source_assesses_is_remembered(self, tmp_path):
        imported = milk10k.read(write_milk10k(tmp_path / "source"))
        terms = "\n".join(f'{code} = "{code.lower()} x"' for code in milk10k.DIAGNOSES)
        text = f'schema_version = 1\nname = "t"\ndrop_below = 1\n[lesion.aliases]\n{terms}\n[site]\nunknown_terms = "keep"'
        build_atlas(imported, Taxonomy.from_toml(text, "t"), tmp_path / "atlas", max_rejected=1)
        atlas = replay(tmp_path / "atlas", Taxonomy.from_toml(text, "t"))
        assert atlas.sources[0].assessed == set(milk10k.DIAGNOSES)
        assert atlas.photos.select("lesion/bcc x", "lesion/nv x").rows() == [(1, 0), (0, 1)]
