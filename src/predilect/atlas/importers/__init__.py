"""One importer for each kind of source: ``read(root)`` gives photographs with raw terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from predilect.atlas.importers import ham10000, imagefolder, milk10k, pad_ufes_20
from predilect.atlas.importers.imported import REJECTED_SCHEMA, Imported, Source

__all__ = ["REJECTED_SCHEMA", "SOURCES", "Imported", "Source"]

SOURCES: Mapping[str, Callable[..., Imported]] = MappingProxyType(
    {
        "imagefolder": imagefolder.read,
        "milk10k": milk10k.read,
        "pad-ufes-20": pad_ufes_20.read,
        "ham10000": ham10000.read,
    }
)
"""The importers by the name that ``predilect import`` knows them by; each takes the root folder and its own options."""
