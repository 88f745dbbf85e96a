from __future__ import annotations

import polars as pl
import pytest

from made_sources import ham_row, milk_row, milk_truth, pad_row, write_folder, write_image, write_milk10k, write_table
from predilect.atlas.importers import REJECTED_SCHEMA, SOURCES, ham10000, imagefolder, milk10k, pad_ufes_20
from predilect.atlas.photo import PHOTO_SCHEMA
from predilect.errors import AtlasError
from predilect.labels.taxonomy import Taxonomy


def test_every_source_has_a_name_and_a_preset(tmp_path):
    assert list(SOURCES) == ["imagefolder", "milk10k", "pad-ufes-20", "ham10000"]
    write_milk10k(tmp_path / "milk10k")
    write_table(tmp_path / "pad-ufes-20" / "metadata.csv", [pad_row("PAT_1_2_3")])
    write_table(tmp_path / "ham10000" / "HAM10000_metadata.csv", [ham_row("ISIC_1")])
    write_table(tmp_path / "imagefolder" / "metadata.csv", [{"file_name": "a.jpg", "lesions": "x"}])
    for name, read in SOURCES.items():
        imported = read(tmp_path / name)
        assert imported.photos.columns == PHOTO_SCHEMA.names()
        assert imported.rejected.schema == REJECTED_SCHEMA
        assert Taxonomy.preset(imported.taxonomy).name == imported.taxonomy
        assert {source.name for source in imported.sources} >= set(imported.photos["source"])


