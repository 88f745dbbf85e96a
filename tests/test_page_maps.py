"""The web page, in a browser: maps of where the network looked, and similar cases."""

import pytest
from playwright.sync_api import expect

from fake_api import PROBABILITIES, neighbours
from made_page import (
    answered_page,
    click_region,
    row,
)
from predilect.serving.answers import Similar

pytestmark = pytest.mark.browser


class TestAttention:
    def test_the_slider_lays_a_map_over_the_photograph(self, page):
        canvas = page.locator("#map")
        expect(canvas).to_be_hidden()
        page.locator("#strength").fill("80")
        expect(canvas).to_be_visible()
        assert canvas.evaluate("element => element.getAttribute('aria-label')").startswith(
            "Map of plaque over the photograph, highest in its"
        )
        boxes = [page.locator(part).bounding_box() for part in ("#map", "#picture")]
        assert boxes[0] == boxes[1]
        assert row(page, "plaque").get_attribute("aria-pressed") == "true"
        page.locator("#strength").fill("0")
        expect(canvas).to_be_hidden()

    def test_either_head_may_be_chosen(self, page):
        page.get_by_label("Site: arm").check()
        expect(page.locator("#map")).to_have_attribute("aria-label", "Map of arm over the photograph, highest in its upper left")
        expect(page.locator("#map-words")).to_contain_text("speak for arm")
        assert [page.locator(f"#scale-{end}").inner_text() for end in ("low", "high")] == ["−1.1", "4.1"]

    @pytest.mark.parametrize("how", ["hover", "focus"])
    def test_pointing_at_a_lesion_shows_its_own_map_and_asks_once_for_all(self, page, api, how):
        asked = len(api.asked)
        for name in ("scale", "papule"):
            getattr(row(page, name), how)()
            expect(page.locator("#map")).to_have_attribute(
                "aria-label",
                f"Map of {name} over the photograph, highest in its " + {"scale": "lower part", "papule": "upper right"}[name],
            )
        expect(page.locator("#map")).to_be_visible()
        assert api.asked[asked:] == [("/v1/attention", {"task": ["lesion"], "name": list(PROBABILITIES)})]
        page.mouse.move(5, 400)
        page.evaluate("document.activeElement.blur()")
        expect(page.locator("#map")).to_be_hidden()

    def test_a_lesion_that_is_chosen_keeps_its_map(self, page):
        row(page, "scale").click()
        page.mouse.move(5, 400)
        expect(page.locator("#tasks")).to_contain_text("Lesion: scale")
        expect(page.locator("#map")).to_be_visible()
        row(page, "scale").click()
        assert page.locator("#strength").input_value() == "0"

    def test_a_given_site_has_its_own_map(self, page):
        click_region(page, "leg")
        expect(page.locator("#tasks")).to_contain_text("Site: leg")
        page.get_by_label("Site: leg").check()
        expect(page.locator("#map")).to_have_attribute("aria-label", "Map of leg over the photograph, highest in its upper right")


class TestSimilar:
    def test_five_cases_with_the_labels_they_share(self, page):
        cases = page.locator(".case")
        assert cases.count() == 5
        expect(page.locator("#similar-lede")).to_have_text("Plaque in 3 of 5, scale in 2, arm in 2")
        shared = [
            case.locator(".shared").evaluate_all("items => items.map(item => item.firstChild.textContent)") for case in cases.all()
        ]
        assert shared == [["plaque", "scale", "arm"], ["plaque", "scale"], ["plaque", "arm"], [], []]
        assert cases.nth(0).locator("img").evaluate("async image => { await image.decode(); return image.naturalWidth; }") == 128
        expect(cases.nth(3)).to_contain_text("no lesion")
        expect(cases.nth(4)).to_contain_text("lesions not known")
        expect(page.locator("#credits")).to_have_text("From drawn, The Predilect developers, CC0-1.0.")

    def test_without_photographs_there_are_labels(self, browser, api):
        api.told = {"similar": Similar("euclidean", neighbours(photographs=False)[:1])}
        with answered_page(browser, api) as page:
            expect(page.locator(".case")).to_contain_text("The index holds labels only")
            expect(page.locator(".case img")).to_have_count(0)
            expect(page.locator("#similar-lede")).to_have_text("1 case")
