"""Who may use the page, and on what: keys, spoken words, contrast, phones."""

from dataclasses import replace

import pytest
from playwright.sync_api import expect

from fake_api import LABELS, PROBABILITIES, FakeApi, lesions
from made_page import NO_PHOTOGRAPH, PHOTOGRAPH, TOKEN, answered_page, choose, click_region, opened, region
from predilect.serving.answers import SiteAnswer
from predilect.serving.described import SiteClass

pytestmark = pytest.mark.browser

LONG_WORDS = ("erosion/ulcer/atrophy of the intertriginous skin", "pneumonoultramicroscopicsilicovolcanoconiosis")

# For each text that is seen: its ratio to the ground it stands on by WCAG 2.2, and the least that is allowed (1.4.3).
CONTRASTS = """() => {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgb = (color, ground) => {
        context.fillStyle = `rgb(${ground.join(" ")})`;
        context.fillRect(0, 0, 1, 1);
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const ground = element => element === null ? [255, 255, 255] : rgb(getComputedStyle(element).backgroundColor, ground(element.parentElement));
    const linear = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !element.checkVisibility({ visibilityProperty: true }) || element.closest(".unseen, .skip, script")) continue;
        const style = getComputedStyle(element);
        const below = ground(element);
        const [a, b] = [rgb(element.closest("svg") ? style.fill : style.color, below), below].map(luminance).sort((x, y) => y - x);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        found.push([texts.currentNode.data.trim(), (a + 0.05) / (b + 0.05), large ? 3 : 4.5]);
    }
    return found;
}"""

# What is not text but must be told from what lies beside it (1.4.11), by names of the style sheet.
SHAPES = [
    ("bar", "track"), ("bar-below", "track"), ("ink", "track"), ("ink", "paper"), ("edge", "paper"), ("accent", "paper"), ("bar", "paper"),
    ("line", "paper"), ("ink", "skin"), ("accent", "skin"), ("on-use", "use"), ("skin-full", "skin"),
]  # fmt: skip


@pytest.fixture
def everything(browser):
    """A page with all that it may show at once."""

    def show(**context):
        api = FakeApi()
        api.told = {"unsure": True, "unfamiliar": True, "unfamiliarity": 0.99, "uniform": True, "set": ["plaque"]}
        api.labels = replace(LABELS, sites=[*LABELS.sites, SiteClass("mucosa of the mouth")])
        return answered_page(browser, api, **context)

    return show


def without_scrolling(page):
    """Whether nothing reaches beyond the page's sides."""
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


class TestContrast:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_all_text(self, everything, scheme):
        with everything(color_scheme=scheme) as page:
            click_region(page, "scalp")
            expect(page.locator("#given")).to_be_visible()
            page.get_by_text("How to read it").click()
            found = page.evaluate(CONTRASTS)
            page.get_by_role("button", name="About this model").click()
            found += page.evaluate(CONTRASTS)
        assert {"Unsure.", "Site given:", "Front", "no lesion", "Sources"} <= {text for text, *_ in found}
        assert [item for item in found if item[1] < item[2]] == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_problems_and_the_form_for_a_token(self, browser, scheme):
        with opened(browser, FakeApi().app(TOKEN), refusals=(401, 415), color_scheme=scheme) as page:
            for given in ("not the right one", TOKEN):
                found = page.evaluate(CONTRASTS)
                page.get_by_label("Token", exact=True).fill(given)
                page.keyboard.press("Enter")
                expect(page.locator("#token-problem")).to_be_visible(visible=given != TOKEN)
            choose(page, NO_PHOTOGRAPH)
            expect(page.locator("#photograph-problem")).to_be_visible()
            found += page.evaluate(CONTRASTS)
        assert {"That is not the right token.", "15 lesions"} <= {text for text, *_ in found}
        assert [item for item in found if item[1] < item[2]] == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_shapes(self, browser, scheme):
        with opened(browser, FakeApi().app(), color_scheme=scheme) as page:
            named = "name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()"
            colors = {name: page.evaluate(named, name) for name in {name for pair in SHAPES for name in pair}}
        ratios = {pair: contrast(*(colors[name] for name in pair)) for pair in SHAPES}
        assert {pair: ratio for pair, ratio in ratios.items() if ratio < 3} == {}


