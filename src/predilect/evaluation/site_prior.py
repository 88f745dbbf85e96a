"""The lesions of a photograph, once somebody says where on the body it was taken.

For each lesion, with p its calibrated probability, p_s what a site head said of the same photograph, and g the site that is given,

    logit p' = a + b logit p + theta[g] - sum_s p_s theta[s].

The last two terms are the news in the given site: nothing on average if it is drawn from what the image already told, and nothing
at all if the image told it for certain. So what is in p already is not counted twice. a and b are no news: where they are not 0 and 1
they calibrate once more, for photographs of known site, and move p whatever the site is; what they give is not the site's doing. How much of the site head's knowledge is in
p, the data decide: p_s are blended of its probabilities and of the shares of the sites. Were the lesion's odds at the sites tilted
by exp(theta) against what the image alone says, Bayes' rule would give theta[g] - log sum_s p_s exp(theta[s]); this is its first
order, which keeps the fit convex.

Calibration comes first. What a given site changes is then the site's doing, but for a and b, which are 0 and 1 unless held-out groups
speak against it; thresholds keep their meaning, and the p_s weigh theta as the shares of such photographs that they say they are.

The fit stands in `site_prior_fit`. This module applies it, with numpy and scipy alone, wherever a network's scores come from.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.special import expit

from predilect.evaluation.calibration import log_odds
from predilect.evaluation.fitted import STRICT, Fitted
from predilect.evaluation.metrics import Floats
from predilect.labels.tasks import LESION, SITE, LabelSpace
from predilect.predictions import SITE_SUM_TOLERANCE

__all__ = ["SitePrior", "site_news", "told_by_image"]

Scores = NDArray[np.floating[Any]]
_Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True, config=STRICT)
class SitePrior(Fitted):
    """What a given site does to the probability of each lesion.

    Attributes:
        lesions: L names.
        sites: S names.
        intercept: (L,) a.
        slope: (L,) b.
        theta: (L, S), log-odds; 0 for a site at which no photograph with a known label of the lesion was seen.
        site_shares: (S,) share of each site among the photographs it was fitted on; they sum to 1.
        head_weight: From 1, where p_s are the probabilities of a site head, to 0, where they are `site_shares` for every
            photograph; p_s are blended of both.
        recalibration: The prior standard deviation of a and b - 1 that was chosen; 0 where probabilities were best left as they
            are.
        spread: That of theta; 0 where the site was of no use.
        n_groups: Groups of the photographs of known site that it was fitted on.

    Raises:
        ValueError: If shapes disagree, a name comes twice or a number is not allowed.
    """

    lesions: tuple[str, ...]
    sites: tuple[str, ...]
    intercept: _Numbers
    slope: _Numbers
    theta: tuple[_Numbers, ...]
    site_shares: _Numbers
    head_weight: Annotated[float, Field(ge=0, le=1)]
    recalibration: Annotated[float, Field(ge=0)]
    spread: Annotated[float, Field(ge=0)]
    n_groups: Annotated[int, Field(gt=0)]

    def __post_init__(self) -> None:
        for what, names in (("lesions", self.lesions), ("sites", self.sites)):
            if not names or len(set(names)) != len(names):
                raise ValueError(f"{what} have names, each its own; found {list(names)}")
        if not len(self.intercept) == len(self.slope) == len(self.theta) == len(self.lesions):
            raise ValueError("intercept, slope and theta have an entry for each lesion")
        if not {len(self.site_shares), *map(len, self.theta)} == {len(self.sites)}:
            raise ValueError("site_shares and each lesion's theta have an entry for each site")
        if min(self.site_shares) < 0 or abs(sum(self.site_shares) - 1) > SITE_SUM_TOLERANCE:
            raise ValueError(f"site_shares are shares of a whole, found {list(self.site_shares)}")

    def check_labels(self, labels: LabelSpace) -> None:
        """Make sure that it was fitted for these classes in this order; sites that are not predicted are its own.

        Raises:
            ValueError: If not.
        """
        for task, names in ((LESION, self.lesions), (SITE, self.sites)):
            if task in labels and names != labels[task].classes:
                raise ValueError(f"the site prior is of the {task} classes {list(names)}, not {list(labels[task].classes)}")
        if LESION not in labels or (self.head_weight and SITE not in labels):
            raise ValueError(f"the site prior needs more than the predicted tasks {', '.join(labels.names)}")

    def apply(self, lesion_scores: Scores, site_scores: Scores | None, given_sites: NDArray[np.int64]) -> NDArray[np.float32]:
        """Condition lesions on the site.

        Args:
            lesion_scores: (N, L) calibrated probabilities.
            site_scores: (N, S) calibrated probabilities of the site head, rows summing to 1; may be None where `head_weight` is 0.
            given_sites: (N,) position of the site among `sites`; -1 where it is not known, and the probabilities stay as they are.

        Returns:
            (N, L) probabilities.

        Raises:
            ValueError: If shapes disagree or a value is not allowed.
        """
        scores = np.array(lesion_scores, dtype=np.float32)
        if scores.ndim != 2 or scores.shape[1] != len(self.lesions) or not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"lesion scores are (N, {len(self.lesions)}) probabilities, found shape {scores.shape}")
        if site_scores is None and self.head_weight:
            raise ValueError("this site prior needs what a site head says")
        shares = np.array(self.site_shares)
        shape = (len(scores), len(self.sites))
        told = told_by_image(shares if site_scores is None else site_scores, shape)
        news = site_news(self.head_weight * told + (1 - self.head_weight) * shares, given_sites)
        a, b, theta = np.array(self.intercept), np.array(self.slope), np.array(self.theta)
        columns = np.flatnonzero((a != 0) | (b != 1) | (theta != 0).any(axis=1))  # the others stay as they are, to the last digit
        cells = np.ix_(np.flatnonzero(given_sites >= 0), columns)
        scores[cells] = expit(a[columns] + b[columns] * log_odds(scores[cells]) + news[cells[0][:, 0]] @ theta[columns].T)
        return scores


def told_by_image(site_scores: Scores, shape: tuple[int, int]) -> Floats:
    """What is known of the site before it is given, photograph by photograph.

    Args:
        site_scores: (N, S) of a site head, or (S,) for all photographs alike; they sum to 1 about as well as float32 does.
        shape: (N, S).

    Returns:
        (N, S), rows summing to 1.

    Raises:
        ValueError: If the shape is another or rows are no probabilities.
    """
    told = np.asarray(site_scores, dtype=np.float64)
    if told.shape not in (shape, shape[1:]):
        raise ValueError(f"site scores have shape {told.shape}, not {shape}")
    sums = told.sum(axis=-1, keepdims=True)
    if not ((told >= 0).all() and (np.abs(sums - 1) <= SITE_SUM_TOLERANCE).all()):
        raise ValueError("site scores are probabilities, and those of a photograph sum to 1")
    return np.broadcast_to(told / sums, shape)


def site_news(told: Floats, given_sites: NDArray[np.int64]) -> Floats:
    """How the given site differs from what the image told: 1 at the given site and 0 elsewhere, minus `told`.

    Args:
        told: (N, S), rows summing to 1.
        given_sites: (N,) positions, -1 where nothing is given; such a row means nothing.

    Returns:
        (N, S); the rows of given sites sum to 0.

    Raises:
        ValueError: If a position is not allowed.
    """
    n, n_sites = told.shape
    if given_sites.shape != (n,) or (given_sites < -1).any() or (given_sites >= n_sites).any():
        raise ValueError(f"given sites are {n} positions below {n_sites}, or -1 where nothing is given")
    return np.asarray((given_sites[:, None] == np.arange(n_sites)) - told)
