"""The audit of an atlas in words, and as a page beside a report: numbers and ids, no photographs, which some licences forbid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from predilect.atlas.audit import Audit
from predilect.atlas.audit_parts import Duplicates, Owners, Spread
from predilect.files import write_text
from predilect.report.environment import render_page
from predilect.report.wording import many, short

__all__ = ["AUDIT_PAGE", "LONG_CHAIN", "audit_cautions", "crowding", "described", "few", "share", "write_audit_page"]

AUDIT_PAGE = "audit.html"
"""Name of the page in a report's folder."""

_RARE = 10  # groups; a class with fewer has no interval in a report
LONG_CHAIN = 20
"""Photographs; a larger cluster of copies is told of, since it may be no cluster of copies."""


def share(part: int, whole: int) -> str:
    """A share in whole per cent, as people write it: ``<1 %`` and ``>99 %`` where rounding would hide something."""
    if whole == 0:
        return "—"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "<1 %"
    if 99 < percent < 100:
        return ">99 %"
    return f"{percent:.0f} %"


def few(names: Sequence[str], shown: int = 5) -> str:
    """The first of many names, and how many more there are."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def crowding(n: int, most: int) -> str:
    """What the search for copies left out, in a sentence.

    Args:
        n: Photographs that were not compared with all that they resemble.
        most: With how many each was compared.
    """
    return (
        f"{many(n, 'photograph')} {'has' if n == 1 else 'have'} more than {most} look-alikes, mirrored and turned ones counted, as in a common frame: "
        f"only the nearest {most} were compared in detail, so copies of {'it' if n == 1 else 'them'} may be missed, above all cropped ones, "
        "and lie in several folds."
    )


def described(audit: Audit) -> list[tuple[str, str]]:
    """The findings, a line each: a word and a sentence without its full stop."""
    copies, quality, size = audit.duplicates, audit.quality, audit.resolution
    exact = sum(pair.kind != "near" for pair in copies.pairs)
    return [
        (
            "copies",
            f"{many(len(copies.clusters), 'cluster')} with {many(copies.n_photographs, 'photograph')}, the largest of {copies.largest}; "
            f"{many(exact, 'pair')} with equal pixels, {len(copies.pairs) - exact:,} nearly equal"
            if copies.clusters
            else "none found",
        ),
        *([("clusters", _clusters(copies))] if copies.clusters else []),
        ("compared", f"{many(copies.n_candidates, 'pair')} in detail, the look-alikes among all pairs" + _crowded(copies)),
        *((f"{item.what}s", _owners(item)) for item in audit.owners if item.per_owner.n),
        (
            "size",
            f"shorter side {_range(size.shorter_side)} pixels as packed; {len(size.below_crop):,} below {size.crop}",
        ),
        (
            "sharpness",
            f"{_range(quality.sharpness)} (variance of the Laplacian at a shorter side of {quality.scale}); "
            f"{len(quality.blurred):,} far below the others"
            if quality.sharpness.n
            else f"not measured: no photograph has a shorter side of {quality.scale}",
        ),
        ("light", f"{len(quality.uniform):,} nearly uniform, {len(quality.dark):,} dark, {len(quality.overexposed):,} overexposed"),
        (
            "import",
            "{} rejected, {:,} of another kind left out, {} named by no row".format(
                many(audit.rejected.rejected, "row"), audit.rejected.excluded, many(audit.rejected.unlisted, "image file")
            ),
        ),
    ]


def audit_cautions(audit: Audit) -> list[str]:
    """What follows from an audit for whoever learns from the atlas, in whole sentences."""
    whole, copies = audit.missing[0], audit.duplicates
    found = []
    without = whole.missing["patient_id"]
    if without:
        who = (
            "No photograph names its patient"
            if without == whole.n
            else f"{share(without, whole.n)} of the photographs name no patient"
        )
        found.append(f"{who}: those of one person can lie on both sides of a split, and intervals may be too narrow.")
    if copies.crowded:
        found.append(crowding(len(copies.crowded), copies.most))
    if copies.n_conflicting:
        found.append(f"Labels differ within {many(copies.n_conflicting, 'cluster')} of copies: they cannot all be right.")
    if copies.largest > LONG_CHAIN:
        found.append(f"The largest cluster of copies has {copies.largest:,} photographs: look at it before you trust it.")
    rare = [item.name for item in audit.classes if item.groups < _RARE and not item.machine_made]
    if rare:
        found.append(f"Classes in fewer than {_RARE} groups will have no interval: {', '.join(rare)}.")
    machine = [item.name for item in audit.classes if item.machine_made]
    if machine:
        found.append(f"A model, not a person, made the labels of {', '.join(machine)}.")
    return found


def write_audit_page(audit: Audit, out: Path) -> Path:
    """Write the page, as one file.

    Args:
        audit: What to show.
        out: The folder of the report.

    Returns:
        The path of the page.

    Raises:
        PredilectError: If it cannot be written.
    """
    page = render_page(
        "audit.html",
        audit=audit,
        lines=described(audit),
        cautions=audit_cautions(audit),
        share=share,
        many=many,
        fields=[(field, field.replace("_", " ")) for field in audit.missing[0].missing],
        histograms=[
            (many(item.per_owner.n, item.what), item, _each(item.per_owner), _bars(item.histogram))
            for item in audit.owners
            if item.per_owner.n
        ],
    )
    path = out / AUDIT_PAGE
    write_text(path, page)
    return path


def _bars(histogram: Sequence[tuple[int, int]], longest: int = 12) -> list[tuple[str, int, float]]:
    """Label, owners, and length of the bar in [0, 1]; what is rarely many is one last bar."""
    rows = [(str(size), n) for size, n in histogram[:longest]]
    rest = histogram[longest:]
    if rest:
        rows.append((f"{rest[0][0]} to {rest[-1][0]}" if len(rest) > 1 else str(rest[0][0]), sum(n for _, n in rest)))
    most = max(n for _, n in rows)
    return [(label, n, n / most) for label, n in rows]


def _clusters(copies: Duplicates) -> str:
    across = {"patients": copies.n_across_patients, "lesions": copies.n_across_lesions, "sources": copies.n_across_sources}
    found = [f"{n:,} across {what}" for what, n in across.items() if n]
    return ", ".join(
        [*found, f"{copies.n_joining:,} that join what no id joins", f"{copies.n_conflicting:,} with labels that differ"]
    )


def _crowded(copies: Duplicates) -> str:
    return f"; not all those of {few(copies.crowded)}" if copies.crowded else ""


def _each(spread: Spread) -> str:
    """How many photographs a patient, lesion or group has."""
    if spread.minimum is None or spread.maximum is None or spread.mean is None:
        return ""
    if spread.minimum == spread.maximum:
        return f"{many(round(spread.maximum), 'photograph')} each"
    return (
        f"{spread.minimum:,.0f} to {spread.maximum:,.0f} photographs each, median {short(spread.median)}, mean {spread.mean:,.2f}"
    )


def _owners(item: Owners) -> str:
    named = f"{item.per_owner.n:,}: {_each(item.per_owner)}"
    return named + (f"; {many(item.n_without, 'photograph')} without one" if item.n_without else "")


def _range(spread: Spread) -> str:
    if spread.minimum == spread.maximum:
        return short(spread.minimum)
    return f"{short(spread.minimum)} to {short(spread.maximum)}, median {short(spread.median)}"
