"""Snakemake's HTML report, as a reader goes through it in a browser, opened from disk.

A finished study's is looked at by HTML_REPORT=results/demo/report.html; HTML_SCREENSHOTS=<folder> keeps what is seen.
"""

import json
import os
import shutil
import time
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
LOCAL = ("file:", "data:", "blob:", "chrome-extension:", "chrome:")  # the last two are Chromium's own reader of PDFs
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium: apt-get install chromium")


if named := os.environ.get("HTML_REPORT"):

    @pytest.fixture(scope="module")
    def report():
        """The report.html of a finished study."""
        return Path(named).resolve()

else:

    @pytest.fixture(scope="module")
    def report(study):
        """The report.html of the small study."""
        return study / "results/small/report.html"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, report):
    """The report, just opened; at the end nothing went wrong in it, and it asked no server for anything."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong, asked = [], []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url[:80]))
    page.goto(report.as_uri())
    page.wait_for_selector("nav >> text=Workflow")
    yield page
    page.close()
    assert not [url for url in asked if not url.startswith(LOCAL)]
    assert not wrong


def colours(picture):
    return Image.open(BytesIO(picture)).convert("RGB").getcolors(1 << 24)


def look(page, name, selector="body", least=2):
    """What is seen there has so many colours, as soon as it is drawn: a PDF takes its time."""
    deadline = time.monotonic() + 30
    while (found := len(colours(page.locator(selector).screenshot()))) < least:
        assert time.monotonic() < deadline, f"{name}: {found} colour(s), expected {least} or more"
        page.wait_for_timeout(100)
    if folder := os.environ.get("HTML_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"))


def test_the_graph_and_the_run_times(page, report):
    page.wait_for_selector("#rulegraph canvas")
    look(page, "workflow", "#rulegraph canvas")
    rules = {node["rule"] for node in page.evaluate("rulegraph_spec.data[0].values")}
    assert {"prepare_dataset", "train_variant", "select_trial", "write_pages", "render_report"} <= rules
    about = page.locator(".prose").inner_text()
    summary = pd.read_csv(report.with_name("summary.csv"))
    assert f"{100 * summary['test_accuracy_mean'].max():.1f} %" in about and "Claims" in about
    page.click("nav >> text=Statistics")
    for chart in ("runtimes", "timeline"):
        page.wait_for_selector(f"#{chart} canvas")
        look(page, f"statistics-{chart}", f"#{chart} canvas")
    timed = {job["rule"] for job in page.evaluate("runtimes_spec.data.values")}
    assert timed >= rules - {"all"}
    page.click("nav >> text=About")
    look(page, "about")


def test_links_in_the_description_lead_to_the_results(page):
    page.locator(".prose a", has_text="Claims").click()
    page.wait_for_selector("nav td:has-text('Claims')")


def test_every_result_can_be_seen_and_is_explained(page, report):
    categories = page.evaluate("categories")
    assert set(categories) == {"Report", "Figures", "Tables", "Claims"}
    seen = []
    for category, groups in sorted(categories.items()):
        for group, paths in sorted(groups.items()):
            page.locator("nav ol a").first.click()
            page.click(f"nav li >> text='{category}'")
            if len(groups) > 1:
                page.click(f"nav li >> text='{group}'")
            page.wait_for_selector("nav tbody tr")
            look(page, f"list-{category}-{group}".replace(" ", "-").removesuffix("-Other"), "nav.h-screen")
            for path in paths:
                see(page, path, report.parents[2])
            seen += paths
    assert sorted(seen) == sorted(page.evaluate("Object.keys(results)"))
    figures = json.loads((report.parent / "figures/figures.json").read_text())
    assert {f"figures/{figure['name']}.svg" for figure in figures} == {
        path.partition("/")[2].partition("/")[2] for path in seen if path.endswith(".svg")
    }


def see(page, path, root):
    """One result: its caption, and what its button shows, which is the file itself."""
    page.evaluate("path => app.showResultInfo(path)", path)
    caption = page.locator("nav .prose").inner_text()
    assert len(caption) > 50 and "{" not in caption and "\\" not in caption, f"{path}: {caption}"
    button = page.locator("nav tbody a[type=button]").first
    if path.endswith((".csv", ".json")):
        with page.expect_download() as download:
            button.click()
        assert Path(download.value.path()).read_bytes() == (root / path).read_bytes()
        return
    button.click()
    if path.endswith(".svg"):
        page.wait_for_function("document.querySelector('#app .p-3 > img')?.naturalWidth > 100")
        look(page, f"view-{Path(path).stem}", "#app .p-3 > img")
        return
    frame = page.frame_locator("iframe")
    if path.endswith(".html"):
        rows = frame.locator("tbody tr")
        rows.first.wait_for()
        assert rows.count() == (root / path).read_text().count("<tr>")
        wide, room = page.frames[-1].evaluate(
            "(({scrollWidth: w, clientWidth: c}) => [w, c])(document.documentElement)"
        )
        assert wide <= room, f"{path}: {wide} pixels wide, {room} are seen"
        look(page, f"view-{Path(path).stem}", "iframe")
        return
    assert page.locator("iframe").get_attribute("src").startswith("data:application/pdf")
    look(page, "view-report", "iframe", least=1000)  # its pages, not the frame around them alone
