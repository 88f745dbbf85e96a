"""The paper's experiments as systems: which there are, with which recipe each is trained, and in which budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from predilect.errors import RecipeError, nearest
from predilect.labels.tasks import LESION, SITE
from predilect.recipe import SYSTEMS, Recipe, System, system, with_weights
from predilect.run import ENSEMBLES, ReportPlan, check_members

__all__ = ["BUDGETS", "EXPERIMENTS", "Budget", "experiments", "plan_of"]

_RECIPES: Mapping[str, str] = {
    "alexnet": "paper-alexnet",
    "resnet": "paper-resnet",
    "resnet-site": "paper-resnet-site",
    "mtl": "paper-mtl",
    "mtl-scratch": "paper-mtl",
    "modern-mtl": "modern-mtl",
}
EXPERIMENTS: tuple[str, ...] = ("alexnet", "resnet", "resnet-site", "mtl", *ENSEMBLES, "mtl-scratch", "modern-mtl")
"""Everything that a reproduction can show, in the order of its tables."""

_PAIRS = (
    ("mtl", "resnet"),
    ("mtl", "resnet-site"),
    ("resnet", "alexnet"),
    ("ensemble", "mtl"),
    ("ensemble-mean", "mtl"),
    ("mtl-scratch", "mtl"),
    ("modern-mtl", "mtl"),
)
"""What the paper compares, and what goes past it with what it would replace: fewer pairs, each a question."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is spent on a reproduction; the form of the recipes stays.

    Attributes:
        name: As it is asked for.
        folds: Into how many folds an atlas is split that has none.
        seeds: Training seeds.
        experiments: Names out of `EXPERIMENTS`.
        settings: ``key=value`` settings that replace those of a recipe, by the recipe's name.
        words: What it is, as the report says it.
        cautions: What the report says besides of an experiment that is trained in it, by the experiment's name.
    """

    name: str
    folds: int
    seeds: tuple[int, ...]
    experiments: tuple[str, ...]
    settings: Mapping[str, tuple[str, ...]]
    words: str
    cautions: Mapping[str, str] = field(default_factory=dict)


# Crops of 128 for 224, and every other length in that proportion.
_SMALL = ("preprocessing.crop=128", "preprocessing.jitter=[146, 274]", "preprocessing.test_side=146")
_SHORT = (*_SMALL, "iterations=300", "validate_every=25", "plateau_patience=2")

BUDGETS: Mapping[str, Budget] = {
    "quick": Budget(
        name="quick",
        folds=3,
        seeds=(1, 2),
        experiments=tuple(name for name in EXPERIMENTS if name != "mtl-scratch"),
        settings={
            "paper-mtl": _SHORT,
            "paper-resnet": _SHORT,
            "paper-resnet-site": _SHORT,
            "paper-alexnet": (*_SMALL, "iterations=24", "validate_every=2", "plateau_patience=2"),
        },
        words="the paper's recipes shrunk to what two processor cores do in some hours",
    ),
    "paper": Budget(
        name="paper",
        folds=5,
        seeds=(1, 2, 3),
        experiments=EXPERIMENTS,
        settings={
            "modern-mtl": (
                "backbone=resnet50",
                "frozen_stages=0",
                "preprocessing.crop=224",
                "preprocessing.jitter=[232, 420]",
                "preprocessing.test_side=256",
                "iterations=20000",
                "warmup=1000",
            )
        },
        words="the paper's recipes as they are printed",
        cautions={
            "modern-mtl": (
                "The settings of modern-mtl in the budget paper were chosen on no photographs: what was chosen on some is a smaller "
                "network, trained in less time."
            )
        },
    ),
}


def experiments(
    budget: Budget,
    names: Sequence[str],
    *,
    weights: Mapping[str, Path] | None = None,
    from_scratch: bool = False,
    settings: Sequence[str] = (),
) -> list[System]:
    """The systems to train, each with its own recipe in the budget.

    Args:
        budget: Gives the settings that replace the recipes'.
        names: Out of `EXPERIMENTS`; ensembles are computed from others and give no system.
        weights: Local files of starting weights by the backbone's name, such as ``resnet50``.
        from_scratch: Whether every system starts from random weights.
        settings: Further ``key=value`` settings, for every recipe.

    Raises:
        RecipeError: If there is no such experiment, an ensemble lacks a member, a file is for a backbone that none has, or
            a setting is wrong.
    """
    for name in names:
        if name not in EXPERIMENTS:
            raise RecipeError(f"there is no experiment {name!r}: {nearest(name, EXPERIMENTS)}")
    check_members(names)
    if from_scratch and {"mtl", "mtl-scratch"} <= set(names):
        raise RecipeError("--from-scratch makes mtl and mtl-scratch the same: name one of them in --systems")
    # Random weights are worth no keeping: a recipe that freezes its first stages trains them here.
    start = ("frozen_stages=0",) if from_scratch else ()
    chosen = []
    for name in (name for name in EXPERIMENTS if name in names and name not in ENSEMBLES):
        recipe = Recipe.open(_RECIPES[name], (*budget.settings.get(_RECIPES[name], ()), *start, *settings))
        chosen.append(system(name, recipe) if name in SYSTEMS else System(name, (LESION, SITE), recipe))
    return with_weights(chosen, weights or {}, from_scratch=from_scratch)


def plan_of(
    budget: Budget,
    names: Sequence[str],
    systems: Sequence[System],
    *,
    n_folds: int,
    seeds: Sequence[int],
    settings: Sequence[str] = (),
) -> ReportPlan:
    """What the report of a reproduction shows beside its systems, and its first lines: what ran.

    Args:
        budget: That was asked for.
        names: The experiments.
        systems: What is trained for them.
        n_folds: Folds that are tested.
        seeds: Training seeds.
        settings: ``key=value`` settings that replaced those of every recipe.
    """
    replaced = f", with {', '.join(settings)} in every recipe" if settings else ""
    first = (
        f"Budget {budget.name}: {budget.words}{replaced}. {n_folds} folds, seeds {', '.join(map(str, seeds))}. The paper: 5 folds, crops of "
        f"224 pixels from a shorter side of 256 to 480, at most 120,000 iterations of 20 photographs."
    )
    trained: dict[str, list[str]] = {}
    for item in systems:
        trained.setdefault(_in_words(item.recipe), []).append(item.name)
    return ReportPlan(
        ensembles=tuple(name for name in names if name in ENSEMBLES),
        pairs=tuple(pair for pair in _PAIRS if set(pair) <= set(names)),
        beside_paper=True,
        notes=(
            first,
            *(f"{' and '.join(alike)}: {words}." for words, alike in trained.items()),
            *(budget.cautions[item.name] for item in systems if item.name in budget.cautions),
        ),
    )


def _in_words(recipe: Recipe) -> str:
    side = recipe.preprocessing
    watched = f"{recipe.validation_share:.0%} of the training photographs watch it" if recipe.validation_share else "no validation"
    return (
        f"{recipe.backbone}, crops of {side.crop} pixels from a shorter side of {side.jitter[0]} to {side.jitter[1]}, at most "
        f"{recipe.iterations:,} iterations of {recipe.batch_size} photographs by {recipe.optimizer}, {watched}"
    )
