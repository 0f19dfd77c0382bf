"""The page "What a spike costs" has the values and gradients of the library, in a browser."""

import html
import json
import re
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
    "SpikeTime": lambda setting: sx.SpikeTime(setting),
    "CrossEntropy": lambda setting: sx.CrossEntropy(
        time_axis=-1, readout="sqrt_count", moving_window=setting
    ),
    "SpikeLatency": lambda setting: sx.SpikeLatency(true_time=setting, time_axis=-1),
}
ACTIONS = """
addEventListener("load", () => {
  const root = document.getElementById("live"), states = [];
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const rows = [...root.querySelectorAll("svg > g")];
  const times = (kind) => rows.map((row) => [...row.querySelectorAll(`.live-${kind}`)].map(
    (mark) => Number(mark.getAttribute("aria-valuenow"))));
  const spike = (number) => root.querySelectorAll(".live-spikes")[number];
  const send = (to, Kind, name, more) =>
    to.dispatchEvent(new Kind(name, { bubbles: true, ...more }));
  const middle = () => svg.left + svg.width / 2, svg = part("picture").getBoundingClientRect();
  const set = (name, value) => {
    part(name).value = value;
    send(part(name), Event, name === "loss" ? "change" : "input");
  };
  const actions = [
    () => set("control", 3), () => set("control", 11), () => part("add-1").click(),
    () => send(spike(0), KeyboardEvent, "keydown", { key: "ArrowRight" }),
    () => send(root.querySelector(".live-target"), KeyboardEvent, "keydown", { key: "PageUp" }),
    () => send(spike(2), KeyboardEvent, "keydown", { key: "Delete" }),
    () => send(rows[2].querySelector(".live-row"), MouseEvent, "click", { clientX: middle() }),
    () => {
      send(spike(1), PointerEvent, "pointerdown");
      send(window, PointerEvent, "pointermove", { clientX: middle() });
      send(window, PointerEvent, "pointerup");
      send(window, PointerEvent, "pointermove", { clientX: 0 });
    },
    () => send(spike(1), MouseEvent, "dblclick"), () => part("again").click(),
  ];
  for (const loss of [...part("loss").options].map((option) => option.value)) {
    set("loss", loss);
    for (const act of actions) {
      act();
      const [spikes, target] = [times("spikes"), times("target")];
      const setting = Number(part("control").value), result = JSON.parse(root.dataset.result);
      states.push({ loss, setting, spikes, target, ...result });
    }
  }
  document.body.append(Object.assign(document.createElement("pre"), {
    id: "states", textContent: JSON.stringify(states) }));
});
"""


def test_colours_of_the_page_are_those_of_the_pictures():
    pictures = (DOCS / "gallery" / "pictures.py").read_text(encoding="utf-8")
    page = (DOCS / "_static" / "live.css").read_text(encoding="utf-8")
    found = dict(re.findall(r"--live-(\w+): (#\w+);", page))
    for names in ("SPIKES, TARGET, FILTERED", "LOWERS, RAISES"):
        colours = re.search(rf"^{names} = (.*)", pictures, re.M)
        for name, colour in zip(names.split(", "), re.findall(r"#\w+", colours[1]), strict=True):
            assert found.pop(name.lower(), colour) == colour, name
    assert not found


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs Chromium: CONTRIBUTING.md says how to install it")
def test_moving_page_equals_numpy(tmp_path):
    page = (DOCS / "live.html").read_text(encoding="utf-8").replace("_static/", f"{DOCS}/_static/")
    page = f"<!doctype html><meta charset=utf-8>{page}<script>{ACTIONS}</script>"
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    command = [BROWSER, *FLAGS.split(), f"--user-data-dir={tmp_path}", f"{tmp_path}/page.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="states">(.*?)</pre>', shown.stdout, re.S)
    assert found, shown.stdout[-2000:] + shown.stderr[-2000:]

    states = json.loads(html.unescape(found[1]))
    assert [state["loss"] for state in states[::10]] == list(LOSSES)
    distinct = {str(state["spikes"]) for state in states[:10]}
    assert len(distinct) == 7  # each action changes something
    for state in states:
        spikes, targets = np.zeros((2, 1, 3, 60))
        for train, times in ((spikes, state["spikes"]), (targets, state["target"])):
            for neuron in range(3):
                train[0, neuron, times[neuron]] = 1
        loss = LOSSES[state["loss"]](state["setting"])
        target = targets if state["loss"] == "SpikeTime" else [0]
        value, gradient = sx.value_and_grad(loss)(spikes, target)
        np.testing.assert_allclose(state["value"], value, rtol=1e-9)
        np.testing.assert_allclose([state["gradient"]], gradient, rtol=1e-9, atol=1e-9)
