"""Small sources in the forms in which the public data sets are published, with drawn images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    """A smooth picture of its own for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


MILK_CODES = ("AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC")
_MONET = (
    "MONET_ulceration_crust", "MONET_hair", "MONET_vasculature_vessels", "MONET_erythema", "MONET_pigmented",
    "MONET_gel_water_drop_fluid_dermoscopy_liquid", "MONET_skin_markings_pen_ink_purple_pen",
)  # fmt: skip


def milk_row(lesion: str, image: str, *, dermoscopic: bool = False, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "lesion_id": lesion, "image_type": "dermoscopic" if dermoscopic else "clinical: close-up", "isic_id": image,
        "attribution": "MILK study team", "copyright_license": "CC-BY-NC", "image_manipulation": "instrument only",
        "age_approx": 70, "sex": "male", "skin_tone_class": 3, "site": "trunk",
    }  # fmt: skip
    return row | dict.fromkeys(_MONET, 0.25) | changes


def milk_truth(lesion: str, code: str, **changes: object) -> dict[str, object]:
    return {"lesion_id": lesion, **{name: float(name == code) for name in MILK_CODES}} | changes


def write_milk10k(root: Path) -> Path:
    """Three lesions, five images; IL_3 has no site, and its close-up is missing among the files."""
    write_table(
        root / "tables" / "MILK10k_Training_Metadata.csv",
        [
            milk_row("IL_1", "ISIC_0000001", MONET_erythema=0.5, MONET_hair=0.9),
            milk_row("IL_1", "ISIC_0000002", dermoscopic=True),
            milk_row("IL_2", "ISIC_0000003", site="head_neck_face", age_approx="", skin_tone_class=0, MONET_pigmented=0.75),
            milk_row("IL_3", "ISIC_0000004", site=""),
            milk_row("IL_3", "ISIC_0000005", site="", dermoscopic=True),
        ],
    )
    write_table(
        root / "tables" / "MILK10k_Training_GroundTruth.csv",
        [milk_truth("IL_1", "BCC"), milk_truth("IL_2", "NV"), milk_truth("IL_3", "SCCKA")],
    )
    for seed, (lesion, image) in enumerate([("IL_1", 1), ("IL_1", 2), ("IL_2", 3), ("IL_3", 5)]):
        write_image(root / "MILK10k_Training_Input" / lesion / f"ISIC_{image:07d}.jpg", seed)
    return root


def pad_row(image: str, **changes: object) -> dict[str, object]:
    patient, lesion, _ = image.removeprefix("PAT_").split("_")
    row: dict[str, object] = {
        "patient_id": f"PAT_{patient}", "lesion_id": lesion, "smoke": "False", "drink": "", "background_father": "POMERANIA",
        "background_mother": "", "age": 34, "pesticide": "", "gender": "FEMALE", "skin_cancer_history": "", "cancer_history": "",
        "has_piped_water": "", "has_sewage_system": "", "fitspatrick": "2.0", "region": "NOSE", "diameter_1": 5.0,
        "diameter_2": 4.0, "diagnostic": "BCC", "itch": "True", "grew": "UNK", "hurt": "False", "changed": "UNK", "bleed": "True",
        "elevation": "True", "img_id": f"{image}.png", "biopsed": "True",
    }  # fmt: skip
    return row | changes


def ham_row(image: str, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "lesion_id": "HAM_0000118", "image_id": image, "dx": "bkl", "dx_type": "histo", "age": "80.0", "sex": "male",
        "localization": "scalp",
    }  # fmt: skip
    return row | changes


def write_folder(root: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A folder of one's own: the manifest and an image for each row."""
    write_table(root / "metadata.csv", rows)
    for seed, row in enumerate(rows):
        write_image(root / str(row["file_name"]), seed)
    return root
