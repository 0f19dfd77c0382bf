"""The built site: `SPIKELOSS_XP_SITE=build/site python -m pytest tests/project/test_site.py`."""

import functools
import http.server
import importlib
import inspect
import json
import os
import re
import shutil
import threading
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

if "SPIKELOSS_XP_SITE" not in os.environ:
    pytest.skip("SPIKELOSS_XP_SITE does not name a built site", allow_module_level=True)
SITE = Path(os.environ["SPIKELOSS_XP_SITE"]).resolve()
PAGES = ("index", "live", "benchmarks", "reference", "search", "losses", "losses/CrossEntropy")
PAGES += ("guides/which-loss", "auto_gallery/index", "auto_gallery/losses/plot_own_loss")
PAGES += ("auto_notebooks/plot_train_in_pytorch", "contributing/architecture")
FETCHES = r"<(?:script|img|source|iframe)\b[^>]*\bsrc=\"(?:https?:)?//[^>]*>"
FETCHES += r"|<link\b(?=[^>]*\brel=\"(?:stylesheet|preload|icon)\")"
FETCHES += r"[^>]*\bhref=\"(?:https?:)?//[^>]*>"
FORMULAS = ("a:has(math)", "th:has(math)")  # axe-core does not read MathML, and finds them empty
SECONDS = 45  # for an example of the gallery
FOUND_FIRST = {  # what a search finds first, by its main entries of the index
    "published-code": ("EventProp", "IM-Loss", "DECOLLE", "tempotron", "S4NN", "NDT"),
    "guides/recordings": ("GLM", "nemos"),
    "guides/regression": ("R2", "RMSE", "MSE"),
    "contract": ("vmap",),
    "guides/activity": ("energy", "synaptic operations"),
    "guides/initialisation": ("learning rate",),
    "losses": ("mask",),
    "support": ("CuPy",),
    "guides/padded-batches": ("padding",),
    "quickstart": ("one sample",),
}


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible_and_fetches_only_files_of_the_site(browser, address, name, theme):
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    page = browser.new_page(color_scheme=theme)
    requests, failed = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("response", lambda response: response.status < 400 or failed.append(response.url))
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    assert not failed
    assert all(url.startswith((address, "data:")) for url in requests), requests
    found = axe.run(page, context={"exclude": [[name] for name in FORMULAS]})
    page.close()
    assert not found.response["violations"], found.generate_report()


def test_no_page_names_a_file_from_elsewhere():
    pages = [page for page in SITE.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > len(PAGES)
    for page in pages:
        assert not re.findall(FETCHES, page.read_text(encoding="utf-8")), page


def test_every_public_name_is_on_a_page():
    pages = [page.read_text(encoding="utf-8") for page in SITE.rglob("*.html")]
    described = {name for page in pages for name in re.findall(r'id="(spikeloss_xp[.\w]*)"', page)}
    names = ("", ".backends", ".distances", ".losses", ".testing", ".times", ".torch")
    names += (".slayer.loss", ".slayer.classifier", ".slayer.published")
    modules = [importlib.import_module(f"spikeloss_xp{name}") for name in names]
    described_objects = {id(_public(name)) for name in described}
    for module in modules:
        for name in module.__all__:
            found = getattr(module, name)
            assert inspect.ismodule(found) or id(found) in described_objects, (module, name)


def _public(name):
    """Return the object with a full name, or None if the name is that of an attribute only."""
    found = importlib.import_module("spikeloss_xp")
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
    return found


def test_search_finds_the_main_page_first():
    text = (SITE / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    for page, names in FOUND_FIRST.items():
        for name in names:
            entries = index["indexentries"].get(name.lower(), [])
            assert [index["docnames"][file] for file, _, is_main in entries if is_main] == [page]


def test_examples_are_fast():
    for case in ET.parse(SITE / "gallery.xml").iter("testcase"):
        assert float(case.get("time")) <= SECONDS, case.get("name")
