"""A drawn atlas: photographs of skin painted by code, with sites of predilection planted in them.

It is a tutorial and a test bed, and never pretends to be data. Patients have diseases; a disease has its lesions and its sites,
and so lesions and sites are correlated in a way that is known exactly (`planted.planted_predilection`). As in real collections
there are several photographs of one eruption, patients who come back, labels that nobody gave, spellings that differ, and copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.atlas.manifest import write_manifest
from predilect.atlas.painting import Drawing, Retouch, Sitter, paint
from predilect.atlas.photo import Photo, photo_table
from predilect.atlas.planted import LESIONS, SITES, TERMS, disease_tables
from predilect.files import replacing_folder
from predilect.randomness import stream

__all__ = ["Drawing", "draw_atlas", "paint", "sample_photos"]

_LICENSE = "CC0-1.0"
_SOURCE = "drawn"

_ALIASES: Mapping[str, str] = {"comedone": "comedones", "scale": "squames", "telangiectasia": "telangiectasis"}

_EPISODES = (0.35, 0.30, 0.20, 0.15)  # how many eruptions a patient comes with: 1, 2, 3, 4
_VIEWS = (0.60, 0.28, 0.12)  # how many photographs of an eruption: 1, 2, 3
_FAITHFUL = 0.75  # an eruption is of the patient's first disease, else of the second
_CLOSE_UP = 0.45
_ALIASED = 0.15
_NOT_ANNOTATED, _ONLY_LISTED, _ONE_UNKNOWN, _NO_SITE = 0.05, 0.02, 0.06, 0.06
_COPIES = 0.025
_COPIES_ACROSS_PATIENTS = 2
_TONES = (0.09, 0.12, 0.13, 0.13, 0.13, 0.12, 0.10, 0.08, 0.06, 0.04)
_HAIR_OF_LIGHT, _HAIR_OF_DARK = (0.12, 0.24, 0.24, 0.18, 0.07, 0.15), (0.70, 0.18, 0.0, 0.0, 0.0, 0.12)
_DARK_FROM = 6

Indices = NDArray[np.int64]


def sample_photos(n_images: int, seed: int) -> list[Drawing]:
    """Draw at random what is to be painted: patients, their eruptions, the photographs of them, and what is told of each.

    Args:
        n_images: How many photographs, near-duplicates included.
        seed: Not negative; the same seed gives the same drawings.

    Returns:
        `n_images` drawings, a patient's together, near-duplicates last.

    Raises:
        ValueError: If `n_images` is below 1.
    """
    if n_images < 1:
        raise ValueError(f"n_images must be at least 1, not {n_images}")
    n_copies = round(_COPIES * n_images)
    originals = _sample_originals(n_images - n_copies, stream(seed, "drawn atlas"))
    return originals + _sample_copies(originals, n_copies, stream(seed, "near-duplicates"))


def draw_atlas(
    out: Path,
    *,
    n_images: int = 900,
    size: int = 96,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Paint a drawn atlas into a folder that the `imagefolder` importer reads, with taxonomy preset `drawn`.

    Args:
        out: The folder to make: ``images/*.jpg`` and the manifest ``metadata.csv``, whose column `near_duplicate_of` names the
            photograph that a near-duplicate was made from.
        n_images: How many photographs.
        size: Their height and width in pixels; legible from about 64.
        seed: Not negative; the same arguments give the same bytes.
        on_progress: Called with (photographs painted, `n_images`) after each.

    Returns:
        `out`.

    Raises:
        PredilectError: If `out` exists and is not empty, or cannot be written.
        ValueError: If `n_images` or `size` is too small.
    """
    drawings = sample_photos(n_images, seed)
    with replacing_folder(out) as folder:
        (folder / "images").mkdir()
        for done, drawing in enumerate(drawings, start=1):
            paint(drawing, size).save(folder / drawing.photo.file_name, quality=92, subsampling=0)
            if on_progress is not None:
                on_progress(done, n_images)
        copied = pl.Series("near_duplicate_of", [drawing.near_duplicate_of for drawing in drawings], dtype=pl.String)
        write_manifest(photo_table(drawing.photo for drawing in drawings).with_columns(copied), folder / "metadata.csv")
    return out


def _repeated(rng: np.random.Generator, shares: tuple[float, ...], n: int) -> Indices:
    """(n,) 0, 0, 1, 2, 2, 2, ...: each number as often as a draw from `shares` says, once at least."""
    counts = 1 + rng.choice(len(shares), size=n, p=shares)
    return np.repeat(np.arange(n), counts)[:n]


def _pick(rng: np.random.Generator, rows: NDArray[np.float64]) -> Indices:
    """(N,) one draw from each row of (N, K) probabilities."""
    below = rows.cumsum(axis=1) <= rng.uniform(size=(len(rows), 1)) * rows.sum(axis=1, keepdims=True)
    picked: Indices = below.sum(axis=1)
    return picked


