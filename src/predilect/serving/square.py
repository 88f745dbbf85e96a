"""The central square of a whole photograph, made inside a network's graph, with the very pixels that Pillow gives outside of it.

`vision.transforms.central_square` leaves resizing to Pillow, whose antialiased bilinear filter is fixed-point arithmetic: weights
are whole numbers of 2^-22, and rows, then columns, are each rounded to 8 bits. Scores follow single levels of single pixels in the
third decimal place, so an export can only be held to 1e-4 if its graph does the same sums. The Resize operator of ONNX does not:
its coordinates are float32, and runtimes differ in what they make of it. Here it is products of matrices, which all of them have.

Pillow 13 takes columns before rows where a photograph loses more than twice as much height as width, and Pillow 12 does not; such a
tall photograph's pixels may differ by one level in 255.
"""

from __future__ import annotations

import torch
from torch import SymInt, Tensor, nn

__all__ = ["CentralSquare"]

_GROUP = 16  # neighbouring pixels of the result that are computed from one window of the photograph
_ONE = 2**22  # a weight of 1 in Pillow
_HALF = (
    2**11
)  # weights are taken apart into two numbers below it, for float32 then holds their sums exactly (up to 32 of the lower)


class CentralSquare(nn.Module):
    """Scale the shorter side of photographs to a length and keep the central square; one that is such a square stays as it is.

    Args:
        side: Of the square, in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, photographs: Tensor) -> Tensor:
        """The squares.

        Args:
            photographs: (B, H, W, 3) uint8, all of one size.

        Returns:
            (B, 3, side, side) uint8.
        """
        n_rows, n_columns = photographs.shape[1:3]
        height, width = (torch.scalar_tensor(length, dtype=torch.float64) for length in (n_rows, n_columns))
        # A number over a tensor would be its reciprocal times the number, which may round the other side to another length.
        scale = torch.scalar_tensor(self.side, dtype=torch.float64) / torch.minimum(height, width)
        # A group's window: 15 steps between centres and at most a step, or a pixel, beyond them on either side; a step is shorter
        # side over side, and no more than a share of 1 / side longer where the other side was rounded.
        window = 18 * torch.sym_max(torch.sym_min(n_rows, n_columns), self.side) // self.side + 4
        rows = self._resized(photographs.transpose(1, 2), width, scale, window)  # (B, side, H, 3)
        return self._resized(rows.transpose(1, 2), height, scale, window).permute(0, 3, 1, 2)

    def _resized(self, lines: Tensor, length: Tensor, scale: Tensor, window: int | SymInt) -> Tensor:
        """(B, L, R, 3) uint8 -> (B, side, R, 3): the central part of the second axis, resized."""
        places, weights = self._filter(length, scale, window)
        n_groups = weights.shape[0]
        taken = torch.minimum(places.clamp(min=0), length - 1).long().flatten()
        pixels = lines.index_select(1, taken).reshape(lines.shape[0], n_groups, window, -1).float()  # (B, G, window, 3 R)
        upper = (weights / _HALF).floor()
        sums = (torch.cat([upper, weights - upper * _HALF], dim=1).float() @ pixels).double()  # (B, G, 32, 3 R)
        rounded = ((sums[:, :, :_GROUP] * _HALF + sums[:, :, _GROUP:]) / _ONE + 0.5).floor().to(torch.uint8)
        return rounded.reshape(lines.shape[0], n_groups * _GROUP, -1, 3)[:, : self.side]

    def _filter(self, length: Tensor, scale: Tensor, window: int | SymInt) -> tuple[Tensor, Tensor]:
        """Which places of an axis each group looks at, (G, 1, window), and with what weights in units of 2^-22, (G, 16, window)."""
        whole = (length * scale).round().clamp(min=self.side)  # of the whole photograph resized
        corner = ((whole - self.side) / 2).floor()
        ratio = length / whole
        first, last = (corner * ratio).float(), torch.minimum(length, (corner + self.side) * ratio).float()  # float32 in Pillow
        step = (last - first).double() / self.side
        reach = step.clamp(min=1.0)
        number = torch.arange(-(-self.side // _GROUP) * _GROUP, dtype=torch.float64).clamp(max=self.side - 1)
        centres = (first.double() + (number + 0.5) * step).reshape(-1, _GROUP, 1)
        places = (centres[:, :1] - reach).floor() + torch.arange(window, dtype=torch.float64)
        inside = (places >= 0) & (places < length)
        weights = (1 - (places + 0.5 - centres).abs() / reach).clamp(min=0) * inside
        return places, (weights / weights.sum(dim=2, keepdim=True) * _ONE + 0.5).floor()
