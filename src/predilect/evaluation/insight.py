"""``insight.json``: what the networks of a cross-validation show of themselves, summed up over its folds and seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from predilect.errors import InsightError
from predilect.evaluation.attention_scores import AttentionEvaluation
from predilect.evaluation.retrieval_summary import RetrievalEvaluation
from predilect.files import is_sealed, read_json, seal, write_json

__all__ = ["INSIGHT_FILE", "SCHEMA_VERSION", "Insight", "InsightCost", "insight_schema"]

SCHEMA_VERSION = 1
INSIGHT_FILE = "insight.json"

_AGAIN = "make it anew with predilect explain"


class InsightCost(BaseModel):
    """What one system took.

    Attributes:
        seconds: Over its folds and seeds.
        images: Inputs that went through a network in that time: each photograph of the atlas once for each fold, seed and view, and
            what deletion, insertion and randomisation show it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float
    images: int


class Insight(BaseModel):
    """What ``insight.json`` holds, but its seal.

    Attributes:
        schema_version: Raised when a field changes its meaning or goes.
        command: As it was typed.
        weights: SHA-256 of the weights looked at, by system, seed and fold.
        cost: By system.
        attention: Where the networks look, and whether that is true.
        retrieval: How alike the photographs are that they put next to each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, title="Predilect insight")

    schema_version: Literal[1] = 1
    command: str
    weights: dict[str, dict[str, dict[str, str]]]
    cost: dict[str, InsightCost]
    attention: AttentionEvaluation
    retrieval: RetrievalEvaluation

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an `insight.json`.

        Raises:
            InsightError: If it is missing, damaged, changed by hand or of another schema version.
        """
        value = read_json(path, InsightError, _AGAIN)
        if value.get("schema_version") != SCHEMA_VERSION:
            found = value.get("schema_version")
            raise InsightError(f"{path} has schema version {found!r}, allowed is {SCHEMA_VERSION}; {_AGAIN}")
        if not is_sealed(value):
            raise InsightError(f"{path} is not what was written (its sha256 does not fit its content); {_AGAIN}")
        try:
            return cls.model_validate({key: item for key, item in value.items() if key != "sha256"})
        except ValidationError as error:
            problem = error.errors()[0]
            raise InsightError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}; {_AGAIN}") from error

    def write(self, path: Path) -> None:
        """Write it as JSON under a seal, atomically."""
        write_json(path, seal(self.model_dump(mode="json")))

    def is_of(self, checksum: Callable[[str, int, int], str | None]) -> bool:
        """Whether the weights that were looked at are still those of the run.

        Args:
            checksum: SHA-256 of the weights of a system, seed and fold; None where there are none.
        """
        return all(
            checksum(system, int(seed), int(fold)) == digest
            for system, seeds in self.weights.items()
            for seed, folds in seeds.items()
            for fold, digest in folds.items()
        )


def insight_schema() -> dict[str, Any]:
    """The JSON Schema of `insight.json`; a copy is stored in ``report/schemas/insight.schema.json``."""
    schema = Insight.model_json_schema(mode="serialization")
    schema["properties"]["sha256"] = {"description": "Seal over the rest", "pattern": "^[0-9a-f]{64}$", "type": "string"}
    schema["required"].append("sha256")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
