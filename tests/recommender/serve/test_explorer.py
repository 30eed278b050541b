"""The explorer as people use it: a real Chromium on a real `dualview serve`."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dualview import Store
from recommender.runs import list_runs
from tests.recommender.serve.browsing import (
    CHROMIUM,
    COLOURS,
    DROP,
    HOSTILE,
    ITEMS,
    QUIET,
    WAITS,
    Watch,
    cards,
    make_store,
    open_runs,
    picture_of,
    pictured,
    served,
    until,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to look with")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    with served(store.root) as at:
        open_runs(at, [run.name for run in list_runs(store.root)], "U01")
        yield at


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield one
        one.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Open]:
    """Open an address of the explorer in a window of its own; afterwards nothing must have gone wrong in it."""
    opened = []

    def open_one(place: str = "", **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | options))
        page = context.new_page()
        page.set_default_timeout(1_000 * WAITS)
        opened.append((context, Watch(page, address)))
        page.goto(f"{address}/#/{place}")
        page.watch = opened[-1][1]
        return page

    yield open_one
    for context, watch in opened:
        context.close()
        watch.check()


def test_words_are_searched_for_and_the_address_keeps_the_question(open_page: Open, store: Store) -> None:
    page = open_page()
    assert len(cards(page)) == 48
    page.get_by_role("searchbox").fill("umbrella")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('“umbrella”')")
    found = cards(page)
    assert found == [
        row["item_id"] for row in store.similar(text="umbrella", mode="hybrid", k=24).to_pylist()
    ]
    page.get_by_text("Words", exact=True).click()
    page.wait_for_url("**mode=keyword**")
    by_words = cards(page)
    assert by_words == [
        row["item_id"] for row in store.similar(text="umbrella", mode="keyword", k=24).to_pylist()
    ]
    page.reload()
    assert cards(page) == by_words
    page.mouse.wheel(0, 700)
    until(page, "() => history.state && history.state.scrolled > 300")
    page.locator(".card > a").last.click()
    page.wait_for_selector(".chip")
    until(page, "() => scrollY === 0")
    page.go_back()
    page.wait_for_selector(".chip", state="detached")
    assert cards(page) == by_words
    until(page, "() => scrollY > 300")
    page.go_back()
    page.wait_for_selector("h1:has-text('“umbrella”')")
    until(page, "() => !location.hash.includes('mode')")
    assert cards(page) == found
    page.go_back()
    page.wait_for_selector("h1:has-text('The catalogue')")
    assert page.get_by_role("searchbox").input_value() == ""


def test_a_card_leads_to_similar_items_and_weights_change_them(open_page: Open, store: Store) -> None:
    page = open_page()
    item = next(each for each in cards(page) if each in pictured(store))
    page.locator(f".card[data-id='{item}'] > a").click()
    page.wait_for_url(f"**like={item}")
    page.wait_for_selector(".score")
    by_text = cards(page)
    assert item not in by_text
    slider = page.get_by_label("Weight of image")
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_url("**image%3A1**")
    page.wait_for_selector(".parts")
    both = cards(page)
    assert both != by_text
    wanted = store.similar(item, features={"text": 1, "image": 1}, k=24).to_pylist()
    assert both == [row["item_id"] for row in wanted]
    page.get_by_label("Weight of text").focus()
    page.keyboard.press("Home")
    page.wait_for_url(re.compile("text%3A0"))
    page.wait_for_selector(".parts", state="detached")
    assert cards(page) == [
        row["item_id"] for row in store.similar(item, features=["image"], k=24).to_pylist()
    ]
    page.get_by_role("button", name="Automatic").click()
    page.wait_for_url(re.compile(f"like={item}$"))


def test_a_filter_is_checked_where_it_is_typed(open_page: Open, store: Store) -> None:
    page = open_page()
    box = page.get_by_label("Only items with")
    box.fill("prise < 20")
    page.wait_for_selector(".wrong:has-text('prise')")
    assert "price" in page.locator(".wrong").inner_text()
    assert box.get_attribute("aria-invalid") == "true"
    box.fill("price < 20")
    page.keyboard.press("Enter")
    page.wait_for_url("**where=price**")
    cheap = [row["item_id"] for row in store.release().catalogue.to_pylist() if row["price"] < 20]
    page.wait_for_selector(f".told:has-text('{len(cheap)} items')")
    assert set(cards(page)) <= set(cheap)
    box.fill("price < 0")
    page.wait_for_selector("text=No item satisfies the filter")


def test_like_these_but_not_those(open_page: Open, store: Store) -> None:
    one, other, third = pictured(store)[:3]
    page = open_page(f"?like={one}")
    cards(page)
    for item, button in ((other, 1), (third, 2)):
        page.goto(page.url.replace("#/", "#/x").replace("#/x", "#/"))
        page.evaluate("(at) => { location.hash = at }", page.url.split("#")[1] + "&k=200")
        page.wait_for_selector(f".card[data-id='{item}']")
        card = page.locator(f".card[data-id='{item}']")
        card.hover()
        card.locator(f".acts button:nth-of-type({button})").click()
        page.wait_for_selector(f".chip:nth-of-type({button + 1})")
        page.wait_for_selector(f".card[data-id='{item}']", state="detached")
    assert re.findall(r"(like|unlike)=(\w+)", page.url) == [("like", one), ("like", other), ("unlike", third)]
    wanted = store.similar([one, other], unlike=third, k=ITEMS).to_pylist()
    assert cards(page)[:20] == [row["item_id"] for row in wanted][:20]
    page.locator(".chip.unlike button").click()
    page.wait_for_selector(".chip.unlike", state="detached")


def test_a_dropped_picture_finds_its_item(open_page: Open, store: Store) -> None:
    item = pictured(store)[5]
    page = open_page()
    cards(page)
    page.evaluate(DROP, [base64.b64encode(picture_of(store, item)).decode(), "mine.jpg"])
    page.wait_for_selector(".chip:has-text('mine.jpg')")
    page.wait_for_selector(".score")
    assert cards(page)[0] == item
    page.reload()
    page.wait_for_selector("text=The picture is not here")
    page.locator("#picture-file").set_input_files(
        {"name": "chosen.jpg", "mimeType": "image/jpeg", "buffer": picture_of(store, item)}
    )
    page.wait_for_selector(".score")
    assert cards(page)[0] == item
    page.evaluate(DROP, [base64.b64encode(b"no picture at all").decode(), "broken.png"])
    page.wait_for_selector(".notice.error")


def test_an_item_has_a_page_with_its_words_neighbours_and_lineage(open_page: Open, store: Store) -> None:
    item = next(row for row in store.release().catalogue.to_pylist() if row["image"] and row["description"])
    page = open_page(f"item/{item['item_id']}")
    page.wait_for_selector(f"h1:has-text('{item['title']}')")
    assert item["description"] in page.locator("#main").inner_text()
    assert page.locator(".item-picture img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    page.wait_for_selector(".near .card")
    assert page.locator(".near").count() == 2
    page.wait_for_selector(".tree")
    told = page.locator(".tree").inner_text()
    assert all(name in told for name in ("Picture", "Feature", "Release"))
    page.locator(".tree summary:has-text('Release')").click()
    assert "Run" in page.locator(".tree").inner_text()
    page.goto(page.url.replace(item["item_id"], "nothing"))
    page.wait_for_selector(".notice h1:has-text('Not there')")


def test_a_history_stands_beside_its_recommendations_and_why(open_page: Open, store: Store) -> None:
    page = open_page("recommend")
    box = page.get_by_role("combobox", name="User")
    box.fill("U0")
    page.wait_for_selector("[role=option]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    found = cards(page)
    seen = page.eval_on_selector_all(".past .line", "all => all.map(one => one.dataset.id)")
    assert seen
    assert not set(seen) & set(found)
    assert page.locator(".because").count() == len(found)
    page.locator(".card > a").first.focus()
    lit = page.eval_on_selector_all(".past .line.lit", "all => all.map(one => one.dataset.id)")
    assert lit
    assert set(lit) <= set(seen)
    before = page.locator("h1").inner_text()
    page.get_by_label("Run", exact=True).select_option(index=1)
    page.wait_for_url("**run=sasrec**")
    cards(page)
    assert page.locator("h1").inner_text() == before
    page.get_by_role("button", name="Try another history").click()
    page.wait_for_selector("h1:has-text('For this history')")
    taken = page.locator(".past-row").count()
    page.locator(".past-row button").first.click()
    until(page, "n => document.querySelectorAll('.past-row').length === n", taken - 1)
    cards(page)


def test_two_features_answer_side_by_side_and_a_vote_stays_in_the_browser(
    open_page: Open, store: Store
) -> None:
    item = pictured(store)[0]
    page = open_page(f"compare?like={item}&left=text&right=image&blind=yes")
    cards(page)
    assert page.locator("select[aria-label^='Left']").count() == 0
    assert "image" not in page.locator(".columns-2").inner_text()
    asked = len(page.watch.asked)
    page.get_by_role("button", name="Left is better").click()
    page.wait_for_selector("text=You chose")
    assert page.locator("select[aria-label^='Left']").count() == 1
    assert [url for _, url in page.watch.asked[asked:] if "/picture" not in url] == []
    page.get_by_text("Hide the names").click()
    page.wait_for_url(lambda url: "blind" not in url)
    text = {row["item_id"] for row in store.similar(item, features=["text"], k=12).to_pylist()}
    image = {row["item_id"] for row in store.similar(item, features=["image"], k=12).to_pylist()}
    page.wait_for_selector(f".verdict:has-text('{len(text & image)} of 12 in both')")
    assert page.locator(".badge.both").count() == 2 * len(text & image)
    assert set(cards(page)) == text | image
    page.get_by_role("button", name="Another item").click()
    until(page, "before => location.hash !== before", page.url.split("/", 3)[3])


def test_two_runs_answer_side_by_side(open_page: Open) -> None:
    page = open_page("compare?by=run&user=U01")
    page.wait_for_selector(".verdict:has-text('in both')")
    sides = [page.locator(f".columns-2 > section:nth-of-type({n}) .card").count() for n in (1, 2)]
    assert sides == [12, 12]


def test_the_map_draws_every_item_and_shows_the_one_that_is_meant(open_page: Open) -> None:
    page = open_page("map?layout=pca&colour=category")
    page.wait_for_selector(f".told:has-text('{ITEMS} items by')")
    until(page, f"() => ({COLOURS})(document.querySelector('canvas')) > 20")
    groups = page.locator(".legend .key")
    assert groups.count() > 3
    canvas = page.locator("canvas")
    canvas.focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowRight")
        if page.locator(".hover:visible").count():
            break
    page.wait_for_selector(".hover b")
    page.keyboard.press("Enter")
    page.wait_for_selector(".picked .card")
    page.keyboard.press("Escape")
    page.wait_for_selector(".picked", state="hidden")
    before = canvas.evaluate(COLOURS)
    groups.first.click()
    assert groups.first.get_attribute("aria-pressed") == "true"
    until(page, f"n => ({COLOURS})(document.querySelector('canvas')) !== n", before)
    page.get_by_text("Neighbourhoods").click()
    page.wait_for_selector("text=Distances between groups mean nothing here")
    page.get_by_label("Colour by").select_option("price")
    page.wait_for_selector(".ramp")


def test_everything_goes_by_the_keyboard(open_page: Open) -> None:
    page = open_page("store")
    page.wait_for_selector("td")
    page.keyboard.press("/")
    until(page, "() => document.activeElement.id === 'search'")
    page.keyboard.type("mug")
    page.keyboard.press("Enter")
    page.wait_for_selector(".score")
    found = cards(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    focused = "document.activeElement.dataset.card"
    assert page.evaluate(focused) == found[1]
    page.keyboard.press("ArrowDown")
    below = page.evaluate(focused)
    assert found.index(below) > 2
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == found[1]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("+")
    page.wait_for_selector(".chip")
    page.wait_for_selector(f".card[data-id='{found[1]}']", state="detached")
    until(page, "() => document.activeElement.tagName === 'H1'")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.keyboard.press("4")
    page.wait_for_selector("h1:has-text('Map of the catalogue')")
    page.keyboard.press("1")
    page.wait_for_selector("h1:has-text('The catalogue')")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')")
        )
    assert {"search", "Search by a picture"} <= reached


def test_markup_in_a_title_is_text(open_page: Open, store: Store) -> None:
    item = next(row["item_id"] for row in store.release().catalogue.to_pylist() if row["title"] == HOSTILE)
    for place in (f"item/{item}", f"?like={item}", f"compare?like={item}", f"map?item={item}&layout=pca"):
        page = open_page(place)
        page.wait_for_selector("text=window.hostile=1")
        page.wait_for_timeout(100)
        assert page.evaluate("window.hostile") is None
        assert page.locator("main img[src=x], main script, main b:text-is('bold')").count() == 0
    page = open_page("?q=%3Cimg%20src%3Dx%20onerror%3D%22window.hostile%3D1%22%3E")
    page.wait_for_selector("h1:has-text('<img')")
    assert page.evaluate("window.hostile") is None


VIEWS = ("", "?like=P001", "item/P001", "recommend/U01", "compare?like=P001", "map?layout=pca", "store")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_every_view_without_scrolling_sideways(open_page: Open, scheme: str) -> None:
    size = {"width": 390, "height": 844}
    page = open_page(
        viewport=size, color_scheme=scheme, has_touch=True, is_mobile=True, reduced_motion="reduce"
    )
    for view in VIEWS:
        page.evaluate("(at) => { location.hash = at }", f"#/{view}")
        page.wait_for_selector("h1:visible")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
        small = page.eval_on_selector_all(
            "button, select, nav a",
            "all => all.filter(one => one.offsetHeight && one.offsetHeight < 24).length",
        )
        assert small == 0, view
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("document.documentElement.dataset.theme") != scheme


def test_a_newer_release_is_told_of(open_page: Open) -> None:
    def newer(route: Any) -> None:
        answer = route.fetch().json()
        route.fulfill(json=answer | {"release": "0002"})

    page = open_page()
    page.wait_for_selector("#store-name:has-text('store · 0001')")
    page.route("**/v1/similar", newer)
    page.get_by_role("searchbox").fill("mug")
    page.keyboard.press("Enter")
    page.wait_for_selector("#store-name:has-text('store · 0002')")


def test_a_service_that_does_not_answer_is_said_and_tried_again(open_page: Open) -> None:
    page = open_page()
    cards(page)
    page.route("**/v1/similar", lambda route: route.abort())
    page.get_by_role("searchbox").fill("mug")
    page.keyboard.press("Enter")
    page.wait_for_selector(".notice h1:has-text('No answer')")
    page.unroute("**/v1/similar")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".score")
    page.evaluate("location.hash = '#/nowhere'")
    page.wait_for_selector(".notice h1:has-text('No such page')")
