"""The fit of a `SitePrior`, on photographs that neither the networks nor the calibrations behind the scores were fitted on.

It minimises the logistic loss of known labels on photographs of known site, plus squares of a, b - 1 and theta over twice their
prior variances; without data it is the identity. Three numbers are chosen by cross-validation over groups within the photographs
that are fitted on: the spread, which is the prior standard deviation of theta, together with the weight of the site head; then that
of a and b - 1. A spread may be 0: the site is of no use, or the probabilities are right as they are. The three are the same for all
lesions: the data of a rare one could not tell its own from chance, and at the same spread it moves less anyway, for its data say
less.

The weight asks how much of what the site head tells is in the lesions' scores already. If all of it is, as a network would have it
that used everything it sees, the weight is 1, and only what is news in the given site counts. If the lesions were learnt without
regard to the site, nothing is counted twice, and the weight is 0.

Empirical Bayes would need no parts of the data, but counts the photographs of a group as if they were independent. What is held out
here is what a reader asks for: unseen groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from predilect.evaluation.calibration import log_odds
from predilect.evaluation.intervals import MIN_POSITIVE_GROUPS
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats
from predilect.evaluation.site_prior import Scores, SitePrior, site_news, told_by_image
from predilect.labels.tasks import LESION, SITE, LabelSpace, Task
from predilect.randomness import stream

__all__ = ["HEAD_WEIGHTS", "RECALIBRATIONS", "SPREADS", "fit_site_prior", "given_sites"]

SPREADS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Prior standard deviations of theta to choose from, in log-odds: from no use of the site to odds times 5 or divided by 5."""

RECALIBRATIONS = (0.0, 0.1, 0.3, 1.0)
"""Those of a and b - 1: from none, for probabilities that are right as they are."""

HEAD_WEIGHTS = (1.0, 0.5, 0.0)
"""How much of what a site head tells counts as known before the site is given."""

_FREE_RECALIBRATION = 1.0  # while the others are chosen
_N_PARTS = 5
_NEWTON_STEPS = 100  # a handful is the rule
_ROUGH = 1e-3  # nats that a fit which is only judged may be from its best before the last step; the step squares it
_EXACT = 1e-6
_ROWS_AT_ONCE = 1024  # of outer products, so that they stay in the processor's cache