def _sample_originals(n: int, rng: np.random.Generator) -> list[Drawing]:
    weights, shows, where = disease_tables()
    patient_of = _repeated(rng, _EPISODES, n)  # of each eruption
    diseases = rng.choice(len(weights), size=(n, 2), p=weights)  # of each patient
    disease_of = diseases[patient_of, (rng.uniform(size=n) > _FAITHFUL).astype(np.int64)]
    site_of = _pick(rng, where[disease_of])
    kind_of = rng.uniform(size=n)
    shown = rng.uniform(size=(n, shows.shape[1])) < shows[disease_of]  # (eruptions, terms)
    scene_seeds = rng.integers(2**63, size=n).tolist()

    eruption_of = _repeated(rng, _VIEWS, n)  # of each photograph
    view_seeds = rng.integers(2**63, size=n).tolist()
    close = (rng.uniform(size=n) < _CLOSE_UP).tolist()
    told = _Told.sample(n, rng)
    people = _sample_people(n, rng)
    sites = tuple(SITES)
    drawings = []
    for k, eruption in enumerate(eruption_of.tolist()):
        patient, site = int(patient_of[eruption]), sites[site_of[eruption]]
        kind = SITES[site][int(kind_of[eruption] * len(SITES[site]))]
        lesions = tuple(TERMS[t] for t in np.flatnonzero(shown[eruption]))
        sitter, age, sex = people[patient]
        photo = Photo(
            **_naming(k),
            lesions=told.lesions(k, lesions),
            lesions_unknown=told.lesions_unknown(k),
            site=told.site(k, kind),
            patient_id=f"patient-{patient + 1:04d}",
            lesion_id=f"eruption-{eruption + 1:05d}" if lesions else None,
            case_id=f"visit-{eruption + 1:05d}",
            modality="clinical",
            skin_tone=str(sitter.tone),
            skin_tone_scale="monk",
            age=age,
            sex=sex,
            source=_SOURCE,
            license=_LICENSE,
        )
        drawings.append(
            Drawing(
                photo=photo,
                sitter=sitter,
                site=site,
                kind=kind,
                lesions=lesions,
                scene_seed=scene_seeds[eruption],
                view_seed=view_seeds[k],
                close_up=close[k],
            )
        )
    return drawings


def _naming(k: int) -> dict[str, str]:
    image_id = f"drawn-{k + 1:05d}"
    return {"image_id": image_id, "file_name": f"images/{image_id}.jpg"}


@dataclass(frozen=True, slots=True)
class _Told:
    """What the record of each photograph leaves out or spells otherwise; all of it regardless of what is drawn.

    Attributes:
        gap: (N,) 0: lesions not annotated; 1: only those that are listed were assessed; 2: one class was not assessed; 3: all told.
        unknown: (N,) the class that was not assessed, where there is one.
        no_site: (N,) whether the site is missing.
        aliased: (N,) whether other spellings are used.
    """

    gap: Indices
    unknown: Indices
    no_site: NDArray[np.bool_]
    aliased: NDArray[np.bool_]

    @classmethod
    def sample(cls, n: int, rng: np.random.Generator) -> _Told:
        gap = np.searchsorted(np.cumsum([_NOT_ANNOTATED, _ONLY_LISTED, _ONE_UNKNOWN]), rng.uniform(size=n), side="right")
        no_site = (rng.uniform(size=n) < _NO_SITE) & (gap > 0)  # of each photograph something is known
        return cls(gap, rng.integers(len(LESIONS), size=n), no_site, rng.uniform(size=n) < _ALIASED)

    def lesions(self, k: int, terms: tuple[str, ...]) -> tuple[str, ...] | None:
        if self.gap[k] == 0:
            return None
        unknown = self.lesions_unknown(k) or ()
        seen = tuple(term for term in terms if term not in unknown)
        return tuple(_ALIASES.get(term, term) for term in seen) if self.aliased[k] else seen

    def lesions_unknown(self, k: int) -> tuple[str, ...] | None:
        if self.gap[k] == 1:
            return ("*",)
        return tuple(LESIONS.values())[self.unknown[k]] if self.gap[k] == 2 else None

    def site(self, k: int, kind: str) -> tuple[str, ...] | None:
        return None if self.no_site[k] else (kind,)


def _sample_people(n: int, rng: np.random.Generator) -> list[tuple[Sitter, float, str]]:
    """Sitter, age in years and sex of n patients."""
    tones = 1 + rng.choice(len(_TONES), size=n, p=_TONES)
    hair = _pick(rng, np.where((tones >= _DARK_FROM)[:, None], _HAIR_OF_DARK, _HAIR_OF_LIGHT))
    warmth, hairiness, curl, freckled = rng.uniform((-1, 0, 0, 0), 1, (n, 4)).T
    ages, female = rng.integers(4, 88, size=n), rng.uniform(size=n) < 0.5
    return [
        (
            Sitter(int(tones[p]), float(warmth[p]), int(hair[p]), float(hairiness[p]), float(curl[p]), float(freckled[p])),
            float(ages[p]),
            sex,
        )
        for p, sex in enumerate(np.where(female, "female", "male").tolist())
    ]


def _sample_copies(originals: list[Drawing], n: int, rng: np.random.Generator) -> list[Drawing]:
    """Retouched copies under names of their own; most stay with their patient, a few slip in under another."""
    patients = sorted({str(drawing.photo.patient_id) for drawing in originals})
    across = _COPIES_ACROSS_PATIENTS if n > 2 * _COPIES_ACROSS_PATIENTS and len(patients) > 1 else 0
    copies = []
    for k, chosen in enumerate(rng.choice(len(originals), size=n, replace=False).tolist()):
        original = originals[chosen]
        photo = replace(original.photo, **_naming(len(originals) + k))
        if k < across:
            others = [patient for patient in patients if patient != photo.patient_id]
            photo = replace(photo, patient_id=others[int(rng.integers(len(others)))], lesion_id=None, case_id=None)
        retouch = Retouch(
            crop=float(rng.uniform(0.02, 0.08)),
            left=float(rng.uniform()),
            top=float(rng.uniform()),
            gain=float(rng.choice([rng.uniform(0.88, 0.96), rng.uniform(1.04, 1.12)])),
        )
        copies.append(replace(original, photo=photo, near_duplicate_of=original.photo.image_id, retouch=retouch))
    return copies
