"""Of how many places two maps are compared where each is highest, and how much two that know nothing of each other overlap there."""

from __future__ import annotations

from math import comb

__all__ = ["TOP_SHARE", "n_highest", "overlap_by_chance"]

TOP_SHARE = 0.2
"""Of a map's places: the highest fifth."""


def n_highest(n_places: int, share: float = TOP_SHARE) -> int:
    """How many places are a map's highest, at least one; of few places that is far from the share.

    Args:
        n_places: Of the map, at least 1.
        share: In (0, 1).

    Raises:
        ValueError: If there is no place, or the share is not between 0 and 1.

    Examples:
        >>> [n_highest(side * side) for side in (2, 3, 4, 7)]
        [1, 2, 3, 10]
    """
    if n_places < 1:
        raise ValueError(f"a map of {n_places} places has no highest")
    if not 0 < share < 1:
        raise ValueError(f"share {share} must be between 0 and 1")
    return max(1, round(share * n_places))


def overlap_by_chance(n_places: int, share: float = TOP_SHARE) -> float:
    """Intersection over union of the highest places of two maps that know nothing of each other, on average.

    Of n places m are the highest of each. How many are those of both is hypergeometric: i with probability
    C(m, i) C(n - m, m - i) / C(n, m), which makes an overlap of i / (2m - i). With ever more places the mean nears
    share / (2 - share), 0.111 for the top 20 %. Equal values within a map, by which more places may be highest, are left out of account.

    Args:
        n_places: Of either map, at least 1.
        share: In (0, 1), of the places.

    Returns:
        In (0, 1].

    Raises:
        ValueError: If there is no place, or the share is not between 0 and 1.

    Examples:
        >>> [round(overlap_by_chance(side * side), 3) for side in (2, 3, 4, 7, 100)]
        [0.25, 0.157, 0.12, 0.118, 0.111]
    """
    n, m = n_places, n_highest(n_places, share)
    ways = {i: comb(m, i) * comb(n - m, m - i) for i in range(max(0, 2 * m - n), m + 1)}
    return sum(count / comb(n, m) * i / (2 * m - i) for i, count in ways.items())
