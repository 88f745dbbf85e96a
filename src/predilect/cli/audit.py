"""`predilect audit`."""

from __future__ import annotations

from pathlib import Path

from predilect.atlas.audit import AUDIT_FILE, Audit
from predilect.atlas.audit_parts import Cluster
from predilect.atlas.examine import examine
from predilect.atlas.folder import Atlas
from predilect.cli.show import console, counting_each, print_table
from predilect.files import try_file
from predilect.report.audit_page import audit_cautions, described, few, share
from predilect.report.wording import many

__all__ = ["audit_command"]

_SHOWN = 12  # clusters, and sources
_WORDS = ("photographs", "across", "labels that differ")


def audit_command(atlas: Path, /) -> None:
    """Look for what is wrong with an atlas: copies, conflicting labels, gaps, rare classes, blurred and badly lit photographs.

    Copies are photographs with the same pixels, and those encoded again, resized, cropped a little, brightened, mirrored or turned.
    What is found lies in ATLAS/audit.json; splits keep copies together, and a run's report shows the audit as a page.

    Example: `predilect audit atlases/clinic`

    Args:
        atlas: The atlas folder.
    """
    opened = Atlas.open(atlas)
    place = opened.path / AUDIT_FILE
    try_file(place)
    with counting_each() as tell:
        audit = examine(opened, on_progress=tell)
    # Shown before they are written: a disk that has filled up meanwhile takes none of them.
    _print_classes(audit)
    _print_missing(audit)
    _print_clusters(audit)
    for name, sentence in described(audit):
        console.print(f"{name:<10}{sentence}")
    for caution in audit_cautions(audit):
        console.print(f"note      {caution}")
    audit.write(place)
    console.print(f"audit     {place}")


def _print_classes(audit: Audit) -> None:
    with_patients = any(item.patients is not None for item in audit.classes)
    rows = [
        [
            f"{item.task}/{item.name}",
            *(f"{n:,}" for n in (item.present, item.absent, item.unknown)),
            *([f"{item.patients:,}"] if with_patients else []),
            f"{item.groups:,}",
            "machine" if item.machine_made else "",
        ]
        for item in audit.classes
    ]
    header = ["class", "present", "absent", "unknown", *(["patients"] if with_patients else []), "groups", "made by"]
    print_table("Classes: photographs, and the groups they come from", header, rows)


def _print_missing(audit: Audit) -> None:
    several = audit.missing[1:] if 2 < len(audit.missing) <= _SHOWN + 1 else ()
    shown = (audit.missing[0], *several)
    rows = [
        [
            field.replace("_", " "),
            *(f"{item.missing[field]:,} ({share(item.missing[field], item.n)})" for item in shown),
        ]
        for field in audit.missing[0].missing
    ]
    header = ["", *(("photographs" if item.source is None else item.source) for item in shown)]
    print_table("Not written down by the sources", header, rows)


def _print_clusters(audit: Audit) -> None:
    clusters = audit.duplicates.clusters
    if not clusters:
        return
    rows = [
        [few(cluster.image_ids), f"{cluster.n_pairs:,}", _across(cluster), _conflicting(cluster)] for cluster in clusters[:_SHOWN]
    ]
    print_table("Copies", ["photographs", "pairs", "across", "labels that differ"], rows, words=_WORDS)
    if len(clusters) > _SHOWN:
        console.print(f"          and {many(len(clusters) - _SHOWN, 'more cluster')}, in {AUDIT_FILE}")


def _across(cluster: Cluster) -> str:
    named = {"patients": cluster.n_patients, "lesions": cluster.n_lesions, "sources": len(cluster.sources)}
    return ", ".join(what for what, n in named.items() if n > 1)


def _conflicting(cluster: Cluster) -> str:
    return few([f"{item.task}/{item.name}" for item in cluster.conflicts])
