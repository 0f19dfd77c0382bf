"""The outputs on the page of the command are those that the command prints."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def without_measures(text):
    """Return an output without what differs by machine and run: versions, times and errors."""
    text = re.sub(r"(numpy|torch|jax) \d[\w.+]*", r"\1 VERSION", text)
    text = re.sub(r"\d\.\de-\d\d", "ERROR", text)
    text = re.sub(r"\d+\.\d+ (ms|s)\b", "TIME", text)
    text = re.sub(r"Not used: .*?\n(  .*\n)*", "", text)
    return re.sub(r" +|-{2,}", " ", text).strip()


def test_output_of_compare_is_the_documented_one(command):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    line = "compare --loss SpikeTime"
    assert f"\nspikeloss-xp {line}\n" in PAGE
    status, out, _ = command(line, "--backend numpy --backend torch --backend jax")
    assert status == 0
    assert without_measures(blocks("text")[0]) == without_measures(out)
