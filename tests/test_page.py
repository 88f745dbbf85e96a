"""The web page, in a browser: a photograph in, lesions out; what goes wrong, and bundles that lack something."""

import threading
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from fake_api import LABELS, MODEL, PROBABILITIES, UNKNOWN_FORMAT, lesions
from made_page import (
    NO_PHOTOGRAPH,
    PHOTOGRAPH,
    TOKEN,
    answered_page,
    choose,
    click_region,
    opened,
    row,
    said,
    shown_lesions,
)
from predilect.serving.described import LesionClass

pytestmark = pytest.mark.browser

# What a request may come to: the server is gone, is gone before the end of its answer, or has a fault.
BROKEN = {
    "gone": "Promise.reject(new TypeError('gone'))",
    "cut": "Promise.resolve(new Response(new ReadableStream({ start: stream => stream.error(new TypeError('cut')) })))",
    "failing": "Promise.resolve(new Response('', { status: 500 }))",
}


class TestPhotograph:
    def test_it_is_shown_at_once_while_the_server_looks(self, browser, api):
        api.gate = threading.Event()
        with opened(browser, api.app()) as page:
            choose(page)
            picture = page.locator("#picture")
            expect(picture).to_be_visible()
            assert picture.evaluate(
                "async image => { await image.decode(); return [image.naturalWidth, image.src.slice(0, 5)]; }"
            ) == [
                256,
                "blob:",
            ]
            expect(page.locator("#busy")).to_be_visible()
            expect(said(page)).to_have_text("Looking at the photograph …")
            expect(page.locator("#lesions")).to_be_hidden()
            api.gate.set()
            expect(page.locator("#lesions")).to_be_visible()
            expect(page.locator("#busy")).to_be_hidden()

    @pytest.mark.parametrize(
        "event",
        [
            "new DragEvent('drop', { bubbles: true, dataTransfer: data })",
            "new ClipboardEvent('paste', { bubbles: true, clipboardData: data })",
        ],
        ids=["drop", "paste"],
    )
    def test_it_may_be_dropped_or_pasted(self, browser, api, event):
        with opened(browser, api.app()) as page:
            page.evaluate(
                f"""bytes => {{
                    const data = new DataTransfer();
                    data.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", {{ type: "image/jpeg" }}));
                    document.querySelector("#stage").dispatchEvent({event});
                }}""",
                list(PHOTOGRAPH["buffer"]),
            )
            expect(page.locator("#lesion-list li").first).to_be_visible()
            expect(page.locator("#file-name")).to_have_text("dropped.jpg")

    def test_a_telephone_offers_to_take_one(self, browser, api):
        with opened(browser, api.app(), has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}) as page:
            with page.expect_file_chooser() as chooser:
                page.get_by_role("button", name="Take a photograph").click()
            assert chooser.value.element.get_attribute("capture") == "environment"
            chooser.value.set_files(PHOTOGRAPH)
            expect(page.locator("#lesion-list li").first).to_be_visible()

    def test_another_one_takes_the_place_of_the_first(self, page, api):
        click_region(page, "scalp")
        expect(page.locator("#given")).to_be_visible()
        api.told = {"lesions": lesions(None, {**PROBABILITIES, "nodule": 0.9})}
        choose(page, {**PHOTOGRAPH, "name": "second.jpg"})
        expect(page.locator("#file-name")).to_have_text("second.jpg")
        expect(row(page, "nodule").locator(".now")).to_have_text("90\u202f%")
        expect(page.locator("#given")).to_be_hidden()
        assert "site" not in api.asked[-1][1]


