"""The web page, in a browser: the body that is shaded and clicked, and the lesions that follow."""

from dataclasses import replace

import pytest
from playwright.sync_api import expect

from fake_api import AT_THE_SCALP, LABELS, PROBABILITIES, SITES
from made_page import (
    answered_page,
    click_region,
    region,
    row,
    said,
    shown_lesions,
)
from predilect.labels.taxonomy import Taxonomy
from predilect.serving.answers import SiteAnswer
from predilect.serving.described import SiteClass

pytestmark = pytest.mark.browser


class TestSite:
    def test_the_body_is_shaded_by_probability(self, page):
        fills = page.evaluate(
            """() => {
                const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
                return Object.fromEntries([...document.querySelectorAll(".region")].map(region => {
                    context.fillStyle = getComputedStyle(region.querySelector("path")).fill;
                    context.fillRect(0, 0, 1, 1);
                    return [region.dataset.site, context.getImageData(0, 0, 1, 1).data[0]];
                }));
            }"""
        )
        assert sorted(fills, key=fills.get) == list(SITES)  # the more probable, the darker
        assert region(page, "skin fold").get_attribute("aria-label") == "skin fold: 2\u202f%"

    @pytest.mark.parametrize(("calibration", "told"), [("temperature", "are calibrated."), ("none", "they are not calibrated")])
    def test_whether_its_probabilities_are_calibrated_is_said(self, browser, api, calibration, told):
        api.labels = replace(LABELS, site_calibration=calibration)
        with answered_page(browser, api) as page:
            expect(page.locator("#sites-calibrated")).to_contain_text(told)
            page.get_by_role("button", name="About this model").click()
            sites = page.locator("#about dt", has_text="Body sites").locator("+ dd")
            assert ("(not calibrated)" in sites.inner_text()) is (calibration == "none")

    def test_a_click_on_the_body_changes_the_lesions_and_shows_how(self, page, api):
        asked = len(api.asked)
        click_region(page, "scalp")
        expect(row(page, "scale").locator(".now")).to_have_text("81\u202f%")
        assert [path for path, _ in api.asked[asked:] if path != "/v1/attention"] == []  # all of it came with the answer
        assert region(page, "scalp").get_attribute("aria-pressed") == "true"
        expect(row(page, "scale").locator(".before")).to_contain_text("58")
        track, was = (row(page, "scale").locator(part).bounding_box() for part in (".track", ".was"))
        assert (was["x"] + was["width"] / 2 - track["x"]) / track["width"] == pytest.approx(PROBABILITIES["scale"], abs=0.005)
        expected = {**{name: 0.9 * p for name, p in PROBABILITIES.items()}, **AT_THE_SCALP}
        assert shown_lesions(page) == sorted(expected, key=expected.get, reverse=True)[:8]
        change = (
            "With the site scalp, scale rises from 58\u202f% to 81\u202f%, excoriation falls from 31\u202f% to 19\u202f% "
            "and alopecia rises from <\u202f1\u202f% to 12\u202f%."
        )
        expect(said(page)).to_have_text(change)
        expect(page.locator("#change-words")).to_have_text(change)
        expect(page.locator("#sites-lede")).to_have_text("Given: scalp")
        expect(page.locator("#sites-hint")).to_contain_text("By the photograph alone: arm, 46\u202f%.")

    @pytest.mark.parametrize("again", ["region", "button"])
    def test_it_may_be_forgotten_again(self, page, again):
        click_region(page, "leg")
        expect(row(page, "plaque").locator(".before")).to_contain_text("74")
        if again == "region":
            click_region(page, "leg")
        else:
            page.get_by_role("button", name="Forget the site").click()
        expect(row(page, "plaque").locator(".before")).to_have_count(0)
        expect(page.locator("#given")).to_be_hidden()
        assert region(page, "leg").get_attribute("aria-pressed") == "false"

    def test_it_may_be_chosen_in_the_list(self, page):
        page.locator('#site-list .row[data-name="hand"]').click()
        expect(page.locator("#given-words")).to_have_text("Site given: hand.")

    def test_a_site_that_the_figure_does_not_show_has_a_button(self, browser, api):
        api.labels = replace(LABELS, sites=[*LABELS.sites, SiteClass("oral/genital")])
        api.told = {"site": [SiteAnswer("arm", 0.6), SiteAnswer("oral/genital", 0.4)]}
        with answered_page(browser, api) as page:
            button = page.locator(".chip")
            expect(button).to_have_text("oral/genital 40\u202f%")
            button.click()
            expect(page.locator("#given-words")).to_have_text("Site given: oral/genital.")
            assert button.get_attribute("aria-pressed") == "true"

    @pytest.mark.parametrize(
        ("preset", "elsewhere"),
        [("drawn", set()), ("milk10k", set()), ("pad-ufes-20", set()), ("ham10000", {"trunk", "acral"})],
    )
    def test_sites_of_the_presets_have_their_places(self, browser, api, preset, elsewhere):
        """Of HAM10000 the trunk is what is left beside back, chest and abdomen, and "acral" hands and feet, which are sites of their own."""
        names = list(SITES) if preset == "drawn" else Taxonomy.preset(preset).site.terms
        api.labels = replace(LABELS, sites=[SiteClass(name) for name in names])
        api.told = {"site": [SiteAnswer(name, 1 / len(names)) for name in names]}
        with answered_page(browser, api) as page:
            assert {chip.get_attribute("data-site") for chip in page.locator(".chip").all()} == elsewhere
            for name in set(names) - elsewhere:
                click_region(page, name)
                expect(page.locator("#given-words")).to_have_text(f"Site given: {name}.")

    def test_a_server_that_is_gone_is_not_missed(self, page):
        page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('gone')); }")
        click_region(page, "scalp")
        expect(row(page, "scale").locator(".now")).to_have_text("81\u202f%")
        page.get_by_role("button", name="Forget the site").click()
        expect(row(page, "scale").locator(".now")).to_have_text("58\u202f%")