class TestMilk10k:
    def test_close_ups_are_read_and_the_others_excluded(self, tmp_path):
        imported = milk10k.read(write_milk10k(tmp_path))
        assert imported.photos["image_id"].to_list() == ["ISIC_0000001", "ISIC_0000003"]
        assert imported.photos["file_name"].to_list()[0] == "MILK10k_Training_Input/IL_1/ISIC_0000001.jpg"
        assert imported.photos["lesions"].to_list() == [["BCC"], ["NV"]]
        assert imported.photos["site"].to_list() == [["trunk"], ["head_neck_face"]]
        assert imported.photos["age"].to_list() == [70, None]
        assert imported.photos.select("lesion_id", "patient_id", "modality", "license").row(0) == (
            "IL_1",
            None,
            "clinical",
            "CC-BY-NC",
        )
        assert imported.photos.select("skin_tone", "skin_tone_scale").rows() == [("3", "other"), ("0", "other")]
        assert imported.rows.tolist() == [1, 3]
        assert imported.rejected.select("file", "row").rows() == [("ISIC_0000004.jpg", 4)]
        assert "no image" in imported.rejected["reason"][0]
        assert (imported.n_excluded, imported.n_unlisted) == (2, 0)

    def test_dermoscopic_images_and_all_of_them(self, tmp_path):
        root = write_milk10k(tmp_path)
        dermoscopic = milk10k.read(root, images="dermoscopic")
        assert dermoscopic.photos["modality"].to_list() == ["dermoscopic", "dermoscopic"]
        assert dermoscopic.photos["site"].to_list() == [["trunk"], None]
        assert (dermoscopic.n_excluded, dermoscopic.rejected.height) == (3, 0)
        everything = milk10k.read(root, images="all")
        assert (everything.photos.height, everything.rejected.height, everything.n_excluded) == (4, 1, 0)
        with pytest.raises(ValueError, match="close-up"):
            milk10k.read(root, images="closeup")

    def test_machine_made_attributes_come_when_asked_for(self, tmp_path):
        root = write_milk10k(tmp_path)
        plain, machine = milk10k.read(root), milk10k.read(root, monet=True)
        assert machine.photos["lesions"].to_list() == [["BCC", "MONET_erythema"], ["NV", "MONET_pigmented"]]
        assert plain.sources[0].assessed == set(milk10k.DIAGNOSES)
        assert machine.sources[0].assessed == {*milk10k.DIAGNOSES, *milk10k.MACHINE_TERMS}
        assert any("machine-made" in note for note in machine.sources[0].notes)
        assert not any("machine-made" in note for note in plain.sources[0].notes)
        preset = Taxonomy.preset("milk10k").lesion
        assert {preset.aliases[term] for term in milk10k.MACHINE_TERMS} == set(preset.machine)

    def test_the_notes_say_what_a_reader_must_know(self, tmp_path):
        notes = " ".join(milk10k.read(write_milk10k(tmp_path)).sources[0].notes)
        assert "stand in for lesion types" in notes
        assert "the lesion is the group" in notes

    def test_a_lesion_without_truth_is_not_annotated(self, tmp_path):
        root = write_milk10k(tmp_path)
        write_table(root / "tables" / "MILK10k_Training_GroundTruth.csv", [milk_truth("IL_1", "BCC")])
        assert milk10k.read(root).photos["lesions"].to_list() == [["BCC"], None]
        photos = milk10k.read(root, monet=True).photos
        assert photos["lesions"].to_list() == [["BCC", "MONET_erythema"], ["MONET_pigmented"]]
        assert photos["lesions_unknown"].to_list() == [None, list(milk10k.DIAGNOSES)]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                {"image_type": "overview"},
                r"row 2, column 'image_type': found 'overview', allowed are 'clinical: close-up' and 'dermoscopic'",
            ),
            ({"skin_tone_class": 6}, r"row 2, column 'skin_tone_class': found '6', allowed is 0 to 5"),
            ({"isic_id": ""}, r"row 2, column 'isic_id': found None"),
            ({"age_approx": "old"}, r"row 2, column 'age': found 'old'"),
            ({"MONET_erythema": "high"}, r"row 2, column 'MONET_erythema': found 'high', allowed is a score"),
            ({"MONET_pigmented": 1.5}, r"row 2, column 'MONET_pigmented': found '1.5'"),
        ],
    )
    def test_a_table_that_is_not_as_published_is_refused(self, tmp_path, change, said):
        root = write_milk10k(tmp_path)
        rows = [milk_row("IL_1", "ISIC_0000001"), milk_row("IL_2", "ISIC_0000003") | change]
        path = write_table(root / "tables" / "MILK10k_Training_Metadata.csv", rows)
        with pytest.raises(AtlasError, match=said) as refusal:
            milk10k.read(root, monet=True)
        assert str(path) in str(refusal.value)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"MEL": 1.0}, "row 1, column 'lesion_id': found 'IL_1', allowed is a lesion with exactly one diagnosis"),
            ({"BCC": 0.0}, "exactly one diagnosis"),
            ({"BCC": "yes"}, "row 1, column 'BCC': found 'yes', allowed are 0.0 and 1.0"),
            ({"BCC": 0.5}, "found '0.5'"),
        ],
    )
    def test_a_truth_that_is_not_one_hot_is_refused(self, tmp_path, change, said):
        root = write_milk10k(tmp_path)
        write_table(root / "tables" / "MILK10k_Training_GroundTruth.csv", [milk_truth("IL_1", "BCC", **change)])
        with pytest.raises(AtlasError, match=said):
            milk10k.read(root)

    def test_missing_tables_and_columns_are_named(self, tmp_path):
        root = write_milk10k(tmp_path)
        metadata = root / "tables" / "MILK10k_Training_Metadata.csv"
        pl.read_csv(metadata, infer_schema=False).rename({"isic_id": "isicid"}).write_csv(metadata)
        with pytest.raises(AtlasError, match="no column 'isic_id': did you mean 'isicid'"):
            milk10k.read(root)
        metadata.unlink()
        with pytest.raises(AtlasError, match=r"must hold the table MILK10k_Training_Metadata\.csv once"):
            milk10k.read(root)
        with pytest.raises(AtlasError, match="no such folder"):
            milk10k.read(root / "nowhere")