class TestLesions:
    def test_bars_are_as_long_as_they_are_probable(self, page):
        assert shown_lesions(page) == list(PROBABILITIES)[:8]
        track = row(page, "scale").locator(".track").bounding_box()
        for part, share in ((".fill", PROBABILITIES["scale"]), (".threshold", 0.37)):
            box = row(page, "scale").locator(part).bounding_box()
            end = box["x"] + (box["width"] if part == ".fill" else box["width"] / 2) - track["x"]
            assert end / track["width"] == pytest.approx(share, abs=0.005)
        expect(row(page, "scale").locator(".now")).to_have_text("58\u202f%")

    def test_what_is_decided_is_marked_and_said(self, page):
        marks = {name: row(page, name).get_attribute("data-decision") for name in ("plaque", "excoriation", "scar")}
        assert marks == {"plaque": "true", "excoriation": "false", "scar": "null"}
        assert "reaches its threshold of 42\u202f%" in row(page, "plaque").get_attribute("aria-label")
        assert "below its threshold of 35\u202f%" in row(page, "excoriation").get_attribute("aria-label")
        expect(page.locator("#lesions-lede")).to_have_text("Plaque and scale reach their thresholds")
        expect(said(page)).to_contain_text("Plaque and scale reach their thresholds. Most probable: arm, 46\u202f%")

    def test_all_may_be_seen_with_what_is_to_be_known_of_each(self, page):
        page.get_by_role("button", name="Show all 15 lesions").click()
        assert shown_lesions(page) == list(PROBABILITIES)
        expect(row(page, "purpura")).to_contain_text("labelled by a model")
        expect(row(page, "scar")).to_contain_text("not calibrated")
        expect(row(page, "comedone").locator(".now")).to_have_text("<\u202f1\u202f%")

    @pytest.mark.parametrize(
        ("kinds", "told"),
        [
            ({"platt", "isotonic"}, "are calibrated."),
            ({"platt", "none"}, "save where it says otherwise"),
            ({"none"}, "they are not calibrated"),
        ],
        ids=["all", "some", "none"],
    )
    def test_what_the_numbers_are_is_told_by_what_the_server_says(self, browser, api, kinds, told):
        ways = sorted(kinds)
        api.labels = replace(
            LABELS, lesions=[replace(item, calibration=ways[k % len(ways)]) for k, item in enumerate(LABELS.lesions)]
        )
        with answered_page(browser, api) as page:
            expect(page.locator("#calibrated")).to_contain_text(told)
            asides = page.locator("#lesion-list small", has_text="not calibrated")
            assert (asides.count() > 0) == (kinds == {"platt", "none"})

    def test_unsure_and_unfamiliar_are_said_in_words(self, browser, api):
        api.told = {
            "lesions": lesions(None, {**PROBABILITIES, "plaque": 0.4, "scale": 0.3}),
            "set": ["plaque", "scale"],
            "unsure": True,
            "unfamiliar": True,
            "unfamiliarity": 0.992,
        }
        with answered_page(browser, api) as page:
            expect(page.locator("#lesions-lede")).to_have_text("No lesion reaches its threshold")
            expect(page.locator("#notices")).to_contain_text(
                "Unsure. No lesion reaches its threshold, but plaque and scale cannot be excluded."
            )
            expect(page.locator("#notices")).to_contain_text(
                "Unfamiliar. This photograph is unlike those the network learnt from: 99\u202f% of other photographs lie nearer"
            )
            expect(said(page)).to_contain_text(
                "This photograph is unfamiliar. No lesion reaches its threshold. Plaque and scale cannot be excluded. Most probable: arm"
            )

    def test_a_photograph_of_one_colour_is_told_of(self, browser, api):
        api.told = {"uniform": True}
        with answered_page(browser, api) as page:
            expect(page.locator("#notices")).to_contain_text(
                "Nearly one colour. The middle of this photograph, which the network looks at, shows next to nothing."
            )
            expect(said(page)).to_contain_text("This photograph is of nearly one colour. Plaque and scale reach")

    def test_what_the_list_promises_is_said_with_its_limits_and_not_once_a_site_is_given(self, page):
        told, promise = page.locator("#notices"), "misses at most 10\u202f% of the lesions on a photograph that shows some"
        expect(told).to_contain_text(f"On average over patients like those of the training, such a list {promise}")
        expect(told).to_contain_text("For one lesion, one site or one kind of patient it may be more")
        click_region(page, "scalp")
        expect(told).to_contain_text("were fitted without a given site")
        expect(told).to_contain_text("is not shown to hold now that a site is given")
        expect(told).not_to_contain_text("On average")
        page.get_by_role("button", name="Forget the site").click()
        expect(told).to_contain_text(promise)


