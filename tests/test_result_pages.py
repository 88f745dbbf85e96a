"""The tables of README and of the pages of results say what the committed report.json says, to the digits that they show."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from predilect.report.report import report_schema

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAPER, SMALL, DRAWN = "milk10k", "milk10k-resnet18", "drawn-atlas"
METRICS = {
    "lesion mAP-class": ("lesion", "map_class"),
    "lesion mAP-image": ("lesion", "map_image"),
    "lesion mAP-class, fold mean": ("lesion", "map_class_fold_mean"),
    "site top-1": ("site", "top1"),
    "site top-3": ("site", "top3"),
    "site balanced accuracy": ("site", "balanced_accuracy"),
}
HEADLINE = [label for label in METRICS if not label.endswith("fold mean")]
RETRIEVAL = {
    "lesion precision@5": "lesion_precision_at_5",
    "lesion mAP@R": "lesion_map_at_r",
    "nDCG@5": "ndcg_at_5",
    "nDCG": "ndcg",
    "site precision@5": "site_precision_at_5",
    "site mAP@R": "site_map_at_r",
}
# Of the thirteen labels: the cells of each row by (system, metric), the seeds one after the other, and as a mean with its interval.
SEED_ROWS = {
    "mAP-class, lesions only": [("resnet", "map_class")],
    "mAP-class, lesions only, mean over folds": [("resnet", "map_class_fold_mean")],
    "mAP-class, multi-task": [("mtl", "map_class")],
    "mAP-class, multi-task, mean over folds": [("mtl", "map_class_fold_mean")],
    "mAP-image": [("resnet", "map_image"), ("mtl", "map_image")],
    "site top-1": [("resnet-site", "top1"), ("mtl", "top1")],
}
MEAN_ROWS = {
    "mAP-class": [("resnet", "lesion", "map_class"), ("mtl", "lesion", "map_class")],
    "mAP-image": [("resnet", "lesion", "map_image"), ("mtl", "lesion", "map_image")],
    "site top-1": [("resnet-site", "site", "top1"), ("mtl", "site", "top1")],
}


def report_of(result: str, folder: str = "report") -> dict[str, Any]:
    return dict(json.loads((RESULTS / result / folder / "report.json").read_text(encoding="utf-8")))


def page_of(result: str) -> Path:
    return RESULTS / result / "README.md"


def section(path: Path, title: str) -> str:
    """What stands under a heading."""
    text = path.read_text(encoding="utf-8").replace("−", "-")
    _, found, rest = text.partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


def tables(text: str) -> list[dict[str, list[str]]]:
    """The cells of each table by the first of their row; the header's is called header."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        header, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        labels = [row[0] for row in rows]
        assert len(set(labels)) == len(labels)
        found.append({"header": header[1:], **{row[0]: row[1:] for row in rows}})
    return found


def check(cell: str, values: Sequence[float]) -> None:
    """The numbers of a cell must be these, rounded to as many digits as it shows."""
    shown = re.findall(r"[-+]?\d*\.(?:\d+)", cell)
    assert len(shown) == len(values), (cell, values)
    for text, value in zip(shown, values, strict=True):
        digits = len(text.partition(".")[2])
        assert float(text) == float(f"{value:.{digits}f}"), (cell, value)


def with_interval(scores: Mapping[str, float], metric: str) -> list[float]:
    return [scores[f"{metric}{end}"] for end in ("", "_low", "_high")]


def check_scores(table: Mapping[str, list[str]], report: Mapping[str, Any], labels: Sequence[str]) -> None:
    assert table["header"] == list(report["systems"])
    assert set(table) == {"header", *labels}
    for label in labels:
        task, metric = METRICS[label]
        for system, cell in zip(table["header"], table[label], strict=True):
            scores = report["systems"][system][task]
            check_or_nothing(cell, None if scores is None else with_interval(scores, metric))


def check_or_nothing(cell: str, values: Sequence[float] | None) -> None:
    if values is None:
        assert cell == "—"
    else:
        check(cell, values)


def differences(comparisons: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], list[float]]:
    """Each paired difference with its interval and p, by the pair and what is compared."""
    return {
        (
            f"{item['system_a']} - {item['system_b']}",
            *((item["measure"],) if "measure" in item else (item["task"], item["metric"])),
        ): [item[key] for key in ("difference", "low", "high", "p")]
        for item in comparisons
        if item.get("class_name") is None
    }


