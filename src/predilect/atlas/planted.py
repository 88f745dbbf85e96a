"""What is planted in the drawn atlas: diseases with their lesions and their sites, and the correlation that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DISEASES", "LESIONS", "SITES", "TERMS", "Disease", "disease_tables", "planted_predilection"]

LESIONS: Mapping[str, tuple[str, ...]] = {
    "alopecia": ("alopecia",),
    "comedone": ("comedone",),
    "crust": ("crust",),
    "erosion/ulcer": ("erosion", "ulcer"),
    "excoriation": ("excoriation",),
    "macule": ("macule",),
    "nodule": ("nodule",),
    "papule": ("erythematous papule", "papule"),
    "plaque": ("plaque",),
    "purpura": ("purpura",),
    "pustule": ("pustule",),
    "scale": ("scale",),
    "scar": ("scar",),
    "telangiectasia": ("telangiectasia",),
    "vesicle": ("vesicle",),
}
"""The lesion classes of taxonomy preset `drawn`, each with the raw terms that become it."""

TERMS: tuple[str, ...] = tuple(term for members in LESIONS.values() for term in members)
"""All raw lesion terms."""

SITES: Mapping[str, tuple[str, ...]] = {
    "arm": ("forearm", "upper arm"),
    "face": ("face",),
    "foot": ("sole", "top of foot"),
    "hand": ("back of hand", "palm"),
    "leg": ("lower leg", "thigh"),
    "neck": ("neck",),
    "scalp": ("scalp",),
    "skin fold": ("axilla", "groin"),
    "trunk": ("abdomen", "back", "chest"),
}
"""The sites of taxonomy preset `drawn`, each with the raw names that become it, which are equally likely."""


@dataclass(frozen=True, slots=True)
class Disease:
    """What one disease shows, and where.

    Attributes:
        weight: How common it is, relative to the others.
        lesions: Raw terms, each with the probability that an eruption shows it; independent of each other and of the site.
        sites: Each with its probability; they sum to 1.
    """

    weight: float
    lesions: Mapping[str, float]
    sites: Mapping[str, float]


DISEASES: Mapping[str, Disease] = {
    "acne": Disease(
        0.12,
        {"comedone": 0.75, "erythematous papule": 0.55, "papule": 0.2, "pustule": 0.55, "scar": 0.2},
        {"face": 0.55, "trunk": 0.35, "neck": 0.1},
    ),
    "psoriasis": Disease(
        0.12,
        {"plaque": 0.95, "scale": 0.85, "excoriation": 0.1},
        {"scalp": 0.2, "arm": 0.28, "leg": 0.25, "trunk": 0.2, "hand": 0.07},
    ),
    "eczema": Disease(
        0.13,
        {"plaque": 0.45, "erythematous papule": 0.35, "excoriation": 0.6, "crust": 0.3, "scale": 0.25, "vesicle": 0.15},
        {"arm": 0.35, "leg": 0.15, "hand": 0.2, "neck": 0.2, "skin fold": 0.1},
    ),
    "rosacea": Disease(
        0.09,
        {"telangiectasia": 0.9, "erythematous papule": 0.45, "pustule": 0.3},
        {"face": 0.9, "neck": 0.1},
    ),
    "hair loss": Disease(0.06, {"alopecia": 1.0, "scar": 0.1}, {"scalp": 0.92, "leg": 0.08}),
    "folliculitis": Disease(
        0.06,
        {"pustule": 0.9, "erythematous papule": 0.35, "crust": 0.2},
        {"scalp": 0.2, "trunk": 0.15, "leg": 0.25, "skin fold": 0.4},
    ),
    "zoster": Disease(
        0.06, {"vesicle": 0.95, "crust": 0.35, "erosion": 0.2}, {"trunk": 0.5, "face": 0.25, "neck": 0.15, "arm": 0.1}
    ),
    "impetigo": Disease(0.04, {"crust": 0.95, "erosion": 0.35, "vesicle": 0.2}, {"face": 0.7, "arm": 0.15, "hand": 0.15}),
    "vasculitis": Disease(0.08, {"purpura": 1.0, "ulcer": 0.15}, {"leg": 0.65, "foot": 0.3, "arm": 0.05}),
    "lentigines": Disease(
        0.10,
        {"macule": 1.0, "telangiectasia": 0.1},
        {"face": 0.35, "hand": 0.3, "arm": 0.2, "trunk": 0.1, "neck": 0.05},
    ),
    "poor circulation": Disease(0.06, {"ulcer": 0.95, "crust": 0.25, "purpura": 0.2}, {"leg": 0.5, "foot": 0.5}),
    "tumour": Disease(
        0.07,
        {"nodule": 1.0, "telangiectasia": 0.25, "crust": 0.2},
        {"face": 0.35, "scalp": 0.2, "trunk": 0.2, "hand": 0.1, "neck": 0.15},
    ),
    "inflamed folds": Disease(0.05, {"nodule": 0.8, "pustule": 0.35, "scar": 0.6}, {"skin fold": 0.9, "trunk": 0.1}),
    "tinea": Disease(0.06, {"scale": 0.9, "plaque": 0.5, "vesicle": 0.3}, {"foot": 0.6, "skin fold": 0.2, "hand": 0.2}),
    "wounds": Disease(
        0.05,
        {"scar": 0.9, "excoriation": 0.15},
        {"arm": 0.25, "leg": 0.25, "hand": 0.25, "trunk": 0.15, "scalp": 0.1},
    ),
    "molluscum": Disease(0.05, {"papule": 1.0, "excoriation": 0.15}, {"trunk": 0.4, "arm": 0.25, "skin fold": 0.35}),
    "nothing": Disease(
        0.05,
        {},
        {
            "face": 0.1,
            "scalp": 0.1,
            "neck": 0.1,
            "trunk": 0.2,
            "arm": 0.1,
            "hand": 0.15,
            "leg": 0.1,
            "foot": 0.1,
            "skin fold": 0.05,
        },
    ),
}
"""The diseases that the drawings are made from. They are caricatures: enough to give lesions their sites, no medicine."""


def planted_predilection() -> NDArray[np.float64]:
    """P(site | lesion), as planted: what Eq. 1 tends to when ever more photographs are drawn.

    Returns:
        (L, S) for the classes of `LESIONS` and `SITES` in their order; rows sum to 1.
    """
    weights, shows, where = disease_tables()
    hidden = [np.prod(1 - shows[:, [TERMS.index(term) for term in members]], axis=1) for members in LESIONS.values()]
    joint = ((1 - np.array(hidden)) * weights) @ where  # (L, D) @ (D, S)
    planted: NDArray[np.float64] = joint / joint.sum(axis=1, keepdims=True)
    return planted


def disease_tables() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(D,) P(disease), (D, T) P(term | disease) and (D, S) P(site | disease), for `DISEASES`, `TERMS` and `SITES` in their order."""
    diseases = DISEASES.values()
    weights = np.array([disease.weight for disease in diseases])
    shows = np.array([[disease.lesions.get(term, 0.0) for term in TERMS] for disease in diseases])
    where = np.array([[disease.sites.get(site, 0.0) for site in SITES] for disease in diseases])
    return weights / weights.sum(), shows, where
