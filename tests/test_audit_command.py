"""`predilect audit` prints what it found in tables that stand in line, and where the rest is."""

from __future__ import annotations

import re
import resource
import subprocess

import pytest

from made_close_ups import damage
from made_processes import mounted
from predilect.atlas.audit import AUDIT_FILE
from predilect.atlas.examine import examine
from predilect.cli import main
from predilect.cli.data import SPLITS_FILE


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code)


def table(out: str, title: str) -> list[str]:
    """The lines of a printed table: its header, a rule, its rows."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title)) + 2
    return lines[start : start + next(number for number, line in enumerate(lines[start:]) if not line.strip())]


def ends(line: str) -> set[int]:
    """Where words end that more than one blank follows."""
    return {found.end(1) for found in re.finditer(r"(\S)(?=  |\s*$)", line)}


def test_the_command_prints_what_it_found_and_where_the_audit_is(clinic, capsys):
    assert run("audit", clinic.path) == 0
    out = capsys.readouterr().out
    for words in (
        "lesion/crust",
        "p0, p5",
        "patients, sources",
        "lesion/crust, lesion/scale",
        "2 clusters with 4 photographs",
        "1 row rejected",
        "Labels differ within 1 cluster of copies",
        str(clinic.path / AUDIT_FILE),
    ):
        assert words in out, words
    assert run("audit", clinic.path / "nowhere") == 1


def test_numbers_stand_under_the_name_of_their_column(clinic, capsys):
    assert run("audit", clinic.path) == 0
    header, _, *rows = table(capsys.readouterr().out, "Classes")
    assert len(rows) == 4
    numbers = [header.index(name) + len(name) for name in ("present", "absent", "unknown", "patients", "groups")]
    assert [[line[:end].split()[-1] for end in numbers] for line in rows] == [
        ["4", "3", "1", "1", "2"],
        ["4", "3", "1", "3", "2"],
        ["5", "2", "1", "2", "2"],
        ["2", "5", "1", "2", "2"],
    ]
    assert all(end in ends(line) for line in rows for end in numbers)


def test_a_huge_cluster_and_a_crowd_take_a_line_each(clinic, capsys, monkeypatch):
    audit = examine(clinic)
    ids = tuple(f"x{k:04}" for k in range(1200))
    huge = audit.duplicates.clusters[0].model_copy(update={"image_ids": ids, "n_pairs": 1199})
    duplicates = audit.duplicates.model_copy(update={"clusters": (huge,) * 13, "crowded": ids})
    monkeypatch.setattr("predilect.cli.audit.examine", lambda *_, **__: audit.model_copy(update={"duplicates": duplicates}))
    assert run("audit", clinic.path) == 0
    out = capsys.readouterr().out
    shown = "x0000, x0001, x0002, x0003, x0004 and 1,195 more"
    assert [line.split("  ")[0].strip() for line in table(out, "Copies")[2:]] == [shown] * 12
    assert "and 1 more cluster, in audit.json" in out
    assert f"not all those of {shown}" in out
    assert "note      1,200 photographs have more than 100 look-alikes" in out
    assert "x0005" not in out


def test_a_damaged_image_ends_the_audit_with_one_sentence_and_writes_nothing(clinic, capsys):
    damage(clinic, "p3")
    assert run("audit", clinic.path) == 1
    out = capsys.readouterr()
    assert "the packed image of 'p3' (row 4, made from p3.jpg) is not what was packed" in out.out + out.err
    assert "Traceback" not in out.out + out.err
    assert not (clinic.path / AUDIT_FILE).exists()


def no_room(atlas):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    return "File too large", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)


def read_only(atlas):
    if not mounted(atlas.path, "--bind", str(atlas.path)):
        pytest.skip("needs the right to mount a file system")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(atlas.path)], check=True)
    return "Read-only file system", lambda: subprocess.run(["umount", "--lazy", str(atlas.path)], check=True)


def a_folder_in_its_place(atlas):
    for name in (AUDIT_FILE, SPLITS_FILE):
        (atlas.path / name).mkdir()
    return "Is a directory", lambda: None


@pytest.mark.parametrize("hinder", [no_room, read_only, a_folder_in_its_place])
@pytest.mark.parametrize(
    ("command", "work", "name"), [("audit", "audit.examine", AUDIT_FILE), ("split", "data.copies_of", SPLITS_FILE)]
)
def test_what_cannot_be_written_is_told_before_the_work(clinic, capsys, monkeypatch, hinder, command, work, name):
    monkeypatch.setattr(f"predilect.cli.{work}", lambda *_, **__: pytest.fail("minutes of work for nothing"))
    reason, undo = hinder(clinic)
    try:
        assert run(command, clinic.path) == 1
    finally:
        undo()
    assert capsys.readouterr().err.startswith(f"error {clinic.path / name} cannot be written: {reason}")
    assert not [path for path in clinic.path.iterdir() if path.name.startswith(".writing")]


def test_the_audit_that_is_there_stays_where_a_new_one_finds_no_room(clinic, capsys):
    assert run("audit", clinic.path) == 0
    before = (clinic.path / AUDIT_FILE).read_bytes()
    _, undo = no_room(clinic)
    try:
        assert run("audit", clinic.path) == 1
    finally:
        undo()
    assert (clinic.path / AUDIT_FILE).read_bytes() == before


def test_what_was_found_is_shown_though_the_disk_has_filled_up_meanwhile(clinic, capsys, monkeypatch):
    def found(*given, **more):
        audit = examine(*given, **more)
        (clinic.path / AUDIT_FILE).mkdir()
        return audit

    monkeypatch.setattr("predilect.cli.audit.examine", found)
    assert run("audit", clinic.path) == 1
    shown = capsys.readouterr()
    assert "p0, p5" in shown.out
    assert "Labels differ within 1 cluster of copies" in shown.out
    assert f"audit     {clinic.path}" not in shown.out
    assert "audit.json cannot be written: Is a directory" in shown.err
