"""The outputs on the page of the command are those that the command prints."""

import re
from pathlib import Path

import pytest

from spikeloss_xp.cli import main

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


def shell_arguments(start):
    (line,) = (b for b in blocks("bash") if b.startswith(start) and "--backend" not in b)
    return line.split()[1:]


def test_output_of_compare_is_the_documented_one(capsys):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    libraries = [word for name in ("numpy", "torch", "jax") for word in ("--backend", name)]
    assert main([*shell_arguments("spikeloss-xp compare --loss"), *libraries]) == 0
    assert without_measures(blocks("text")[0]) == without_measures(capsys.readouterr().out)


def test_output_of_evaluate_is_the_documented_one(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("py")[0], "docs/command.md", "exec"), {})
    assert main(shell_arguments("spikeloss-xp evaluate")) == 0
    assert without_measures(blocks("text")[1]) == without_measures(capsys.readouterr().out)
