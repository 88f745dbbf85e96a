"""The page before the true server: every answer on it comes from a network."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from made_page import NO_PHOTOGRAPH, choose, click_region, watched
from made_serving import PATIENCE, await_ready, made_bundle
from predilect.bundle import Bundle
from predilect.insight.bundle_index import index_atlas
from predilect.training.devices import make_fabric

pytestmark = pytest.mark.browser


@contextmanager
def served(bundle):
    """`predilect serve` in a process of its own, and its address."""
    arguments = [sys.executable, "-m", "predilect", "serve", str(bundle.path), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PREDILECT_TOKEN"} | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        url = next(line for line in process.stdout if line.startswith("serving")).split()[1]
        await_ready(url.rstrip("/"))
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def lesions_on(page):
    return dict(
        page.locator("#lesion-list .row").evaluate_all(
            "rows => rows.map(row => [row.dataset.name, row.querySelector('.now').textContent])"
        )
    )


def test_a_bundle_that_only_knows_what_its_network_says(browser, made_run, tmp_path):
    shutil.copytree(made_run.bundle.path, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    index_atlas(make_fabric("fp32"), bundle, made_run.atlas, photographs=True)
    with served(bundle) as url, watched(browser, url, refusals=(415,)) as page:
        choose(page, NO_PHOTOGRAPH)
        expect(page.locator("#photograph-problem")).to_contain_text("format")
        choose(page)
        expect(page.locator("#lesion-list .row")).to_have_count(3)
        assert lesions_on(page).keys() == {"macule", "crust", "scale"}
        expect(page.locator("#calibrated")).to_contain_text("they are not calibrated")
        expect(page.locator("#sites-hint")).to_contain_text("made without a site prior")
        expect(page.locator(".region")).to_have_count(2)
        expect(page.locator(".case")).to_have_count(5)
        page.locator("#strength").fill("70")
        expect(page.locator("#map")).to_be_visible()
        page.locator("#lesion-list .row").last.hover()
        name = page.locator("#lesion-list .row").last.get_attribute("data-name")
        expect(page.locator("#scale-name")).to_have_text(name)
        expect(page.locator("#attention-problem")).to_be_hidden()


def test_a_bundle_that_holds_all_that_can_be_fitted(browser, made_run, tmp_path):
    """Its first lesion is more probable at the first site than elsewhere; see `made_serving.fitted_parts`."""
    bundle = made_bundle(made_run, tmp_path / "bundle")
    with served(bundle) as url, watched(browser, url) as page:
        choose(page)
        expect(page.locator("#lesion-list .row")).to_have_count(3)
        expect(page.locator("#calibrated")).to_contain_text("save where it says otherwise")
        known = bundle.labels["lesion"].classes[0]
        row = page.locator(f'#lesion-list .row[data-name="{known}"]')
        sites, values = bundle.labels["site"].classes, {}
        for site in sites:
            click_region(page, site)
            expect(page.locator("#given-words")).to_have_text(f"Site given: {site}.")
            expect(row.locator(".before")).to_be_visible()
            values[site] = float(row.locator(".track").evaluate("track => track.style.getPropertyValue('--p')"))
        assert values[sites[0]] > values[sites[1]]
        expect(page.locator("#notices")).to_contain_text("cannot be excluded", ignore_case=True)
