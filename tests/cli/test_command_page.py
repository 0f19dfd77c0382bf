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
    text = re.sub(r"speed +[\d.]+", "speed SPEED", text)
    text = re.sub(r"Not used: .*?\n(  .*\n)*", "", text)
    return re.sub(r" +|-{2,}", " ", text).strip()


def check_output(command, number, line, *more):
    """Compare the output of a line of the page with a block of the page."""
    assert f"\nspikeloss-xp {line}\n" in PAGE
    status, out, _ = command(line, *more)
    assert status == 0
    assert without_measures(blocks("text")[number]) == without_measures(out)


def test_output_of_compare_is_the_documented_one(command):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    libraries = "--backend numpy --backend torch --backend jax"
    check_output(command, 0, "compare --loss SpikeTime", libraries)


def test_output_of_evaluate_is_the_documented_one(command):
    exec(compile(blocks("py")[0], "docs/command.md", "exec"), {})
    check_output(command, 1, "evaluate test.npz --loss CrossEntropy")
