"""`predilect demo`."""

from __future__ import annotations

import pytest

from made_commands import leave
from predilect.cli.demo import _clear
from predilect.errors import PredilectError

pytestmark = pytest.mark.usefixtures("without_figures")


def test_demo_empties_only_what_a_demo_made(tmp_path):
    out = tmp_path / "demo"
    _clear(out)
    (out / "run" / "deep").mkdir(parents=True)
    (out / "drawings").write_text("a file", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    (out / "drawn-atlas").symlink_to(tmp_path / "mine")
    _clear(out)
    assert [item.name for item in out.iterdir()] == [".predilect-demo"]
    assert (tmp_path / "mine" / "kept").exists()

    (out / "letters").touch()
    with pytest.raises(PredilectError, match="something else"):
        _clear(out)
    (out / "letters").unlink()
    (out / "run").mkdir()
    (out / ".predilect-demo").unlink()  # the same names, but no demo made them
    with pytest.raises(PredilectError, match="something else"):
        _clear(out)
    assert (out / "run").is_dir()


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_demo_refuses_what_is_no_folder(tmp_path, kind):
    out = tmp_path / "demo"
    if kind == "file":
        out.touch()
    else:
        out.symlink_to(tmp_path / "missing")
    with pytest.raises(PredilectError, match="--out"):
        _clear(out)


def test_demo_walks_the_whole_path(tmp_path, monkeypatch, capsys):
    from predilect.recipe import Recipe

    short = Recipe.open("demo", ["iterations=2", "warmup=1", "batch_size=8"])
    monkeypatch.setattr("predilect.cli.demo.Recipe.open", lambda _: short)
    assert leave("demo", "--out", tmp_path / "demo", "--images", 60) == 0
    shown = capsys.readouterr().out
    assert "say nothing of medicine" in shown
    shows_everything(tmp_path / "demo" / "run" / "bundle")


def shows_everything(folder):
    """What the page of a demo's bundle needs: decisions, a site that can be given, similar cases; and an answer over HTTP that has them."""
    from made_serving import photograph, serving, upload
    from predilect.bundle import Bundle
    from predilect.serving.predictor import Predictor

    predictor = Predictor.open(Bundle.open(folder))
    assert predictor.fitted.rule is not None
    assert predictor.fitted.site_prior is not None
    assert predictor.index is not None
    assert predictor.explainer is not None
    site = predictor.sites[0]
    with serving(predictor) as client:
        labels = client.get("/v1/labels").json()
        assert (labels["site_conditioning"], labels["similar"], labels["attention"]) == (True, True, True)
        answer = client.post("/v1/predict", files=upload(photograph()), data={"site": site})
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["results"]
        assert found["given_site"] == site
        assert len(found["lesions"]) == len(found["lesions_without_site"]) == len(labels["lesions"])
        assert found["set"] is not None
        alike = client.post("/v1/similar", files=upload(photograph(), field="file"))
        assert alike.status_code == 200, alike.text
        assert len(alike.json()["neighbours"]) == 5