def given_sites(task: Task, labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """Which site a person named.

    Args:
        task: S sites.
        labels: (N, S), each row one-hot or wholly -1.

    Returns:
        (N,) positions; -1 where the site is unknown, or a model named it.
    """
    named = (labels == 1) & counted_classes(task)
    return np.where(named.any(axis=1), named.argmax(axis=1), -1)


def fit_site_prior(
    labels: LabelSpace,
    scores: Mapping[str, Scores],
    values: Mapping[str, NDArray[np.int8]],
    groups: NDArray[np.int64],
    *,
    spreads: Sequence[float] = SPREADS,
    recalibrations: Sequence[float] | None = None,
) -> SitePrior:
    """Fit a prior on photographs that neither the networks nor the calibrations behind the scores were fitted on.

    Only photographs of known site count, and of these the known labels of each lesion. A lesion with fewer than 10 groups that show
    it, or fewer than 10 that hold a photograph without it, is left as it is. Labels that a model made are fitted, too, but choose
    nothing.

    Several training seeds may stand under each other. A likelihood that so counts each photograph several times is weighed against
    the squares by the spread that is chosen, which answers to the same held-out groups.

    Cost: two or three Newton steps for each of 23 settings and each of 5 parts of the photographs, each step of N x L x S^2
    multiplications.

    Args:
        labels: L lesions and S sites.
        scores: By task, (N, L) and (N, S) calibrated probabilities, those of the site head of the same fold. Without sites, the
            share of each site among these photographs stands in for what the image told.
        values: By task, (N, L) and (N, S) of 1, 0 or -1.
        groups: (N,) any numbers; photographs of one group are not independent.
        spreads: Of theta, to choose from; of those that do equally well the first is taken. `(0.0,)` withholds the site.
        recalibrations: Of a and b - 1, to choose from likewise; None: `RECALIBRATIONS`.

    Raises:
        ValueError: If no photograph has a known site, shapes disagree or a value is not allowed.
    """
    given = given_sites(labels[SITE], values[SITE])
    rows = np.flatnonzero(given >= 0)
    recalibrations = RECALIBRATIONS if recalibrations is None else recalibrations
    if not len(rows) or not all(len(choices) and min(choices) >= 0 for choices in (spreads, recalibrations)):
        raise ValueError(
            f"found {len(rows)} photographs of known site, spreads {list(spreads)} and recalibrations {list(recalibrations)}"
        )
    numbers = np.unique(groups[rows], return_inverse=True)[1]
    shares = np.bincount(given[rows], minlength=len(labels[SITE])) / len(rows)
    told = told_by_image(scores[SITE][rows] if SITE in scores else shares, (len(rows), len(shares)))
    known = values[LESION][rows].T
    data = _Photographs(
        z=log_odds(scores[LESION][rows]).T,
        present=known == 1,
        known=known >= 0,
        given=given[rows],
        told=told,
        shares=shares,
    )
    choice = _Choice.among(data, numbers, counted_classes(labels[LESION]))
    weights = HEAD_WEIGHTS if SITE in scores else (0.0,)
    # Without a spread of theta the weight does nothing; so it is tried once.
    tried = [(weight, spread) for weight in weights for spread in spreads if spread or weight == weights[0]]
    first = choice.best([_Setting(weight, _FREE_RECALIBRATION, spread) for weight, spread in tried])
    best = choice.best([replace(first, recalibration=recalibration) for recalibration in recalibrations])
    moved = _minimise(data, best, choice.fitted, np.zeros((len(known), 2 + len(shares))), _EXACT)
    return SitePrior(
        lesions=labels[LESION].classes,
        sites=labels[SITE].classes,
        intercept=tuple(moved[:, 0].tolist()),
        slope=tuple((1 + moved[:, 1]).tolist()),
        theta=tuple(tuple(row) for row in moved[:, 2:].tolist()),
        site_shares=tuple(shares.tolist()),
        head_weight=best.head_weight,
        recalibration=best.recalibration,
        spread=best.spread,
        n_groups=int(numbers.max()) + 1,
    )


@dataclass(frozen=True, slots=True)
class _Setting:
    """What is chosen; see `SitePrior`."""

    head_weight: float
    recalibration: float
    spread: float


@dataclass(frozen=True, eq=False, slots=True)
class _Photographs:
    """N photographs of known site.

    Attributes:
        z: (L, N) log-odds of the scores.
        present: (L, N).
        known: (L, N).
        given: (N,) positions of sites.
        told: (N, S) of a site head.
        shares: (S,) of the sites.
    """

    z: Floats
    present: NDArray[np.bool_]
    known: NDArray[np.bool_]
    given: NDArray[np.int64]
    told: Floats
    shares: Floats

    def take(self, rows: NDArray[np.bool_]) -> _Photographs:
        parts = self.z[:, rows], self.present[:, rows], self.known[:, rows]
        return _Photographs(*parts, self.given[rows], self.told[rows], self.shares)

    def news(self, head_weight: float) -> Floats:
        """(N, S), see `site_news`."""
        return site_news(head_weight * self.told + (1 - head_weight) * self.shares, self.given)

    def log_odds(self, moved: Floats, news: Floats) -> Floats:
        """(L, N) log-odds on the site; `moved` is (L, 2 + S): a, b - 1, theta."""
        return np.asarray(self.z + moved[:, :1] + moved[:, 1:2] * self.z + moved[:, 2:] @ news.T)

    def losses(self, moved: Floats, news: Floats) -> Floats:
        """(L, N) logistic loss in nats; 0 where the label is unknown."""
        z = self.log_odds(moved, news)
        return np.where(self.known, np.logaddexp(0, z) - z * self.present, 0.0)

    def derivatives(self, moved: Floats, news: Floats) -> tuple[Floats, Floats]:
        """(L, 2 + S) gradient and (L, 2 + S, 2 + S) curvature of the loss."""
        p = expit(self.log_odds(moved, news))
        residual = np.where(self.known, p - self.present, 0.0)
        weight = np.where(self.known, p * (1 - p), 0.0)
        gradient = np.column_stack([residual.sum(axis=1), (residual * self.z).sum(axis=1), residual @ news])
        n_sites = news.shape[1]
        curvature = np.empty((len(p), 2 + n_sites, 2 + n_sites))
        for k, scaled in enumerate((weight, weight * self.z)):
            curvature[:, k, 0] = scaled.sum(axis=1)
            curvature[:, k, 1] = (scaled * self.z).sum(axis=1)
            curvature[:, k, 2:] = curvature[:, 2:, k] = scaled @ news
        # Half of the time is spent here. float32 turns the step by a millionth; where it leads to depends on the gradient alone.
        light, weight = news.astype(np.float32), weight.astype(np.float32)
        of_theta = np.zeros((len(p), n_sites * n_sites))
        for rows in (slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(news), _ROWS_AT_ONCE)):
            of_theta += weight[:, rows] @ (light[rows, :, None] * light[rows, None, :]).reshape(-1, n_sites * n_sites)
        curvature[:, 2:, 2:] = of_theta.reshape(-1, n_sites, n_sites)
        return gradient, curvature


