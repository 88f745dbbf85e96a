"""Taxonomy: how the terms that a source wrote become the classes that a network learns, kept as a TOML file.

    schema_version = 1
    name = "example"
    description = "what it is for"
    drop_below = 10       # a class with fewer photographs is left out
    keep_above = 1000     # a sub-lesion with more photographs stays a class of its own

    [lesion]
    terms = ["papule", "flat papule", "erosion", "ulcer", "blister", "artefact"]
    unknown_terms = "error"                    # or "keep", "drop"
    machine = []                               # final classes whose labels a model made
    aliases = { "papules" = "papule" }         # as written = term
    parents = { "flat papule" = "papule" }     # sub-lesion = the lesion it belongs to
    merges = { "erosion/ulcer" = ["erosion", "ulcer"] }
    drops = { "artefact" = "not a lesion" }    # term = why it is left out

    [site]
    terms = ["hand", "nails", "face"]
    merges = { "hand" = ["nails"] }
    several = "unknown"                        # several sites on one photograph; or "first", "priority"
    priority = []                              # final sites, the strongest first

`predilect.labels.rules` says what each table means, and how spellings are compared; `predilect.atlas.refine` in which order the
rules apply.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from predilect.errors import LabelError, nearest
from predilect.labels.rules import LesionRules, SiteRules
from predilect.labels.tasks import LESION, SITE

__all__ = ["Taxonomy"]

_PRESETS = resources.files("predilect.labels") / "presets"


class Taxonomy(BaseModel):
    """The whole of a taxonomy.

    Attributes:
        schema_version: Of the TOML form.
        name: A short name, shown in logs and reports.
        description: What it is for and where it comes from.
        drop_below: A class with fewer photographs is left out (the paper: 10).
        keep_above: A sub-lesion with more photographs does not fold into its parent (the paper: 1,000).
        lesion: Rules for lesions.
        site: Rules for body sites.

    Raises:
        LabelError: If the rules contradict each other.
        ValueError: If a value is of the wrong type (`from_toml` makes it a `LabelError`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    drop_below: Annotated[StrictInt, Field(ge=1)] = 10
    keep_above: Annotated[StrictInt, Field(ge=0)] = 1000
    lesion: LesionRules = Field(default_factory=LesionRules)
    site: SiteRules = Field(default_factory=SiteRules)

    @classmethod
    def from_toml(cls, text: str, origin: str) -> Self:
        """Read a taxonomy from TOML.

        Args:
            text: The TOML document.
            origin: What to call it in error messages, such as its path.

        Raises:
            LabelError: If it is not TOML, a key is unknown, or a value or a rule cannot be; the message names the key.
        """
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise LabelError(f"{origin} is not a TOML file: {error}") from error
        except ValidationError as error:
            raise LabelError(f"{origin}: {_first_problem(error)}") from error
        except LabelError as error:
            raise LabelError(f"{origin}: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a taxonomy from a ``.toml`` file.

        Raises:
            LabelError: If the file cannot be read, or as `from_toml`.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise LabelError(f"{path}: there is no such taxonomy file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise LabelError(f"{path} cannot be read: {error}") from error
        return cls.from_toml(text, str(path))

    @staticmethod
    def presets() -> tuple[str, ...]:
        """Names of the taxonomies that come with Predilect."""
        return tuple(sorted(item.name.removesuffix(".toml") for item in _PRESETS.iterdir() if item.name.endswith(".toml")))

    @classmethod
    def preset(cls, name: str) -> Self:
        """Read a taxonomy that comes with Predilect.

        Raises:
            LabelError: If there is none of this name.
        """
        if name not in cls.presets():
            raise LabelError(f"there is no taxonomy preset {name!r}: {nearest(name, cls.presets())}")
        return cls.from_toml((_PRESETS / f"{name}.toml").read_text(encoding="utf-8"), f"taxonomy preset {name!r}")

    @classmethod
    def open(cls, name_or_path: str) -> Self:
        """Read a taxonomy by the name of a preset, or from a path that ends in ``.toml``.

        Raises:
            LabelError: As `preset` and `read`.
        """
        if name_or_path.endswith(".toml"):
            return cls.read(Path(name_or_path))
        try:
            return cls.preset(name_or_path)
        except LabelError as error:
            if name_or_path in cls.presets():
                raise
            raise LabelError(f"{error}; a file of your own ends in .toml") from error

    def to_toml(self) -> str:
        """The taxonomy as TOML with every key written out; `from_toml` reads it back as an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def _first_problem(error: ValidationError) -> str:
    # A misspelt key also leaves the right one missing: say the former.
    problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *table, word = problem["loc"]
        models: dict[tuple[int | str, ...], type[BaseModel]] = {(): Taxonomy, (LESION,): LesionRules, (SITE,): SiteRules}
        return f"unknown key {key!r}: {nearest(str(word), models[tuple(table)].model_fields)}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    must = {"tuple_type": "must be a list", "mapping_type": "must be a table", "model_type": "must be a table"}
    return f"{key} {must.get(problem['type'], problem['msg'].replace('Input should', 'must'))}, found {problem['input']!r}"
