"""The support tables match their record, and each row of them has a test."""

import ast
import re

from _support import backends, gpu, pages, signatures, support


def test_pages_match_the_record():
    hint = "write them anew: python tools/write_pages.py"
    for path in support.TABLES:
        assert path.read_text(encoding="utf-8") == support.page(path), hint
    made_from_text = (
        (gpu.PAGE, gpu.page),
        (support.FINDINGS, support.page_of_findings),
    )
    for path, made in made_from_text:
        text = path.read_text(encoding="utf-8")
        assert text == made(text), hint
    for path in signatures.PAGES:
        text = path.read_text(encoding="utf-8")
        assert text == signatures.written(text), f"{path.name}: {hint}"


def test_table_rows_each_have_a_test():
    for test in support.tests():
        file, _, name = test.partition("::")
        tree = ast.parse((pages.ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, test
    for transforms in (support.PYTORCH, support.JAX, support.MLX):
        assert all(transforms.values())


def test_backends_tested_on_every_change_are_required_in_ci():
    script = (pages.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    required = " ".join(re.findall(r'REQUIRED_BACKENDS="([^"]*)"', script)).split()
    named = {n for lib in support.LIBRARIES for n in lib.tests if "::" not in n}
    assert named == set(required)
    assert named <= backends.BACKENDS.keys()
    on_gpu = {claim.what for claim in gpu.CLAIMS}
    for library in support.LIBRARIES:
        assert bool(library.tests) == (library.what not in on_gpu), library.what
