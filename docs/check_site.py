"""Check a built site: ``python docs/check_site.py build/site``.

Every link inside it leads to something, nothing is fetched from elsewhere, public names in inline
code are linked to the reference, every page has a description for search engines, a search finds
the pages in `FOUND_FIRST`, code can be read in both themes, no example of the gallery took longer
than `SECONDS`, and axe-core finds no problem of accessibility in `PAGES`, where Chromium and the
package axe-playwright-python are installed.
"""

import functools
import html
import http.server
import importlib.resources
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SECONDS = 45
CONTRAST = 4.5  # the least between a text and its background, by the W3C's guidelines (WCAG, AA)
# pages that are only lists of links
WITHOUT_DESCRIPTION = ("genindex.html", "search.html", "py-modindex.html")
PAGES = (  # one of each kind
    *(
        "index",
        "live",
        "quickstart",
        "benchmarks",
        "reference",
        "search",
        "guides/which-loss",
    ),
    *(
        "losses/CrossEntropy",
        "auto_gallery/index",
        "auto_gallery/plot_what_a_loss_sees",
    ),
    *("auto_notebooks/plot_recording_to_distances", "contributing/architecture"),
)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
FLAGS += " --disable-background-networking --virtual-time-budget=300000 --dump-dom"
DRIVER = """<!doctype html><meta charset=utf-8><body><script type=module>
const found = [];
for (const page of PAGES) for (const theme of ["light", "dark"]) {
  localStorage.setItem("mode", theme);
  localStorage.setItem("theme", theme);
  const frame = document.createElement("iframe");
  Object.assign(frame, { width: 1200, height: 900, src: `/${page}.html` });
  await new Promise((loaded) => { frame.onload = loaded; document.body.append(frame); });
  const inside = frame.contentDocument;
  const script = inside.createElement("script");
  await new Promise((loaded) => {
    Object.assign(script, { src: "/axe.js", onload: loaded });
    inside.head.append(script);
  });
  const { violations } = await frame.contentWindow.axe.run(inside);
  found.push({ page, theme, violations });
  frame.remove();
}
const all = Object.assign(document.createElement("pre"), { id: "found" });
all.textContent = JSON.stringify(found);
document.body.append(all);
</script>"""
FOUND_FIRST = {  # what a search finds first, by its main entries of the index
    "published-code": (
        "EventProp",
        "IM-Loss",
        "DECOLLE",
        "tempotron",
        "S4NN",
        "NDT",
    ),
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
STYLES = Path("_static", "styles", "pydata-sphinx-theme.css")


class Page(HTMLParser):
    """What a page links to and loads, and what in it can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.code = [], [], {""}, set()
        self.around = []  # the open tags that hold code, or where code is no link of its own
        self.description = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        """Note the links and names of a tag."""
        found = dict(attributes)
        if tag in self.AROUND:
            self.around.append(tag)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(found["href"])
        elif tag == "meta" and found.get("name") == "description":
            self.description = found["content"]
        elif found.get("src"):
            self.loads.append(found["src"])

    def handle_endtag(self, tag):
        """Leave a tag."""
        if tag in self.AROUND:
            self.around.pop()

    def handle_data(self, data):
        """Note inline code, unless it is in a block, a link or a heading."""
        if self.around == ["code"]:
            self.code.add(data.removeprefix("sx."))

    AROUND = ("code", "pre", "a", "h1", "h2", "h3", "h4")


def broken(site, pages):
    """Yield what is wrong with the links and descriptions of a site."""
    for path, page in pages.items():
        here = path.relative_to(site)
        if len(page.description) < 40 and here.name not in WITHOUT_DESCRIPTION:
            yield f"{here} has no description, or a short one: {page.description!r}"
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    yield f"{here} fetches {link}"
                continue
            target = (
                (path.parent / unquote(parts.path)).resolve() if parts.path else path
            )
            if not target.exists():
                yield f"{here} links to {link}, which is not there"
            elif (
                target in pages
                and unquote(parts.fragment) not in pages[target].anchors
            ):
                yield f"{here} links to {link}, which has no such place"


def not_linked(site, pages):
    """Yield the public names in the code of a page that are neither on it nor linked."""
    described = [
        path for path in pages if path.parent.name in ("reference", "losses")
    ]
    names = {
        path.stem.rpartition(".")[2] for path in described if path.stem != "times"
    }
    for path, page in pages.items():
        found = {
            link.rpartition(".")[2] for link in page.links if "#spikeloss_xp" in link
        }
        found |= {anchor.rpartition(".")[2] for anchor in page.anchors}
        if path.parent.name != "reference":
            for name in sorted(page.code & names - found):
                yield f"{path.relative_to(site)} has no link for {name}: see docs/conf.py"


def not_found(site):
    """Yield the names for which a search does not show their page first."""
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    for page, names in FOUND_FIRST.items():
        for name in names:
            entries = index["indexentries"].get(name.lower(), [])
            found = [
                index["docnames"][file] for file, _, is_main in entries if is_main
            ]
            if found != [page]:
                yield f"a search for {name} finds {found}, and not {page}"


def missing_fonts(site):
    """Yield the files that the style sheet of the site names and that are not there."""
    sheet = site / "_static" / "site.css"
    for url in re.findall(r"url\(\"([^\"]+)\"\)", sheet.read_text(encoding="utf-8")):
        if not (sheet.parent / url).exists():
            yield f"site.css fetches {url}, which is not there"


def luminance(colour):
    """Return the relative luminance of a colour in hexadecimal digits, as the W3C defines it."""
    digits = colour.lstrip("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    channels = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """Return the contrast of two colours, from 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def pale(site):
    """Yield the colours of code that are too near to their background, in either theme."""
    theme = (site / STYLES).read_text(encoding="utf-8")
    tokens = (site / "_static" / "pygments.css").read_text(encoding="utf-8")
    for mode in ("light", "dark"):
        selector = rf'html\[data-theme="?{mode}"?\]'
        pattern = selector + r"\{[^}]*--pst-color-surface:(#\w+)"
        surface = re.search(pattern, theme)[1]
        rules = re.findall(selector + r" \.highlight (\S+) \{([^}]*)\}", tokens)
        colours = [
            (token, colour[1], background[1] if background else surface)
            for token, rule in rules
            if (colour := re.search(r"(?<!-)color: (#\w+)", rule))
            for background in [re.search(r"background-color: (#\w+)", rule)]
        ]
        if len(colours) < 20:
            yield f"pygments.css has {len(colours)} colours in the {mode} theme"
        for token, colour, background in colours:
            if (found := contrast(colour, background)) < CONTRAST:
                pair = f"{colour} on {background}"
                yield f"{token} has contrast {found:.2f} in the {mode} theme, {pair}"


def slow(report):
    """Yield the examples that took too long, by the report of the gallery."""
    for case in ET.parse(report).iter("testcase"):
        taken = float(case.get("time"))
        print(f"{case.get('name')}: {taken:.1f} s")
        if taken > SECONDS:
            yield f"{case.get('name')} took {taken:.0f} s, more than {SECONDS}"


class Server(http.server.SimpleHTTPRequestHandler):
    """A site, with two files that are not in it: axe-core, and the page that runs it."""

    def __init__(self, *args, more, **options):
        self.more = more
        super().__init__(*args, **options)

    def do_GET(self):
        """Send a file."""
        if self.path not in self.more:
            super().do_GET()
            return
        text = self.more[self.path].encode()
        self.send_response(200)
        kind = "text/javascript" if self.path.endswith(".js") else "text/html"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        """Print nothing."""


def inaccessible(site):
    """Yield what axe-core finds in `PAGES`, in both themes."""
    if not BROWSER or importlib.util.find_spec("axe_playwright_python") is None:
        print(
            "accessibility was not checked: that needs Chromium and axe-playwright-python"
        )
        return
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    pages = [page for page in PAGES if (site / f"{page}.html").exists()]
    more = {
        "/axe.js": axe.read_text(encoding="utf-8"),
        "/axe.html": DRIVER.replace("PAGES", json.dumps(pages)),
    }
    handler = functools.partial(Server, more=more, directory=str(site))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        tempfile.TemporaryDirectory() as profile,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/axe.html"
        command = [BROWSER, *FLAGS.split(), f"--user-data-dir={profile}", address]
        shown = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False
        )
        server.shutdown()
    found = re.search(r'<pre id="found">(.*?)</pre>', shown.stdout, re.DOTALL)
    if not found:
        yield f"axe-core did not run: {shown.stdout[-500:]} {shown.stderr[-500:]}"
        return
    results = json.loads(html.unescape(found[1]))
    print(f"axe-core has read {len(results)} pages")
    for result in results:
        for rule in result["violations"]:
            for node in rule["nodes"]:
                place = " ".join(map(str, node["target"]))
                where = f"{result['page']}.html, {result['theme']}"
                yield f"{where}: {rule['id']}, {rule['help']}: {place}"


def main(site):
    """Print what is wrong, and return the exit status."""
    found = (path for path in site.rglob("*.html") if "_static" not in path.parts)
    pages = {path: Page(path) for path in found}
    wrong = [
        *broken(site, pages),
        *not_linked(site, pages),
        *not_found(site),
        *missing_fonts(site),
        *pale(site),
        *slow(site / "gallery.xml"),
        *inaccessible(site),
    ]
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
