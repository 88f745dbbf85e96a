"""`predilect attend`, `predilect index` and `predilect similar`: where a bundle's network looks, and which cases it finds alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.atlas.folder import Atlas
from predilect.atlas.importers import Source
from predilect.cli.show import console, counting, print_table
from predilect.errors import PredilectError
from predilect.labels.tasks import LESION, SITE
from predilect.report.style import missing_glyphs
from predilect.report.wording import UNDEFINED, many

if TYPE_CHECKING:
    from predilect.evaluation.calibration import Calibration
    from predilect.insight.attention import AttentionMap
    from predilect.insight.bundle_index import SimilarCases
    from predilect.insight.retrieval import EmbeddingIndex
    from predilect.labels.tasks import LabelSpace

__all__ = ["attend_command", "index_command", "print_credits", "similar_command"]

_METRICS = {"euclidean": "Euclidean distance", "cosine": "1 minus the cosine of the angle"}


def attend_command(
    bundle: Path,
    images: list[Path],
    /,
    *,
    out: Path,
    lesion: str | None = None,
    site: str | None = None,
) -> int:
    """Show where the network looks on photographs: for a lesion and for a site, over the whole photograph, with a scale.

    For each photograph OUT/NAME.attention.png, and OUT/NAME.lesion.npy and OUT/NAME.site.npy with the raw maps: float32, one
    number for each pixel of the upright photograph, scaled down to a shorter side of 512 if it is larger. No metadata of the
    photograph is in them. A photograph that cannot be read is named, the others go on, and the exit code is 1.

    Where features are averaged straight into the heads (ResNets) the maps are class activation maps, which are exact; elsewhere
    they are Grad-CAM's, which need `pip install 'predilect[explain]'`. A transformer has none. Probabilities are those of `predict`;
    where the bundle has no calibration they are called scores.

    Example: `predilect attend runs/clinic/bundle photographs/ --out attention --lesion papule`

    Args:
        bundle: The bundle folder.
        images: Photographs, and folders of photographs.
        out: The folder for what is made.
        lesion: The lesion whose map is shown; by default the most probable one.
        site: The site whose map is shown; by default the most probable one.
    """
    from predilect.bundle import Bundle
    from predilect.insight.attention import Explainer
    from predilect.insight.panels import find_photographs, write_attention
    from predilect.training.devices import make_fabric
    from predilect.training.inference import only_looking

    opened = Bundle.open(bundle)
    for task, name in ((LESION, lesion), (SITE, site)):
        if name is not None:
            opened.labels[task].index(name)
    files, n_others = find_photographs(images, out)
    fabric = make_fabric(opened.recipe.precision)
    if not fabric.is_global_zero:  # of several processes one is enough
        return 0
    explainer = Explainer.of(fabric, only_looking(fabric, opened.network()))
    wanted = {task: name for task, name in ((LESION, lesion), (SITE, site)) if task in opened.labels}
    with counting("looking") as tell:
        results = write_attention(explainer, files, out, wanted, calibration=opened.fitted.calibration, on_progress=tell)
    _print_maps(files, results, opened.labels.names, calibrated=opened.fitted.calibration is not None)
    if n_others:
        console.print(f"note      passed over in the folders, as no images by their names: {many(n_others, 'other file')}")
    console.print(f"maps      {out}")
    failed = {name: found for name, found in results.items() if isinstance(found, str)}
    for name, reason in failed.items():
        sys.stderr.write(f"error {files[name]}: {reason}\n")
    return 1 if failed else 0


def index_command(
    bundle: Path, atlas: Path, /, *, photographs: Annotated[bool, Parameter(negative="", show_default=False)] = False
) -> None:
    """Add the photographs of an atlas to a bundle as cases to compare with, for `predilect similar`.

    BUNDLE/index then holds what the network sees in each photograph, its id and its labels, and the licence and credit of the
    sources; no patient ids, ages or file names. An index that is there is replaced. With --photographs it holds the photographs,
    too, 256 pixels on the longer side. They are patients' photographs: give such a bundle only to those who may see the atlas
    itself.

    Example: `predilect index runs/clinic/bundle atlases/clinic`

    Args:
        bundle: The bundle folder.
        atlas: The atlas folder; its classes need not be the bundle's.
        photographs: Put small versions of the photographs into the bundle.
    """
    from predilect.bundle import Bundle
    from predilect.insight.bundle_index import INDEX_FOLDER, SHOWN_SIDE, index_atlas, open_index
    from predilect.training.devices import make_fabric

    opened, cases = Bundle.open(bundle), Atlas.open(atlas)
    fabric = make_fabric(opened.recipe.precision)
    if not fabric.is_global_zero:
        return
    earlier = None
    with suppress(PredilectError):  # none, or one that nothing can read
        earlier = open_index(opened)
    with counting("indexing") as tell:
        index = index_atlas(fabric, opened, cases, photographs=photographs, on_progress=tell)
    console.print(f"cases     {many(len(index), 'photograph')} of {index.atlas}, {index.embeddings.shape[1]:,} numbers each")
    if earlier is not None and earlier.atlas_hash != index.atlas_hash:
        console.print(
            f"replaced  an index of {many(len(earlier), 'photograph')} of another atlas or another state of it, {earlier.atlas}"
        )
    if earlier is not None and earlier.images is not None and not photographs:
        console.print("note      the index that was there held the photographs, this one does not: --photographs puts them in")
    if opened.fitted.familiarity is not None and index.atlas_hash != opened.provenance.get("atlas_hash"):
        console.print(
            f"note      There is no warning of photographs unlike those of the atlas: the index is of the atlas {index.atlas}, from which "
            "this network has not learnt, or not as it is now."
        )
    if photographs:
        console.print(
            f"note      the bundle now holds these photographs, {SHOWN_SIDE} pixels on the longer side: keep it as safe as the atlas"
        )
    print_credits(index.sources)
    console.print(f"index     {opened.path / INDEX_FOLDER}")


def similar_command(
    bundle: Path,
    image: Path,
    /,
    *,
    k: Annotated[int, Parameter(name=("-k", "--neighbours"), validator=Number(gte=1))] = 5,
    lesion: str | None = None,
    site: str | None = None,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    approximate: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    format_: Annotated[Literal["table", "json"], Parameter(name="--format")] = "table",
) -> None:
    """Find the cases of the bundle's index that its network finds most alike to a photograph.

    Distances are those of what the network sees (pool5 of a ResNet); they rank cases and have no unit. The cases' labels are those
    of the atlas; what they share is compared with the prediction for the photograph, by the probabilities of `predict`: its lesions
    from 0.5 on, or the most probable one, and the most probable site.

    Example: `predilect similar runs/clinic/bundle photograph.jpg -k 5 --site face`

    Args:
        bundle: The bundle folder, with an index.
        image: A photograph.
        k: How many cases to show, at most as many as the index holds; where fewer pass the filters, all that do are shown.
        lesion: Only cases known to show this lesion.
        site: Only cases known to show this site.
        metric: How distance is measured.
        approximate: Search only part of a large index, and print the share of the exact answers that this finds. Making it ready
            takes longer than one exact search; it tells what a program that searches all day would lose.
        format_: table for people, or json.
    """
    from predilect.bundle import Bundle
    from predilect.insight.bundle_index import approximated, open_index, similar_cases
    from predilect.training.devices import make_fabric
    from predilect.training.inference import observe_batch, only_looking

    opened = Bundle.open(bundle)
    index = open_index(opened)
    if approximate:
        index = approximated(index, metric)
    fabric = make_fabric(opened.recipe.precision)
    if not fabric.is_global_zero:
        return
    network = only_looking(fabric, opened.network())
    look = partial(observe_batch, fabric, network)
    found = similar_cases(
        look,
        opened.preprocessing,
        index,
        image,
        k,
        model=opened.model,
        metric=metric,
        lesion=lesion,
        site=site,
        calibration=opened.fitted.calibration,
    )
    answer = _answer(opened.labels, index, found, opened.fitted.calibration)
    if format_ == "json":
        asked_for = {"metric": metric, "lesion": lesion, "site": site, "atlas": index.atlas, "n_photographs": len(index)}
        recall = None if index.cells is None else index.cells.recall
        sources = [{"name": s.name, "title": s.title, "licence": s.licence, "credit": s.credit} for s in index.sources]
        whole = {"photograph": str(image), **answer, "search": {**asked_for, "recall": recall}, "sources": sources}
        json.dump(whole, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    for task, names in answer["prediction"].items():
        scores = answer["not_calibrated"][task]
        of_some = f": {', '.join(scores)}" if len(scores) < len(names) else ""
        how = f"predicted; score, not calibrated{of_some}" if scores else "predicted"
        console.print(f"{task:<10}{', '.join(f'{value:.2f} {name}' for name, value in names.items())} ({how})")
    rows = [
        [
            str(case["rank"]),
            case["image_id"],
            f"{case['distance']:.4f}",
            UNDEFINED if case["lesions"] is None else ", ".join(case["lesions"]) or "none",
            case["site"] or UNDEFINED,
            ", ".join([*case["shared"]["lesions"], *case["shared"]["sites"]]) or "nothing",
        ]
        for case in answer["cases"]
    ]
    words = ("image_id", "lesions", "site", "shares")
    print_table("Most alike", ["rank", "image_id", "distance", "lesions", "site", "shares"], rows, words=words)
    if len(rows) < k:
        console.print(f"note      the filter leaves {many(len(rows), 'photograph')} of the index, fewer than the {k:,} asked for")
    how = "exact" if index.cells is None else f"approximate, finds {100 * index.cells.recall:.1f} % of the exact 5 nearest"
    console.print(f"search    {how}, by {_METRICS[metric]}, among {many(len(index), 'photograph')} of {index.atlas}")
    print_credits(index.sources)


def print_credits(sources: Sequence[Source]) -> None:
    """Say under which terms photographs may be shown, and whom to name."""
    for source in sources:
        console.print(f"credit    {source.title}: {source.licence or 'no licence given'}; {source.credit}")


def _print_maps(
    files: Mapping[str, Path], results: Mapping[str, tuple[AttentionMap, ...] | str], tasks: Sequence[str], *, calibrated: bool
) -> None:
    rows = []
    for name, found in results.items():
        if isinstance(found, str):
            rows.append([str(files[name]), *[UNDEFINED] * len(tasks), "not read"])
        else:
            classes = [f"{item.probability:.2f} {item.name}" for item in found]
            rows.append([str(files[name]), *classes, f"{name}.attention.png"])
    maps = [item for found in results.values() if not isinstance(found, str) for item in found]
    scores = sorted({f"{item.task} {item.name}" for item in maps if not item.calibrated})
    header = ["photograph", *tasks, "panel"]
    what = "probabilities" if calibrated else "scores, not calibrated"
    print_table(f"Attention, and {what}", header, rows, words=header, paths=("photograph", "panel"))
    if calibrated and scores:
        console.print(f"note      scores, not calibrated: {', '.join(scores)}")
    boxes = missing_glyphs({item.name for item in maps})
    if boxes:
        console.print(f"note      no font for figures on this machine has {', '.join(boxes)}: a box stands there")


def _answer(labels: LabelSpace, index: EmbeddingIndex, found: SimilarCases, calibration: Calibration | None) -> dict[str, Any]:
    """The prediction with its probabilities and those of them that are scores, and each case with its labels and what it shares with that."""
    from predilect.insight.bundle_index import foremost

    predicted = foremost(labels, found.probabilities)
    neighbours = found.neighbours
    cases = []
    for rank, (row, image_id, distance) in enumerate(
        zip(neighbours.positions[0].tolist(), neighbours.image_ids[0].tolist(), neighbours.distances[0].tolist(), strict=True),
        start=1,
    ):
        lesions, sites = (index.photos.present(task, row) for task in (LESION, SITE))
        shared = {
            name: [item for item in predicted.get(task, ()) if item in (shown or ())]
            for name, task, shown in (("lesions", LESION, lesions), ("sites", SITE, sites))
        }
        site = sites[0] if sites else None
        cases.append({"rank": rank, "image_id": image_id, "distance": distance, "lesions": lesions, "site": site, "shared": shared})
    prediction = {
        task: {name: float(found.probabilities[task][labels[task].index(name)]) for name in names}
        for task, names in predicted.items()
    }
    scores = {
        task: [name for name in names if calibration is None or not calibration.covers(task, name)]
        for task, names in predicted.items()
    }
    return {"prediction": prediction, "not_calibrated": scores, "cases": cases}
