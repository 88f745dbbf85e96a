"""HEIC files are decoded elsewhere, with the same pixels, and whatever becomes of the process that does it, it is told in one sentence."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, UnidentifiedImageError

from made_decoders import CRASHING, DEADLY, decoding_by
from made_heic import heic
from made_images import CASES, jpeg, picture
from made_processes import in_child, wait_until
from predilect.atlas import heif
from predilect.atlas.build import build_atlas
from predilect.atlas.decoding import UnreadFileError, UnusableImageError, opened
from predilect.atlas.importers import imagefolder
from predilect.labels.taxonomy import Taxonomy

pi_heif = pytest.importorskip("pi_heif")

SIZE = (64, 48)
GOOD = heic(picture(0, SIZE))
CRASH = GOOD + DEADLY
CRASHED = "the image cannot be decoded: its decoder crashed"


def pixels(data: bytes) -> np.ndarray:
    with opened(data) as image:
        return np.asarray(image).copy()


def reason(data: bytes) -> str:
    with pytest.raises(UnusableImageError) as error:
        pixels(data)
    return str(error.value)


EXPECTED = np.asarray(pi_heif.open_heif(GOOD).to_pillow())


def pids(decoders: heif._Decoders) -> list[int]:
    return [decoder._process.pid for decoder in decoders._idle]


def ends(pid: int) -> bool:
    """Whether it is gone, or only its parent has not asked yet how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.fixture
def decoders(monkeypatch) -> Iterator[heif._Decoders]:
    """None is running yet."""
    made = heif._Decoders()
    monkeypatch.setattr(heif, "_DECODERS", made)
    yield made
    made.close()


@pytest.mark.parametrize("name", [name for name, make in CASES.items() if name.startswith("heic") and make().said is None])
def test_the_picture_is_that_of_the_plugin(name):
    data = CASES[name]().data
    expected = pi_heif.open_heif(data, remove_stride=False).to_pillow()
    with opened(data) as image:
        assert (image.size, image.mode, image.tile) == (expected.size, expected.mode, [])
        assert image.info.get("icc_profile") == expected.info.get("icc_profile")
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_others_who_use_pillow_in_this_process_keep_their_own_way_of_reading_such_files():
    pixels(GOOD)
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(GOOD))


def test_the_byte_that_crashes_pi_heif_harms_nobody(decoders):
    data = bytearray(CASES["heic-turned"]().data)
    data[134] = 228  # in the entry of its EXIF; the decoder of pi-heif 1.4.0 dies of it
    try:
        pixels(bytes(data))
    except UnusableImageError as error:
        assert str(error) == CRASHED  # noqa: PT017 (a later one may read it)
    assert np.array_equal(pixels(GOOD), EXPECTED)


class TestADecoderThatDies:
    def test_is_replaced_and_the_photograph_refused(self, tmp_path):
        with decoding_by(tmp_path, CRASHING) as decoders:
            assert np.array_equal(pixels(GOOD), EXPECTED)
            (before,) = pids(decoders)
            assert reason(CRASH) == CRASHED
            assert pids(decoders) == []
            assert np.array_equal(pixels(GOOD), EXPECTED)
            assert pids(decoders) != [before]

    def test_of_an_earlier_file_is_no_reason_to_refuse_the_next(self, tmp_path):
        code = """
        answer, asked = real._answer, []
        def late(*arguments):
            asked.append(arguments)
            if len(asked) > 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            answer(*arguments)
        real._answer = late
        real._main()
        """
        with decoding_by(tmp_path, code):
            for _ in range(3):
                assert np.array_equal(pixels(GOOD), EXPECTED)

    def test_while_it_waits_is_not_noticed(self, decoders):
        pixels(GOOD)
        (pid,) = pids(decoders)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ends(pid))
        assert np.array_equal(pixels(GOOD), EXPECTED)

    def test_by_the_hand_of_the_system_refuses_no_photograph_for_good(self, tmp_path):
        code = """
        real._opened = lambda data: os.kill(os.getpid(), signal.SIGKILL)
        real._main()
        """
        with decoding_by(tmp_path, code), pytest.raises(UnreadFileError, match="ended by the system"):
            pixels(GOOD)

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("sys.exit(1)", "the decoder of HEIC files does not start$"),
            ("sys.modules['pi_heif'] = None; real._main()", "the decoder of HEIC files does not start: import of pi_heif halted"),
        ],
    )
    def test_before_it_starts_refuses_no_photograph_for_good(self, tmp_path, code, said):
        with decoding_by(tmp_path, code), pytest.raises(UnreadFileError, match=f"cannot be decoded now: {said}"):
            pixels(GOOD)