class TestPadUfes20:
    def test_images_are_found_by_stem_with_another_ending(self, tmp_path):
        rows = [
            pad_row("PAT_967_1827_247"),
            pad_row("PAT_8_15_820", fitspatrick="", gender="", age=75, region="FOREARM", diagnostic="ACK"),
            pad_row("PAT_9_16_100", fitspatrick="4.0"),
        ]
        write_table(tmp_path / "metadata.csv", rows)
        write_image(tmp_path / "imgs_part_1" / "PAT_967_1827_247.jpg", 1)
        write_image(tmp_path / "imgs_part_2" / "deep" / "PAT_8_15_820.PNG", 2)
        imported = pad_ufes_20.read(tmp_path)
        assert imported.photos["file_name"].to_list() == ["imgs_part_1/PAT_967_1827_247.jpg", "imgs_part_2/deep/PAT_8_15_820.PNG"]
        shown = ("image_id", "patient_id", "lesion_id", "skin_tone", "skin_tone_scale", "age", "sex", "modality", "license")
        assert imported.photos.select(shown).rows() == [
            ("PAT_967_1827_247", "PAT_967", "1827", "2", "fitzpatrick", 34.0, "FEMALE", "clinical", "CC BY 4.0"),
            ("PAT_8_15_820", "PAT_8", "15", None, None, 75.0, None, "clinical", "CC BY 4.0"),
        ]
        assert imported.photos.select("lesions", "site").rows() == [(["BCC"], ["NOSE"]), (["ACK"], ["FOREARM"])]
        assert imported.rejected.select("file", "row").rows() == [("PAT_9_16_100.png", 3)]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"fitspatrick": "2.5"}, "row 1, column 'fitspatrick': found '2.5', allowed are 1.0 to 6.0 and an empty cell"),
            ({"fitspatrick": "II"}, "found 'II'"),
            ({"diagnostic": "NEVUS"}, "row 1, column 'diagnostic': found 'NEVUS', allowed are ACK, BCC, MEL, NEV, SCC, SEK"),
        ],
    )
    def test_a_value_that_is_not_published_is_refused(self, tmp_path, change, said):
        write_table(tmp_path / "metadata.csv", [pad_row("PAT_1_2_3", **change)])
        with pytest.raises(AtlasError, match=said):
            pad_ufes_20.read(tmp_path)


class TestHam10000:
    def test_unknown_is_not_annotated(self, tmp_path):
        rows = [
            ham_row("ISIC_0027419"),
            ham_row("ISIC_0025030", localization="unknown", sex="unknown", age="", dataset="vidir_modern"),
            ham_row("ISIC_0026769", dx="nv", lesion_id="HAM_2", localization="lower extremity"),
        ]
        write_table(tmp_path / "HAM10000_metadata.csv", [{"dataset": "", **row} for row in rows])
        write_image(tmp_path / "HAM10000_images_part_1" / "ISIC_0027419.jpg", 1)
        write_image(tmp_path / "HAM10000_images_part_1" / "ISIC_0025030.jpg", 2)
        write_image(tmp_path / "HAM10000_images_part_2" / "ISIC_0026769.jpg", 3)
        imported = ham10000.read(tmp_path)
        assert imported.photos["site"].to_list() == [["scalp"], None, ["lower extremity"]]
        assert imported.photos["lesions"].to_list() == [["bkl"], ["bkl"], ["nv"]]
        assert imported.photos["sex"].to_list() == ["male", None, "male"]
        assert imported.photos["age"].to_list() == [80, None, 80]
        assert imported.photos["lesion_id"].to_list() == ["HAM_0000118", "HAM_0000118", "HAM_2"]
        assert set(imported.photos["modality"]) == {"dermoscopic"}
        assert imported.photos["patient_id"].null_count() == 3

    def test_copies_of_a_file_are_one_image_and_different_files_of_a_name_are_none(self, tmp_path):
        write_table(tmp_path / "HAM10000_metadata.csv", [ham_row("ISIC_1"), ham_row("ISIC_2")])
        for part in ("HAM10000_images_part_1", "ham10000_images_part_1"):
            write_image(tmp_path / part / "ISIC_1.jpg", 1)
        write_image(tmp_path / "a" / "ISIC_2.jpg", 1)
        write_image(tmp_path / "b" / "ISIC_2.png", 2)
        imported = ham10000.read(tmp_path)
        assert imported.photos["file_name"].to_list() == ["HAM10000_images_part_1/ISIC_1.jpg"]
        assert imported.rejected.rows() == [("ISIC_2.jpg", 2, "2 different files fit: a/ISIC_2.jpg, b/ISIC_2.png")]
        assert imported.n_unlisted == 0

    def test_a_diagnosis_that_is_not_published_is_refused(self, tmp_path):
        write_table(tmp_path / "HAM10000_metadata.csv", [ham_row("ISIC_1"), ham_row("ISIC_2", dx="scc")])
        with pytest.raises(AtlasError, match="row 2, column 'dx': found 'scc'"):
            ham10000.read(tmp_path)