@dataclass(frozen=True, eq=False, slots=True)
class _Choice:
    """Settings are judged by what is lost on parts of the photographs after a fit on the other parts.

    Attributes:
        parts: (what is fitted on, what is held out, group numbers of what is held out) each.
        fitted: (L,) which lesions have enough groups to be fitted.
        judged: (L,) which of them are judged by.
    """

    parts: tuple[tuple[_Photographs, _Photographs, NDArray[np.int64]], ...]
    fitted: NDArray[np.bool_]
    judged: NDArray[np.bool_]

    @classmethod
    def among(cls, data: _Photographs, groups: NDArray[np.int64], counted: NDArray[np.bool_]) -> _Choice:
        def enough(cells: NDArray[np.bool_]) -> bool:
            return len(np.unique(groups[cells])) >= MIN_POSITIVE_GROUPS

        labels = zip(data.present, data.known, strict=True)
        fitted = np.array([enough(present) and enough(known & ~present) for present, known in labels])
        n_groups = int(groups.max()) + 1
        part = (stream(0, "site prior").permutation(n_groups) % _N_PARTS)[groups]
        parts = [(data.take(part != k), data.take(part == k), groups[part == k]) for k in np.unique(part)]
        return cls(tuple(parts), fitted, fitted & counted)

    def best(self, settings: Sequence[_Setting]) -> _Setting:
        """The setting that loses least, summed over lesions and photographs, if by more than a standard error less than the first.

        Of many settings some would do better by chance; where nothing is to be gained, this keeps most of them from doing harm.
        """
        if len(settings) == 1 or not self.judged.any():
            return settings[0]
        by_group = np.zeros((len(settings), sum(len(np.unique(groups)) for _, _, groups in self.parts)))
        for fitted_on, held_out, groups in self.parts:
            moved = np.zeros((len(self.fitted), 2 + len(held_out.shares)))
            for k, setting in enumerate(settings):
                moved = _minimise(fitted_on, setting, self.judged, moved, _ROUGH)
                losses = held_out.losses(moved, held_out.news(setting.head_weight))[self.judged].sum(axis=0)
                by_group[k] += np.bincount(groups, losses, by_group.shape[1])
        least = int(by_group.sum(axis=1).argmin())
        gained = by_group[0] - by_group[least]
        return settings[least if gained.sum() > np.sqrt(len(gained)) * gained.std() else 0]


def _minimise(data: _Photographs, setting: _Setting, fitted: NDArray[np.bool_], start: Floats, tolerance: float) -> Floats:
    """Newton's method for all lesions at once, with shorter steps where a whole one would overshoot; the loss is strictly convex.

    Args:
        data: What is fitted on.
        setting: How.
        fitted: (L,) which lesions are fitted.
        start: (L, 2 + S) a, b - 1, theta to begin with.
        tolerance: Nats that a last step may bring for any lesion.

    Returns:
        (L, 2 + S); 0 where a lesion is not fitted, a spread is 0, or theta is of a site without a known label of the lesion.
    """
    news = data.news(setting.head_weight)
    n_sites = news.shape[1]
    spread = np.repeat((setting.recalibration, setting.spread), (2, n_sites))
    seen = data.known.astype(np.float64) @ (data.given[:, None] == np.arange(n_sites)) > 0
    free = fitted[:, None] & (spread > 0) & np.column_stack([np.ones((len(fitted), 2), dtype=np.bool_), seen])
    precision = np.where(spread > 0, spread, 1.0) ** -2

    def penalised(moved: Floats) -> Floats:
        return np.asarray(data.losses(moved, news).sum(axis=1) + moved**2 @ precision / 2)

    moved = np.where(free, start, 0.0)
    for _ in range(_NEWTON_STEPS):
        gradient, curvature = data.derivatives(moved, news)
        gradient = np.where(free, gradient + precision * moved, 0.0)
        curvature = np.where(free[:, :, None] & free[:, None, :], curvature + np.diag(precision), np.eye(2 + n_sites))
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        if ((gradient * step).sum(axis=1) <= tolerance).all():
            return np.asarray(moved - step)
        loss = penalised(moved)
        while (overshot := penalised(moved - step) > loss).any():
            step[overshot] /= 2
        moved = moved - step
    raise ArithmeticError(f"the site prior did not settle in {_NEWTON_STEPS} steps")
