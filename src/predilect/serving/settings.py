"""What a server allows and whom it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Settings"]

_MB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits of a server.

    Attributes:
        token: What a request to ``/v1`` must bring along; None: nothing.
        hosts: Names that the Host header may hold, so that no web page can reach a server on loopback under a name of its own (DNS
            rebinding); None: any.
        any_address: Whether it may also hold an address in numbers, which no page can make its own.
        max_files: In a request.
        max_file_bytes: Of one file.
        max_request_bytes: Of a whole request.
        max_held_bytes: Of all uploads that are held in memory at once; beyond it requests are put off.
        max_pixels: Width times height of a photograph.
        receive_seconds: A request that takes longer to come in is given up.
        stall_seconds: So is one that stops for longer, or as good as stops; see `uploads.Pace`.
        send_seconds: Who takes less than 64 KB of an answer in so long, and not the rest of it, is given up.
        finish_seconds: What was taken in is answered for so long when the server is told to stop.
        capacity: Photographs that may be taken in and not yet answered; beyond it requests are put off.
        max_slow: The same of those that may take long to decode; see `lanes.is_quick`.
        max_batch: Photographs that the network sees together.
        gather_seconds: How long a photograph waits for others where none is before the network.
        decoders: Threads that decode photographs; from two on, one is for those that do not take long.

    Raises:
        ValueError: If a request may hold more files than there is room for, or more bytes.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = None
    any_address: bool = False
    max_files: int = 16
    max_file_bytes: int = 32 * _MB
    max_request_bytes: int = 64 * _MB
    max_held_bytes: int = 256 * _MB
    max_pixels: int = 2**26
    receive_seconds: float = 30.0
    stall_seconds: float = 5.0
    send_seconds: float = 30.0
    finish_seconds: int = 120  # a full server takes a minute where ten crops of a photograph take a second
    capacity: int = 64
    max_slow: int = 16
    max_batch: int = 16
    gather_seconds: float = 0.002
    decoders: int = 2

    def __post_init__(self) -> None:
        if self.max_files > min(self.capacity, self.max_slow) or self.max_request_bytes > self.max_held_bytes:
            raise ValueError("a single request must fit into a server that is idle")
