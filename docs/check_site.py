"""Check a built site: ``python docs/check_site.py build/site``.

Every link inside it leads to something, nothing is fetched from elsewhere, public names in inline
code are linked to the reference, and no example of the gallery took longer than a minute.
"""

import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SECONDS = 60


class Page(HTMLParser):
    """What a page links to and loads, and what in it can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.code = [], [], {""}, set()
        self.around = []  # the open tags that hold code, or where code is no link of its own
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
    """Yield what is wrong with the links of a site."""
    for path, page in pages.items():
        here = path.relative_to(site)
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
    """Yield the public names in the code of a page that have no link to the reference on it."""
    names = {path.stem.rpartition(".")[2] for path in site.glob("reference/*.html")}
    for path, page in pages.items():
        linked = {link.rpartition(".")[2] for link in page.links if "reference/" in link}
        if path.parent.name != "reference":
            for name in sorted(page.code & names - linked):
                yield f"{path.relative_to(site)} has no link for {name}: see docs/conf.py"


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
    wrong = [*broken(site, pages), *not_linked(site, pages), *slow(site / "gallery.xml")]
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