class TestLimits:
    BUSY = "the image cannot be decoded: it keeps its decoder busy for longer than a photograph of its size can"

    def test_of_processor_time(self, tmp_path):
        code = """
        def forever(data):
            while True:
                pass
        real._SECONDS, real._opened = 0, forever
        real._main()
        """
        with decoding_by(tmp_path, code):
            assert reason(GOOD) == self.BUSY

    def test_of_time_on_the_clock(self, tmp_path, monkeypatch):
        monkeypatch.setattr(heif, "_SECONDS", 0.2)
        code = """
        real._opened = lambda data: time.sleep(3600)
        real._main()
        """
        with decoding_by(tmp_path, code):
            assert reason(GOOD) == self.BUSY

    def test_of_time_are_those_of_its_own_size_and_not_of_what_is_allowed(self, monkeypatch, decoders):
        asked, within = [], heif._Decoder._within
        monkeypatch.setattr(heif._Decoder, "_within", lambda self, seconds: asked.append(seconds) or within(self, seconds))
        pixels(GOOD)
        _start, head, picture = asked
        assert head <= picture <= head + 0.01

    @pytest.mark.skipif(sys.platform != "linux", reason="not every system limits address space")
    def test_of_memory(self, tmp_path):
        code = """
        real._opened = lambda data: bytes(3 * 2**30)  # which the system would give, since nobody writes into it
        real._main()
        """
        with decoding_by(tmp_path, code) as decoders:
            assert "asks for more memory than a photograph of its size can need" in reason(GOOD)
            assert len(pids(decoders)) == 1

    def test_of_what_is_left_on_a_disk_when_it_crashes(self, tmp_path):
        code = """
        import resource
        def look(data):
            raise ValueError(resource.getrlimit(resource.RLIMIT_CORE))
        real._opened = look
        real._main()
        """
        with decoding_by(tmp_path, code), pytest.raises(SyntaxError, match=r"\(0, 0\)"):
            heif._asked(GOOD)


def answering(header: str, picture: str = "") -> str:
    """A decoder that says what it likes when it is asked for the header, and for the pixels."""
    return f"""
    def write(*values, more=b""):
        sys.stdout.buffer.write(real.ANSWER.pack(*values) + more)
        sys.stdout.buffer.flush()
    write(real.READY, b"", 0, 0, 0, 0, 0)
    while head := sys.stdin.buffer.read(real.REQUEST.size):
        max_pixels, length = real.REQUEST.unpack(head)
        sys.stdin.buffer.read(length)
        exec({picture!r} if max_pixels else {header!r})
    """


class TestOfAnAnswerOnlyWhatCanBeTrueIsBelieved:
    @pytest.mark.parametrize(
        "said",
        [
            'write(real.SEEN, b"RGB", 64, 48, 192, 2**32 - 1, 0)',  # a profile that is larger than the file
            'write(real.REFUSED, b"", 0, 0, 0, 2**32 - 1, 0)',
            'write(real.SEEN, b"RGB", 64, 48, 192, 0, 2**40)',  # pixels that nobody asked for
            'write(real.SEEN, b"XYZ", 64, 48, 192, 0, 0)',
            'write(real.SEEN, b"\\xff", 64, 48, 192, 0, 0)',
            'write(real.SEEN, b"RGB", 0, 0, 0, 0, 0)',
            'sys.stdout.buffer.write(b"half of"); sys.exit(0)',
        ],
    )
    def test_of_the_header(self, tmp_path, said):
        with decoding_by(tmp_path, answering(said)) as decoders:
            assert reason(GOOD) == CRASHED
            assert pids(decoders) == []

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            ('write(real.SEEN, b"RGB", 64, 40, 192, 0, 7680, more=bytes(7680))', "not of the size that its header tells"),
            ('write(real.SEEN, b"RGB", 80, 48, 240, 0, 0)', "not of the size that its header tells"),
            ('write(real.SEEN, b"RGB", 64, 48, 192, 0, 0)', "not of the size that its header tells"),
            ('write(real.SEEN, b"L", 64, 48, 64, 0, 3072, more=bytes(3072))', "not of the size that its header tells"),
            ('write(real.SEEN, b"RGB", 64, 48, 100, 0, 4800, more=bytes(4800))', "its decoder crashed"),
            ('write(real.SEEN, b"RGB", 64, 48, 2**31, 0, 2**31 * 48)', "its decoder crashed"),
            ('write(real.SEEN, b"RGB", 64, 480, 192, 0, 192 * 480)', "its decoder crashed"),
            ('write(real.SEEN, b"RGB", 64, 48, 192, 0, 9216, more=bytes(9215)); sys.exit(0)', "its decoder crashed"),
        ],
    )
    def test_of_the_pixels(self, tmp_path, said, why):
        with decoding_by(tmp_path, answering('write(real.SEEN, b"RGB", 64, 48, 0, 0, 0)', said)):
            assert reason(GOOD).endswith(why)