def check_differences(
    table: Mapping[str, list[str]], found: Mapping[tuple[str, ...], Sequence[float]], names: Mapping[str, tuple[str, ...]]
) -> None:
    """Each cell of a table of pairs, whose rows are called as in `names`, and no pair or row may be missing."""
    assert set(table["header"]) == {pair for pair, *_ in found}
    assert set(table) == {"header", *names}
    for label, name in names.items():
        for pair, cell in zip(table["header"], table[label], strict=True):
            check_or_nothing(cell, found.get((pair, *name)))


def test_readme_shows_the_result_that_is_committed():
    text, report = section(ROOT / "README.md", "On real photographs"), report_of(PAPER)
    (table,) = tables(text)
    check_scores(table, report, HEADLINE)
    told = re.search(r"\(mAP-class ([^)]*)\)", text)
    assert told is not None
    check(told[1], differences(report["comparisons"])["mtl - resnet", "lesion", "map_class"][:3])
    assert f"{report['truth']['n_images']:,} tested" in text
    check(re.findall(r"[\d.]+ hours", text)[0], [report["provenance"]["device_hours"]])


@pytest.mark.parametrize(
    ("result", "folder"), [(PAPER, "report"), (SMALL, "report"), (SMALL, "thirteen-labels"), (DRAWN, "report")]
)
def test_a_committed_report_is_one_that_would_be_written_today(result, folder):
    jsonschema.validate(report_of(result, folder), report_schema())


@pytest.mark.parametrize("result", [PAPER, SMALL])
def test_a_page_of_a_result_shows_its_report(result):
    report = report_of(result)
    scores, paired = tables(section(page_of(result), "Diagnoses and sites"))
    check_scores(scores, report, list(METRICS))
    check_differences(paired, differences(report["comparisons"]), {label: METRICS[label] for label in HEADLINE})


@pytest.mark.parametrize("result", [PAPER, DRAWN])
def test_a_page_of_a_result_shows_which_photographs_are_found(result):
    found = report_of(result)["retrieval"]
    scores, paired = tables(section(page_of(result), "Cases that are alike"))
    *names, chance = scores["header"]
    assert (names, chance) == (list(found["systems"]), "random order")
    assert set(scores) == {"header", *RETRIEVAL}
    for label, measure in RETRIEVAL.items():
        *cells, by_chance = scores[label]
        for name, cell in zip(names, cells, strict=True):
            score = found["systems"][name][measure]
            check(cell, [score[key] for key in ("value", "low", "high")])
            check(by_chance, [score["chance"]])
    check_differences(paired, differences(found["comparisons"]), {label: (measure,) for label, measure in RETRIEVAL.items()})


def test_the_page_of_the_result_shows_what_the_site_gave():
    known = report_of(PAPER)["known_site"]
    found = {
        (item["system_a"], item["system_b"], item["metric"]): item for item in known["comparisons"] if item["class_name"] is None
    }
    (table,) = tables(section(page_of(PAPER), "Probabilities, and a known site"))
    assert set(table) == {"header", *(f"{name}+site" for name in report_of(PAPER)["systems"] if f"{name}+site" in known["systems"])}
    for label, (ranking, loss) in ((label, cells) for label, cells in table.items() if label != "header"):
        without = f"{label.removesuffix('+site')} recalibrated"
        precision, log_loss = (found[label, without, metric] for metric in ("map_class", "log_loss"))
        check(ranking, [precision[key] for key in ("difference", "low", "high")])
        share = -100 * log_loss["difference"] / known["systems"][without]["mean"]["log_loss"]
        check(loss, [*(log_loss[key] for key in ("difference", "low", "high")), share])


def test_the_page_of_the_result_shows_the_scores_on_thirteen_labels():
    systems = report_of(SMALL, "thirteen-labels")["systems"]
    by_seed, means = tables(section(page_of(SMALL), "Thirteen labels, beside a script of one's own"))
    assert set(by_seed) == {"header", *SEED_ROWS}
    for label, parts in SEED_ROWS.items():
        check(by_seed[label][1], [systems[name]["seeds"][seed][metric] for name, metric in parts for seed in ("1", "2")])
    assert set(means) == {"header", *MEAN_ROWS}
    for label, columns in MEAN_ROWS.items():
        for cell, (name, task, metric) in zip(means[label], columns, strict=False):  # the last column is the script's
            check(cell, with_interval(systems[name][task], metric))


@pytest.mark.parametrize("cell", ["0.431 [0.403, 0.459]", "0.430 [0.403]", "0.4302 [0.403, 0.459]"])
def test_a_number_that_is_another_is_noticed(cell):
    with pytest.raises(AssertionError):
        check(cell, [0.43013, 0.40310, 0.45856])