class TestImagefolder:
    def test_a_folder_with_its_manifest(self, tmp_path):
        rows = [
            {
                "file_name": "x/000655.png",
                "lesions": "papule;scar",
                "site": "arm",
                "source": "clinic",
                "license": "CC0",
                "zoom": "2",
            },
            {"file_name": "y/000656.jpg", "lesions": "none", "site": "", "source": "", "license": "", "zoom": ""},
        ]
        imported = imagefolder.read(write_folder(tmp_path, rows))
        assert imported.photos["image_id"].to_list() == ["000655", "000656"]
        assert imported.photos["lesions"].to_list() == [["papule", "scar"], []]
        assert imported.photos["zoom"].to_list() == ["2", None]
        assert {source.name: source.licence for source in imported.sources} == {"clinic": "CC0", "unnamed": "not stated"}
        assert all(source.assessed is None for source in imported.sources)
        assert (imported.root, imported.origin) == (tmp_path, str(tmp_path / "metadata.csv"))

    def test_photographs_that_name_no_patient_are_told_of_by_source(self, tmp_path):
        rows = [
            {"file_name": "a.jpg", "lesions": "x", "source": "clinic", "patient_id": "1", "lesion_id": ""},
            {"file_name": "b.jpg", "lesions": "x", "source": "clinic", "patient_id": "", "lesion_id": "7"},
            {"file_name": "c.jpg", "lesions": "x", "source": "clinic", "patient_id": "", "lesion_id": ""},
            {"file_name": "d.jpg", "lesions": "x", "source": "archive", "patient_id": "1", "lesion_id": ""},
        ]
        archive, clinic = imagefolder.read(write_folder(tmp_path, rows)).sources
        assert archive.notes == ()
        (note,) = clinic.notes
        assert note == (
            "No patient_id stands on 2 of 3 photographs of 'clinic': each of them counts as its own group unless it shares a "
            "lesion or a consultation, so intervals may be too narrow and scores too high."
        )

    def test_a_manifest_of_any_name_may_be_given(self, tmp_path):
        root = write_folder(tmp_path, [{"file_name": "a.jpg", "lesions": "papule"}])
        (root / "metadata.csv").rename(root / "mine.csv")
        assert imagefolder.read(root / "mine.csv").photos["image_id"].to_list() == ["a"]
        with pytest.raises(AtlasError, match=r"holds neither metadata\.csv nor metadata\.parquet"):
            imagefolder.read(root)
        with pytest.raises(AtlasError, match="no such folder or manifest"):
            imagefolder.read(root / "nothing")

    def test_two_manifests_are_one_too_many(self, tmp_path):
        root = write_folder(tmp_path, [{"file_name": "a.jpg", "lesions": "papule"}])
        pl.DataFrame({"file_name": ["a.jpg"], "lesions": ["scar"]}).write_parquet(root / "metadata.parquet")
        with pytest.raises(AtlasError, match="holds both"):
            imagefolder.read(root)
        (root / "metadata.csv").unlink()
        assert imagefolder.read(root).photos["lesions"].to_list() == [["scar"]]

    def test_images_that_no_row_names_are_counted(self, tmp_path):
        root = write_folder(tmp_path, [{"file_name": "a.jpg", "lesions": "papule"}])
        write_image(root / "more" / "b.png")
        write_image(root / "c.JPEG")
        (root / "notes.txt").write_text("no image")
        write_image(root / ".thumbnails" / "a.jpg", 1)
        imported = imagefolder.read(root)
        assert (imported.photos.height, imported.n_unlisted) == (1, 2)