def contrast(*colors):
    """By WCAG 2.2, of two colours such as #0072b2."""
    luminances = []
    for color in colors:
        shares = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
        luminances.append(0.2126 * r + 0.7152 * g + 0.0722 * b)
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


def focused(page):
    return page.evaluate("document.activeElement.id || document.activeElement.dataset.name || document.activeElement.dataset.site")


class TestKeys:
    def test_the_whole_way_without_a_mouse(self, browser):
        with opened(browser, FakeApi().app()) as page:
            expect(page.locator("#start dl")).to_be_visible()
            page.on("filechooser", lambda _: None)  # from now on choosers come here
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "Skip to the photograph"
            page.keyboard.press("Enter")
            page.keyboard.press("Tab")
            assert focused(page) == "pick"
            with page.expect_file_chooser() as chooser:
                page.keyboard.press("Enter")
            chooser.value.set_files(PHOTOGRAPH)
            expect(page.locator("#lesions")).to_be_visible()

            def tab_to(wanted, most=25):
                for _ in range(most):
                    if focused(page) == wanted:
                        return
                    page.keyboard.press("Tab")
                raise AssertionError(f"{wanted} is not reached; {focused(page)} is")

            tab_to("strength")
            page.keyboard.press("End")
            expect(page.locator("#map")).to_be_visible()
            tab_to("scale")
            expect(page.locator("#map")).to_have_attribute(
                "aria-label", "Map of scale over the photograph, highest in its lower part"
            )
            tab_to("arm")  # the figure: one stop, at the most probable site
            assert page.evaluate("document.activeElement.matches('.region')")
            page.keyboard.press("Home")
            assert focused(page) == "scalp"
            page.keyboard.press("ArrowDown")
            assert focused(page) == "face"
            page.keyboard.press("ArrowUp")
            page.keyboard.press(" ")
            expect(page.locator("#given-words")).to_have_text("Site given: scalp.")
            assert focused(page) == "scalp"
            expect(page.locator(".rings path.is-pointed")).not_to_have_count(0)  # where the focus is, is still seen
            page.keyboard.press("Enter")
            expect(page.locator("#given")).to_be_hidden()
            expect(page.locator(".rings path.is-pointed")).not_to_have_count(0)

    def test_who_forgets_the_site_is_not_lost(self, browser):
        with answered_page(browser, FakeApi()) as page:
            click_region(page, "leg")
            page.get_by_role("button", name="Forget the site").focus()
            page.keyboard.press("Enter")
            expect(page.locator("#given")).to_be_hidden()
            assert focused(page) == "lesions"

    def test_a_mouse_leaves_no_ring_behind(self, browser):
        with answered_page(browser, FakeApi()) as page:
            click_region(page, "leg")
            page.mouse.move(5, 400)
            expect(page.locator(".rings path.is-given")).not_to_have_count(0)
            expect(page.locator(".rings path.is-pointed")).to_have_count(0)

    def test_focus_is_seen(self, everything):
        with everything() as page:
            page.locator("#strength").focus()
            for _ in range(30):
                page.keyboard.press("Tab")
                seen = page.evaluate(
                    """() => {
                        const style = getComputedStyle(document.activeElement);
                        const ringed = document.activeElement.matches(".region") && document.querySelector(".rings .is-pointed");
                        return document.activeElement === document.body || ringed || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2);
                    }"""
                )
                assert seen, page.evaluate("document.activeElement.outerHTML")


class TestSpoken:
    def test_what_there_is_has_roles_and_names(self, browser):
        with answered_page(browser, FakeApi()) as page:
            for name in ("Photograph", "Lesions", "Body site", "Similar cases"):
                assert page.get_by_role("region", name=name, exact=True).count() == 1
            assert page.get_by_role("img", name="Your photograph, forearm.jpg").count() == 1
            assert page.get_by_role("group", name="Where the network looked").get_by_role("slider").count() == 1
            body = page.get_by_role("group", name="Body, front and back")
            assert body.get_by_role("button").count() == len(LABELS.sites)
            assert body.get_by_role("button", name="arm: 46", exact=False).count() == 1
            assert page.get_by_role("button", name="plaque: 74", exact=False).count() == 1
            assert page.get_by_role("status").inner_text().startswith("Plaque and scale reach")

    def test_rows_that_cannot_be_pressed_are_read_as_one(self, browser):
        api = FakeApi(labels=replace(LABELS, attention=False, no_attention_because="there are none", site_conditioning=False))
        with answered_page(browser, api) as page:
            assert page.get_by_role("img", name="plaque: 74\u202f%, reaches its threshold of 42\u202f%").count() == 1
            assert page.get_by_role("button", name="plaque").count() == 0

    def test_language_and_title(self, browser):
        with opened(browser, FakeApi().app()) as page:
            assert page.evaluate("document.documentElement.lang") == "en"
            assert page.title() == "Predilect"


