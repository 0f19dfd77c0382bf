"""Check a built site: ``python docs/check_site.py build/site``.

Every link inside it leads to something, nothing is fetched from elsewhere, public names in inline
code are linked to the reference, every page has a description for search engines, code can be read
in both themes, and no example of the gallery took longer than a minute.
"""

import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SECONDS = 60
CONTRAST = 4.5  # the least between a text and its background, by the W3C's guidelines (WCAG, AA)
WITHOUT_DESCRIPTION = ("genindex.html", "search.html", "py-modindex.html")  # lists of links
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
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{here} links to {link}, which is not there"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{here} links to {link}, which has no such place"


def not_linked(site, pages):
    """Yield the public names in the code of a page that are neither on it nor linked."""
    described = [path for path in pages if path.parent.name in ("reference", "losses")]
    names = {path.stem.rpartition(".")[2] for path in described if path.stem != "times"}
    for path, page in pages.items():
        found = {link.rpartition(".")[2] for link in page.links if "#spikeloss_xp" in link}
        found |= {anchor.rpartition(".")[2] for anchor in page.anchors}
        if path.parent.name != "reference":
            for name in sorted(page.code & names - found):
                yield f"{path.relative_to(site)} has no link for {name}: see docs/conf.py"


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
        surface = re.search(selector + r"\{[^}]*--pst-color-surface:(#\w+)", theme)[1]
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


def main(site):
    """Print what is wrong, and return the exit status."""
    found = (path for path in site.rglob("*.html") if "_static" not in path.parts)
    pages = {path: Page(path) for path in found}
    wrong = [
        *broken(site, pages),
        *not_linked(site, pages),
        *missing_fonts(site),
        *pale(site),
        *slow(site / "gallery.xml"),
    ]
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
