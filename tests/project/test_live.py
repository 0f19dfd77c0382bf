"""The page "What a spike costs" has the values and gradients of the library, in a browser."""

import contextlib
import html
import io
import itertools
import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import spikeloss_xp as sx

DOCS = Path(__file__).parents[2] / "docs"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
FLAGS += " --disable-background-networking --virtual-time-budget=5000 --dump-dom"
LOSSES = {
    "CrossEntropy": lambda setting, rates: sx.CrossEntropy(
        time_axis=-1, temperature=setting, rates=rates
    ),
    "SpikeTime": lambda setting, rates: sx.SpikeTime(
        time_constant=setting, time_axis=-1, reduction="sum"
    ),
    "SpikeLatency": lambda setting, rates: sx.SpikeLatency(true_time=setting, time_axis=-1),
}
NO_SPIKE_MOVES = {"switch on", "raise the setting", "switch off"}
ACTIONS = """
addEventListener("load", async () => {
  const root = document.getElementById("live"), states = [];
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const rows = [...root.querySelectorAll("svg > g")];
  const times = (kind) => rows.map((row) => [...row.querySelectorAll(`.live-${kind}`)].map(
    (mark) => Number(mark.getAttribute("aria-valuenow"))));
  const spike = (number) => root.querySelectorAll(".live-spikes")[number];
  const send = (to, Kind, name, more) =>
    to.dispatchEvent(new Kind(name, { bubbles: true, ...more }));
  const press = (to, key) => send(to, KeyboardEvent, "keydown", { key });
  const middle = () => {
    const box = rows[0].querySelector(".live-row").getBoundingClientRect();
    return box.left + box.width / 2;
  };
  const set = (name, value) => {
    part(name).value = value;
    send(part(name), Event, name === "loss" ? "change" : "input");
  };
  const drag = (mark, clientX) => {
    send(mark, PointerEvent, "pointerdown");
    send(window, PointerEvent, "pointermove", { clientX });
    send(window, PointerEvent, "pointerup");
    send(window, PointerEvent, "pointermove", { clientX: 0 });
  };
  const actions = {
    "start again": () => part("again").click(),
    "switch on": () => part("rates").click(),
    "raise the setting": () => set("control", 10),
    "key of a target": () => press(root.querySelector(".live-target"), "PageUp"),
    "jump over a spike": () => { press(spike(2), "ArrowLeft"); press(spike(2), "ArrowLeft"); },
    "last step": () => press(spike(2), "End"),
    "next to it": () => press(spike(1), "End"),
    "drag": () => drag(spike(0), middle()),
    "click": () =>
      send(rows[2].querySelector(".live-row"), MouseEvent, "click", { clientX: middle() }),
    "add many": () => { for (let k = 0; k < 43; k += 1) part("add-1").click(); },
    "delete": () => press(spike(2), "Delete"),
    "double-click": () => send(spike(1), MouseEvent, "dblclick"),
    "switch off": () => part("rates").click(),
  };
  document.body.style.width = "1240px";
  await new Promise((done) => setTimeout(done, 200)); // the picture adapts
  for (const loss of [...part("loss").options].map((option) => option.value)) {
    set("loss", loss);
    for (const [action, act] of Object.entries(actions)) {
      act();
      states.push({
        action, loss, setting: Number(part("control").value),
        bounded: part("rates").checkVisibility() && part("rates").checked,
        spikes: times("spikes"), target: times("target"),
        shown: part("value").textContent, code: part("code").textContent,
        ...JSON.parse(root.dataset.result),
      });
    }
  }
  document.body.append(Object.assign(document.createElement("pre"), {
    id: "states", textContent: JSON.stringify(states) }));
});
"""


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Return what the page shows after each action, with each loss."""
    if not BROWSER:
        pytest.skip("needs Chromium: docs/contributing/testing.md says how to install it")
    folder = tmp_path_factory.mktemp("live")
    page = (DOCS / "live.html").read_text(encoding="utf-8").replace("_static/", f"{DOCS}/_static/")
    head = '<!doctype html><meta charset="utf-8"><body style="margin: 0; font-family: sans-serif">'
    page = f"{head}{page}<script>{ACTIONS}</script>"
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [BROWSER, *FLAGS.split(), f"--user-data-dir={folder}", f"{folder}/page.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="states">(.*?)</pre>', shown.stdout, re.S)
    assert found, shown.stdout[-2000:] + shown.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


def trains(times):
    """Return a binary train ``[1, neuron, time]`` with spikes at some steps of each neuron."""
    train = np.zeros((1, 3, 60))
    for neuron, steps in enumerate(times):
        train[0, neuron, steps] = 1
    return train


def test_moving_pictures_are_those_of_their_program(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(DOCS / "gallery")
    program = runpy.run_path(str(DOCS / "gallery" / "moving.py"))
    for theme, ink in program["THEMES"].items():
        picture = DOCS / "images" / f"moving-{theme}.svg"
        assert picture.read_text(encoding="utf-8") == program["draw"](ink), theme


@pytest.mark.slow
def test_page_and_its_code_equal_numpy(states):
    assert list(dict.fromkeys(state["loss"] for state in states)) == list(LOSSES)
    assert {state["bounded"] for state in states} == {True, False}
    for before, after in itertools.pairwise(states[: len(states) // 3]):
        same = all(before[kind] == after[kind] for kind in ("spikes", "target"))
        assert same == (after["action"] in NO_SPIKE_MOVES), after["action"]
    for state in states:
        loss = LOSSES[state["loss"]](state["setting"], (0.5, 0.02) if state["bounded"] else None)
        spikes = trains(state["spikes"])
        target = trains(state["target"]) if state["loss"] == "SpikeTime" else [0]
        value, gradient = sx.value_and_grad(loss)(spikes, target)
        np.testing.assert_allclose(state["value"], value, rtol=1e-9)
        np.testing.assert_allclose([state["gradient"]], gradient, rtol=1e-9, atol=1e-9)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(state["code"], names := {})
        assert printed.getvalue().split("\n")[0] == state["shown"]
        assert f"# {state['shown']}\n" in state["code"]
        found = names["gradient"][names["spikes"] == 1]
        np.testing.assert_allclose(found, gradient[spikes == 1], rtol=1e-9)
