"""Write what the documentation takes from records and code: ``python tools/write_pages.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _support import gpu, signatures, support

gpu.PAGE.write_text(gpu.page(gpu.PAGE.read_text(encoding="utf-8")), encoding="utf-8")
for page in support.TABLES:
    page.write_text(support.page(page), encoding="utf-8")
before = support.FINDINGS.read_text(encoding="utf-8")
support.FINDINGS.write_text(support.page_of_findings(before), encoding="utf-8")
for page in signatures.PAGES:
    page.write_text(signatures.written(page.read_text(encoding="utf-8")), encoding="utf-8")