def test_threads_have_decoders_of_their_own_and_each_its_own_picture(decoders):
    pictures = [picture(seed, SIZE) for seed in range(6)]
    files = [heic(image) for image in pictures]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(pixels, files * 4))
    for k, image in enumerate(pictures * 4):
        assert np.abs(found[k].astype(int) - np.asarray(image)).mean() < 4
    assert 1 <= len(pids(decoders)) <= 3


ASKING = """
import sys
from pathlib import Path
from predilect.atlas import heif
from predilect.atlas.decoding import opened
with opened(Path(sys.argv[1]).read_bytes()) as image:
    image.load()
print(heif._DECODERS._idle[0]._process.pid, flush=True)
sys.stdin.read()
"""


class TestTheProcess:
    def test_goes_on_to_the_next_photograph_and_hears_no_ctrl_c(self, decoders):
        pixels(GOOD)
        (pid,) = pids(decoders)
        assert os.getsid(pid) != os.getsid(0)
        os.kill(pid, signal.SIGINT)
        assert np.array_equal(pixels(GOOD), EXPECTED)
        assert pids(decoders) == [pid]

    def test_has_no_token_of_a_server(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PREDILECT_TOKEN", "secret")
        code = "sys.exit(3) if any(b'secret' in part for part in os.environb.values()) else real._main()"
        with decoding_by(tmp_path, code):
            assert np.array_equal(pixels(GOOD), EXPECTED)

    def test_is_not_shared_with_a_forked_process(self):
        decoders = heif._DECODERS
        decoders.close()
        pixels(GOOD)
        (pid,) = pids(decoders)

        def work() -> None:
            if pids(decoders) or not np.array_equal(pixels(GOOD), EXPECTED):
                os._exit(1)
            decoders.close()

        assert in_child(work) == 0
        assert np.array_equal(pixels(GOOD), EXPECTED)
        assert pids(decoders) == [pid]

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    @pytest.mark.parametrize("how", ["exit", "kill"])
    def test_ends_with_the_one_that_asked(self, tmp_path, how):
        (tmp_path / "a.heic").write_bytes(GOOD)
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", ASKING, str(tmp_path / "a.heic")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            pid = int(process.stdout.readline())
            assert not ends(pid)
            if how == "kill":
                process.kill()
            assert process.communicate() == ("", "")
        wait_until(lambda: ends(pid))


def test_an_import_rejects_what_crashes_the_decoder_and_keeps_the_rest(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    files = {f"{k}.heic": heic(picture(k, SIZE)) for k in range(6)} | {"crash.heic": CRASH, "plain.jpg": jpeg()}
    for name, data in files.items():
        (source / name).write_bytes(data)
    rows = pl.DataFrame({"file_name": list(files), "lesions": ["papule"] * len(files)})
    rows.write_csv(source / "metadata.csv")
    with decoding_by(tmp_path, CRASHING):
        atlas = build_atlas(imagefolder.read(source), Taxonomy.preset("as-is"), tmp_path / "atlas", max_rejected=1)
    assert set(atlas.photos["image_id"]) == {Path(name).stem for name in files} - {"crash"}
    rejected = pl.read_csv(atlas.path / "rejected.csv")
    assert rejected.select("file", "reason").rows() == [("crash.heic", CRASHED)]
