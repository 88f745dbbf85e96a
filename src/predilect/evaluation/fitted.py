"""What is fitted on predictions, as plain JSON values: written exactly, read back strictly."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

__all__ = ["STRICT", "Fitted"]

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Fitted:
    """Base of the frozen dataclasses (pydantic's, configured as `STRICT`) that a bundle holds as JSON."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` reads them back, every number exact."""
        values: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If a key is missing or unknown, or a value is not allowed; names the first such place.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(value))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"]) or "the whole"
            raise ValueError(f"{place}: {fault['msg'].removeprefix('Value error, ')}") from error
