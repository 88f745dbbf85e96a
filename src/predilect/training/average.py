"""The running average of a network's weights, which is often better than the last weights themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from predilect.vision.network import Network

__all__ = ["WeightAverage"]


class WeightAverage:
    """An exponential moving average of weights and batch statistics over the iterations (Polyak and Juditsky 1992).

    Args:
        network: Whose weights; the first of them to be added are the average's start.
        decay: The share that the average keeps in an iteration, in (0, 1).
    """

    def __init__(self, network: Network, decay: float) -> None:
        moving = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._averaged = AveragedModel(network, multi_avg_fn=moving, use_buffers=True)

    @property
    def network(self) -> Network:
        """A network with the averaged weights."""
        module = self._averaged.module
        assert isinstance(module, Network)
        return module

    def add(self, network: Network) -> None:
        """Take in the weights after an iteration."""
        self._averaged.update_parameters(network)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `restore` needs."""
        return dict(self._averaged.state_dict())

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        self._averaged.load_state_dict(tensors)
