"""Sites of predilection: which lesions are found on which body sites (Eq. 1, Figure 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predilect.evaluation.metrics import ratio
from predilect.evaluation.scores import PredilectionMap
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth

__all__ = ["predilection_map"]


def predilection_map(truth: Truth) -> PredilectionMap:
    """Count lesions by site: R_ij = |N_i and M_j| / |N_i| (Eq. 1), and its lift over the site's base rate.

    Only photographs whose site is known are counted. The base rate of a site is taken, lesion by lesion, over the photographs
    where that lesion's label is known too, so that a source which never assessed the lesion does not distort the lift.

    Args:
        truth: With both tasks.

    Returns:
        P lesions by Q sites.

    Raises:
        ValueError: If the truth lacks a task.
    """
    if LESION not in truth.labels or SITE not in truth.labels:
        raise ValueError(f"sites of predilection need labels of {LESION} and {SITE}, found {', '.join(truth.labels.names)}")
    lesions = truth.values[LESION]  # (N, P)
    sites = (truth.values[SITE] == 1).astype(np.float64)  # (N, Q), a row of zeros where the site is unknown
    both = (lesions == 1).T.astype(np.float64) @ sites  # (P, Q)
    assessed = (lesions >= 0).T.astype(np.float64) @ sites
    n_lesion = both.sum(axis=1)
    share = ratio(both, n_lesion[:, None])
    base = ratio(assessed, assessed.sum(axis=1, keepdims=True))
    return PredilectionMap(
        lesions=truth.labels[LESION].classes,
        sites=truth.labels[SITE].classes,
        ratio=_rows(share),
        lift=_rows(ratio(share, base)),
        n_lesion=tuple(int(n) for n in n_lesion),
        n_site=tuple(int(n) for n in sites.sum(axis=0)),
    )


def _rows(values: NDArray[np.float64]) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in values)
