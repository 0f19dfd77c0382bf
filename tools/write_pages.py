"""Write the pages that are made from records: ``python tools/write_pages.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _support import contract, gpu, install, support

for path, text in {
    contract.PAGE: contract.page(),
    gpu.PAGE: gpu.page(),
    install.PAGE: install.page(install.PAGE.read_text(encoding="utf-8")),
    support.PAGE: support.page(),
    support.README: support.readme(support.README.read_text(encoding="utf-8")),
}.items():
    path.write_text(text, encoding="utf-8")