class TestSizes:
    @pytest.mark.parametrize("width", [320, 360, 390, 768, 1024])
    def test_nothing_is_wider_than_the_window(self, browser, width):
        names = {LONG_WORDS[0]: 0.9, LONG_WORDS[1]: 0.6}
        api = FakeApi(labels=replace(LABELS, lesions=[*LABELS.lesions, *(replace(LABELS.lesions[0], name=name) for name in names)]))
        known = [replace(lesions(None)[0], name=name, probability=p) for name, p in names.items()]
        api.told = {
            "lesions": [*known, *lesions(None, PROBABILITIES)],
            "site": [SiteAnswer(LONG_WORDS[1], 0.6), SiteAnswer("arm", 0.4)],
        }
        with opened(browser, api.app(), viewport={"width": width, "height": 800}) as page:
            expect(page.locator("#start dl")).to_be_visible()
            assert without_scrolling(page)
            choose(page)
            expect(page.locator("#lesions")).to_be_visible()
            page.locator("#strength").fill("60")
            page.get_by_text("How to read it").click()
            assert without_scrolling(page)
            page.get_by_role("button", name="About this model").click()
            assert without_scrolling(page)

    def test_the_photograph_stays_in_view_and_covers_nothing(self, browser):
        with answered_page(browser, FakeApi()) as page:
            for button in ("Show all 15 lesions", "Show all 9 sites"):
                page.get_by_role("button", name=button).click()
            page.evaluate("scrollTo(0, 250)")
            expect(page.locator("#picture")).to_be_in_viewport(ratio=1)
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            photograph, similar = (page.locator(part).bounding_box() for part in (".stays", "#similar"))
            assert photograph["y"] + photograph["height"] <= similar["y"]

    def test_the_intended_use_is_always_in_view(self, browser):
        with answered_page(browser, FakeApi(), viewport={"width": 390, "height": 700}) as page:
            use = page.get_by_text("Not a medical device: for research and development only.")
            for place in ("0", "document.body.scrollHeight / 2", "document.body.scrollHeight"):
                page.evaluate(f"scrollTo(0, {place})")
                expect(use).to_be_in_viewport(ratio=1)

    def test_on_a_phone_the_change_is_told_where_the_site_was_chosen(self, browser):
        with answered_page(browser, FakeApi(), viewport={"width": 390, "height": 844}) as page:
            region(page, "scalp").scroll_into_view_if_needed()
            click_region(page, "scalp")
            page.locator("#change-words").scroll_into_view_if_needed()
            expect(page.locator("#change-words")).to_contain_text("scale rises from")
            page.get_by_role("link", name="Back to the lesions").click()
            expect(page.locator("#lesions-title")).to_be_in_viewport()

    def test_fingers_find_what_they_want(self, browser):
        with answered_page(browser, FakeApi(), viewport={"width": 390, "height": 844}, has_touch=True) as page:
            small = page.evaluate(
                """() => [...document.querySelectorAll("button, input[type=range], summary, .task")]
                    .filter(item => item.checkVisibility())
                    .map(item => [item.textContent, item.getBoundingClientRect().height])
                    .filter(([, height]) => height < 24)"""
            )
            assert small == []


def test_nothing_moves_for_those_who_ask_for_it(browser):
    for motion, moving in (("reduce", False), ("no-preference", True)):
        with answered_page(browser, FakeApi(), reduced_motion=motion) as page:
            duration = page.locator(".fill").first.evaluate("element => getComputedStyle(element).transitionDuration")
            assert any(float(item.strip().removesuffix("s")) > 0 for item in duration.split(",")) == moving
