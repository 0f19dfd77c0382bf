"""Check a built site: ``python docs/check_site.py build/site``.

Every link inside it leads to something, nothing is fetched from elsewhere, and no example of the
gallery took longer than a minute.
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
        self.links, self.loads, self.anchors = [], [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        """Note the links and names of a tag."""
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(found["href"])
        elif found.get("src"):
            self.loads.append(found["src"])


def broken(site):
    """Yield what is wrong with the links of a site."""
    found = (path for path in site.rglob("*.html") if "_static" not in path.parts)
    pages = {path: Page(path) for path in found}
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


def slow(report):
    """Yield the examples that took too long, by the report of the gallery."""
    for case in ET.parse(report).iter("testcase"):
        taken = float(case.get("time"))
        print(f"{case.get('name')}: {taken:.1f} s")
        if taken > SECONDS:
            yield f"{case.get('name')} took {taken:.0f} s, more than {SECONDS}"


def main(site):
    """Print what is wrong, and return the exit status."""
    wrong = [*broken(site), *slow(site / "gallery.xml")]
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