class TestProblems:
    def test_a_file_that_is_no_photograph_is_told_in_place_and_one_can_go_on(self, browser, api):
        with opened(browser, api.app(), refusals=(415,)) as page:
            choose(page, NO_PHOTOGRAPH)
            problem = page.locator("#photograph-problem")
            expect(problem).to_have_text(UNKNOWN_FORMAT)
            expect(said(page)).to_be_empty()
            expect(page.locator("#lesions")).to_be_hidden()
            choose(page)
            expect(page.locator("#lesions")).to_be_visible()
            expect(problem).to_be_hidden()

    def test_a_server_that_is_gone(self, browser, api):
        with opened(browser, api.app()) as page:
            expect(page.locator("#start dl")).to_be_visible()
            page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('gone')); }")
            choose(page)
            expect(page.locator("#photograph-problem")).to_contain_text("The server cannot be reached; is it still running?")
            expect(page.get_by_role("button", name="Try again")).to_be_visible()

    @pytest.mark.parametrize("path", ["/body.svg", "/v1/labels", "/v1/model"])
    @pytest.mark.parametrize("how", BROKEN)
    def test_what_fails_while_the_page_opens_may_be_tried_again(self, browser, api, path, how):
        failing_once = f"""{{
            const [real, broken] = [window.fetch, new Set(["{path}"])];
            window.fetch = (path, options) => broken.delete(path) ? {BROKEN[how]} : real(path, options);
        }}"""
        with opened(browser, api.app()) as page:
            page.add_init_script(failing_once)
            page.reload()
            expect(page.locator("#start-problem")).to_contain_text("server")
            page.get_by_role("button", name="Try again").focus()
            page.keyboard.press("Enter")
            expect(page.locator("#start dl")).to_be_visible()
            expect(page.locator("#start-problem")).to_be_hidden()
            assert page.evaluate("document.activeElement.id") == "start"
            choose(page)
            expect(page.locator("#lesions")).to_be_visible()

    def test_an_answer_that_breaks_off_is_told_and_may_be_asked_for_again(self, browser, api):
        with opened(browser, api.app()) as page:
            expect(page.locator("#start dl")).to_be_visible()
            page.evaluate(f"() => {{ window.real = window.fetch; window.fetch = () => {BROKEN['cut']}; }}")
            choose(page)
            expect(page.locator("#photograph-problem")).to_contain_text("The answer of the server broke off; is it still running?")
            page.evaluate("() => { window.fetch = window.real; }")
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#lesions")).to_be_visible()
            assert page.evaluate("document.activeElement.id") == "photograph"

    def test_a_token_is_asked_for_and_kept_in_memory_only(self, browser, api):
        with opened(browser, api.app(TOKEN), refusals=(401,)) as page:
            wrong = "That is not the right token."
            for given, told in (("not the right one", wrong), ("0123456789 żółw", wrong), ("wrong again", wrong), (TOKEN, "")):
                page.get_by_label("Token", exact=True).fill(given)
                page.get_by_role("button", name="Continue").click()
                expect(page.locator("#token-problem")).to_have_text(told)
            choose(page)
            expect(page.locator("#lesions")).to_be_visible()
            assert page.evaluate(
                "[localStorage.length, sessionStorage.length, document.cookie, document.querySelector('#token-input').value]"
            ) == [
                0,
                0,
                "",
                "",
            ]
            page.reload()
            expect(page.get_by_label("Token", exact=True)).to_be_visible()

    def test_who_will_not_give_a_token_may_think_again(self, browser, api):
        with opened(browser, api.app(TOKEN), refusals=(401,)) as page:
            page.get_by_role("button", name="Not now").click()
            page.get_by_role("button", name="Try again").click()
            page.get_by_label("Token", exact=True).fill(TOKEN)
            page.keyboard.press("Enter")
            expect(page.locator("#start dl")).to_be_visible()


class TestBundles:
    def test_one_with_nothing_but_two_heads_says_what_it_lacks(self, browser, api):
        api.labels = replace(
            LABELS,
            lesions=[LesionClass(name, False, None, "none") for name in PROBABILITIES],
            site_conditioning=False,
            similar=False,
            attention=False,
            no_attention_because="the network is a transformer",
            aim=None,
            max_miss_rate=None,
        )
        api.model = replace(MODEL, index=None)
        api.told = {
            "lesions": [replace(item, decision=None, threshold=None) for item in lesions(None)],
            "set": None,
            "unsure": None,
            "unfamiliar": None,
            "unfamiliarity": None,
        }
        with answered_page(browser, api) as page:
            expect(page.locator("#lesions-lede")).to_have_text("Most probable: plaque, 74\u202f%")
            expect(page.locator("#calibrated")).to_contain_text("they are not calibrated")
            expect(page.locator("#no-attention")).to_have_text(
                "There are no maps of where it looked: the network is a transformer."
            )
            expect(page.locator("#sites-hint")).to_contain_text("made without a site prior")
            expect(page.locator("#similar")).to_be_hidden()
            asked = len(api.asked)
            click_region(page, "scalp")
            assert len(api.asked) == asked
            assert "with" not in api.asked[-1][1]

    @pytest.mark.parametrize(("missing", "there"), [("lesions", "sites"), ("sites", "lesions")])
    def test_one_with_a_single_head(self, browser, api, missing, there):
        api.labels = replace(
            LABELS, **{missing: []}, site_conditioning=False, attention=False, no_attention_because="no maps were asked for"
        )
        api.told = {"lesions": [], "set": None} if missing == "lesions" else {"site": []}
        with answered_page(browser, api) as page:
            expect(page.locator(f"#{there}")).to_be_visible()
            expect(page.locator(f"#{missing}")).to_be_hidden()

    def test_what_it_is_can_be_read(self, page):
        page.get_by_role("button", name="About this model").click()
        about = page.get_by_role("dialog")
        for told in (
            MODEL.intended_use,
            MODEL.model,
            MODEL.notes[0],
            "resnet18",
            "The Predilect developers",
            "predilect demo",
            "scar (not calibrated)",
        ):
            expect(about).to_contain_text(told)
        page.keyboard.press("Escape")
        expect(about).to_be_hidden()


def test_nothing_is_kept_after_leaving(browser, api):
    with opened(browser, api.app()) as page:
        choose(page)
        expect(page.locator("#lesions")).to_be_visible()
        page.goto("about:blank")
        page.go_back()
        expect(page.locator("#invitation")).to_be_visible()
        expect(page.locator("#lesions")).to_be_hidden()
        assert page.locator("#picture").get_attribute("src") is None
