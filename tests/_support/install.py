"""The table of versions on docs/install.md: that of docs/support.md, with platforms."""

import re

from _support import support
from _support.support import ROOT

PAGE = ROOT / "docs" / "install.md"


def page(text: str) -> str:
    """Return the text of the page with its table replaced by that of the versions."""
    return re.sub(r"(## Versions\n\n).*?(?=\n\n)", rf"\1{support.versions()}", text, flags=re.S)
