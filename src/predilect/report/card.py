"""The model card of a bundle, in Markdown: what it is, what it is for and what not, where it comes from, how well it does, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from predilect.evaluation.fitted_parts import FittedParts
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth
from predilect.report.card_scores import Tested, fitted_on, limits, tested_probabilities, tested_scores, untested
from predilect.report.markdown import bullets, escaped, table
from predilect.report.wording import INTENDED_USE, listed, many

__all__ = ["model_card"]

_YEARS = 20
_AGES = ("below 20", "20 to 39", "40 to 59", "60 to 79", "from 80")


def model_card(info: Mapping[str, Any], fitted: FittedParts, tested: Tested | None) -> str:
    """Write a card.

    Args:
        info: What `bundle.json` holds: ``system``, ``labels``, ``preprocessing``, ``recipe``, ``provenance``, ``licences``.
        fitted: What was fitted for the bundle.
        tested: None where no fold was held out.

    Returns:
        Markdown (CommonMark with tables).
    """
    sections = [
        _what(info),
        _use(),
        _data(info, tested),
        _training(info),
        *(
            [untested()]
            if tested is None
            else [tested_scores(info["system"], tested), tested_probabilities(info["system"], fitted, tested)]
        ),
        fitted_on(info, fitted, tested),
        limits(fitted, tested),
    ]
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _what(info: Mapping[str, Any]) -> list[str]:
    said = {LESION: "which of {} it shows, one, several or none", SITE: "on which of {} it was taken"}
    counted = {LESION: "lesion", SITE: "body site"}
    parts = [said[task].format(many(len(item["classes"]), counted[task])) for task, item in info["labels"].items()]
    atlas = escaped(str(info["provenance"].get("atlas", "an atlas")))
    blocks = [
        f"# {escaped(info['system'])} on {atlas}",
        f"A network ({escaped(info['recipe']['backbone'])}) that says of a photograph of skin {', and '.join(parts)}. Made with Predilect.",
    ]
    for task, item in info["labels"].items():
        names = [escaped(name) + ("\\*" if name in item["machine"] else "") for name in item["classes"]]
        blocks.append(f"{counted[task].capitalize()}s: {', '.join(names)}.")
    if any(item["machine"] for item in info["labels"].values()):
        blocks.append("\\* A model, not a person, made the labels of these: what is said of them is what that model would say.")
    return blocks


def _use() -> list[str]:
    return [
        "## Intended use",
        INTENDED_USE,
        bullets(
            [
                "To compare systems, to study which photographs are hard, to teach how such a network answers and errs, to build software around it.",
                "Not to diagnose, not to rule anything out, not to sort patients, not to choose a treatment, with or without a physician.",
                "Not for photographs of other kinds than those below: other cameras, sites, lesions, ages or skin tones. Nothing is known of those.",
            ]
        ),
    ]


def _data(info: Mapping[str, Any], tested: Tested | None) -> list[str]:
    provenance = info["provenance"]
    rows = [[escaped(source[key] or "not given") for key in ("name", "licence", "credit")] for source in provenance["sources"]]
    blocks = ["## Data", table(["source", "licence", "credit"], rows, words=3)] if rows else ["## Data", "No source is named."]
    if provenance.get("notes"):
        blocks.append(bullets([escaped(note) for note in provenance["notes"]]))
    people = [] if tested is None else _people(tested.truth)
    if people:
        assert tested is not None
        blocks += [
            f"What is known of the {many(len(tested.truth), 'photograph')} that were tested:",
            table(["", "", "photographs"], people, words=2),
            "Scores were not broken down by these; a network may do worse on a group that is small here, and nothing below would show it.",
        ]
    elif tested is not None:
        blocks.append("Skin tone, age and sex are not known of any photograph, so nothing can be said of subgroups.")
    return blocks


def _people(truth: Truth) -> list[list[str]]:
    """Photographs by skin tone, age and sex; what nobody noted stands last."""
    known, rows = truth.covariates, []
    tone = pl.concat_str([pl.col("skin_tone"), pl.col("skin_tone_scale")], separator=", ")
    columns = {
        "skin tone": (("skin_tone", "skin_tone_scale"), tone),
        "age": (("age",), (pl.col("age") // _YEARS).clip(0, len(_AGES) - 1)),
        "sex": (("sex",), pl.col("sex")),
    }
    for title, (needed, value) in columns.items():
        if set(needed) <= set(known.columns) and known[needed[0]].count():
            number_first = pl.col("value").cast(pl.String).str.extract(r"^(\d+)").cast(pl.Int64)  # 2 comes before 10
            counts = known.select(value=value).group_by("value").len().sort(number_first, "value", nulls_last=True)
            rows += [[title, _person(item), f"{n:,}"] for item, n in counts.iter_rows()]
    return rows


def _person(value: str | float | None) -> str:
    """A skin tone, a sex, or a number that stands for a span of age."""
    if value is None:
        return "not known"
    return escaped(value) if isinstance(value, str) else _AGES[int(value)]


def _training(info: Mapping[str, Any]) -> list[str]:
    recipe, provenance, preprocessing = info["recipe"], info["provenance"], info["preprocessing"]
    starts = {"pretrained": "weights of the backbone's own library", "none": "random weights"}
    rows = [
        ["tasks", listed([escaped(task) for task in info["labels"]])],
        ["backbone", escaped(recipe["backbone"])],
        ["started from", escaped(starts.get(recipe["weights"], recipe["weights"]))],
        ["recipe", escaped(recipe["name"])],
        ["learnt from", many(provenance.get("n_images", 0), "photograph")],
        ["iterations", f"{provenance.get('iterations', 0):,}, with {recipe['batch_size']} photographs each"],
        ["optimiser", f"{recipe['optimizer']}, rate {recipe['learning_rate']:g}, {recipe['schedule']}"],
        ["seed", str(provenance.get("seed", "not known"))],
        ["looks at", _views(preprocessing)],
    ]
    commands = [" ".join(str(provenance[key]).split()) for key in ("command", "made_by") if key in provenance]
    told = ["The commands:", "\n".join(f"    {command}" for command in dict.fromkeys(commands))] if commands else []
    return ["## Training", table(["", ""], rows, words=2), *told]


def _views(preprocessing: Mapping[str, Any]) -> str:
    crop, side = preprocessing["crop"], preprocessing["test_side"]
    seen = "ten crops" if preprocessing["views"] == "ten-crop" else "the centre"
    return f"{seen} of {crop} × {crop} pixels, the shorter side being scaled to {side}"
