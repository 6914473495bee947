"""The report in a real browser: no error, filters, order, search, keys, light and dark."""

import json
import shutil
import time

import pytest

from project.report.page import render_report
from project.report.runs import load_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (on Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as context:
        started = context.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "report.html"
    run = load_run(trained)
    target.write_text(render_report(run, run), encoding="utf-8")
    return target


@pytest.fixture
def page(browser, path):
    """The page, which must load in 2 seconds, and say nothing on the console."""
    opened = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme="light")
    said = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda r: r.url.startswith(("file:", "data:")) or said.append(r.url))
    start = time.monotonic()
    opened.goto(f"file://{path}")
    assert time.monotonic() - start < 2
    yield opened
    assert said == []
    opened.close()


def data_of(page) -> dict:
    return json.loads(page.locator("#data").text_content())


def ids(page) -> list[str]:
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.id)")


def test_every_picture_is_there_with_its_masks(page):
    data = data_of(page)
    assert ids(page) == [str(picture["id"]) for picture in data["pictures"]]
    first = page.locator(".card").first
    found, objects, other = (first.locator("svg").nth(i).locator("path").count() for i in range(3))
    record = data["pictures"][0]
    assert (found, objects) == (len(record["found"]), len(record["objects"])) and other == found
    box = first.locator("svg path").last.bounding_box()
    assert box["width"] > 5 and box["height"] > 5
    loaded = "image => { const i = new Image(); i.src = image.href.baseVal; return i.decode() }"
    first.locator("image").first.evaluate(loaded)  # fails where it is no picture


def test_filters_and_search_show_what_they_say(page):
    data = data_of(page)

    def having(test) -> set[str]:
        return {
            str(p["id"])
            for p in data["pictures"]
            if any(test(item) for item in [*p["found"], *p["objects"]])
        }

    page.select_option("#kind", "missed")
    assert set(ids(page)) == having(lambda item: item["kind"] == "missed") != set()
    page.select_option("#kind", "")
    index = data["pictures"][0]["objects"][0]["class"]
    page.select_option("#class", str(index))
    assert set(ids(page)) == having(lambda item: item["class"] == index)
    assert page.locator("#count").inner_text().startswith(str(len(ids(page))))
    page.select_option("#class", "")
    page.fill("#find", data["pictures"][2]["file"])
    assert ids(page) == [str(data["pictures"][2]["id"])]
    page.fill("#find", data["classes"][index])
    assert set(ids(page)) == having(lambda item: item["class"] == index)
    page.fill("#find", "no such thing")
    assert ids(page) == []


def test_the_tables_lead_to_the_pictures_and_can_be_sorted(page):
    page.locator("[data-kind=classification]").click()
    assert page.locator("#kind").input_value() == "classification"
    assert 0 < len(ids(page)) <= 6
    page.locator("#classes thead th", has_text="objects").click()
    numbers = page.locator("#classes tbody tr td:nth-child(2)").all_inner_texts()
    assert list(map(int, numbers)) == sorted(map(int, numbers), reverse=True)


def test_the_order_can_be_chosen(page):
    data = data_of(page)
    page.select_option("#order", "best first")
    quality = {str(p["id"]): p["quality"] for p in data["pictures"]}
    shown = [quality[i] for i in ids(page)]
    assert shown == sorted(shown, reverse=True)
    page.select_option("#order", "by file name")
    names = {str(p["id"]): p["file"] for p in data["pictures"]}
    assert [names[i] for i in ids(page)] == sorted(names.values())


def test_it_is_used_with_keys(page):
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    order = ids(page)
    assert page.evaluate("document.activeElement.dataset.id") == order[1]
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('large').open")
    page.keyboard.press("ArrowRight")
    assert page.locator("#large .title").inner_text().count(f"({order[2]})") == 1
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('large').open")


def test_light_and_dark(page):
    color = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(color)
    assert light != dark
    page.locator("#theme").click()
    assert page.evaluate(color) == light
    page.locator("#theme").click()
    assert page.evaluate(color) == dark


def test_outlines_can_be_hidden(page):
    path = page.locator(".card svg path").first
    assert path.is_visible()
    page.locator("#outlines").uncheck()
    assert not path.is_visible()
