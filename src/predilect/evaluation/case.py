"""Several photographs of one case, answered as one.

**Lesions: the highest probability.** A case shows what any of its photographs shows. How probable that is lies between the highest of their
probabilities, if the photographs show the same, and the sum of all, if they have nothing to do with each other; those of one case mostly show the same.
The highest also commutes with any rising calibration, and the set of a case is then all that cannot be excluded on some photograph
of it, so the bound on what sets leave out holds for each photograph as it does alone. Its price: with every
photograph more a false alarm becomes more likely. A mean of log-odds would lose a lesion that one photograph of three shows, and
independence (1 minus the product of all 1 - p) would make ten looks at one doubtful spot a certainty.

**Site: the mean.** All photographs of a case were taken at one place, so they are several opinions on one question; their mean is a
probability again, and one photograph that shows nothing of the place does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predilect.labels.tasks import LESION

__all__ = ["combine_case"]


def combine_case(probabilities: Mapping[str, NDArray[np.floating[Any]]]) -> dict[str, NDArray[np.float32]]:
    """What is said of a case.

    Args:
        probabilities: By task (N, C), of its N photographs: calibrated, and with a given site taken into account.

    Returns:
        By task (1, C): of lesions the highest, of the site the mean.

    Raises:
        ValueError: If there is no photograph.

    Examples:
        >>> found = combine_case({"lesion": np.array([[0.125, 0.75], [0.5, 0.25]]), "site": np.array([[1.0, 0.0], [0.5, 0.5]])})
        >>> {task: values.tolist() for task, values in found.items()}
        {'lesion': [[0.5, 0.75]], 'site': [[0.75, 0.25]]}
    """
    if any(not len(values) for values in probabilities.values()):
        raise ValueError("a case has at least one photograph")
    return {
        task: (values.max(axis=0, keepdims=True) if task == LESION else values.mean(axis=0, keepdims=True)).astype(np.float32)
        for task, values in probabilities.items()
    }
