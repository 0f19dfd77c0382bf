"""Draw a spike that moves through time, for the home page: ``python docs/gallery/moving.py``.

Each picture is an SVG file with one frame for each step. The frames stand side by side, and an
animation shows one after the other. Where the reader prefers less motion, one frame is shown.
"""

from pathlib import Path

import numpy as np
from pictures import FILTERED, INK, LOWERS, RAISES, TARGET

import spikeloss_xp as sx

FOLDER = Path(__file__).parents[1] / "images"
# The dark theme has lighter colours: each has a contrast of at least 4.5 with the background.
NAMES = "INK", "TARGET", "FILTERED", "LOWERS", "RAISES"
THEMES = {
    "light": (INK, TARGET, FILTERED, LOWERS, RAISES),
    "dark": ("#ced6dd", "#2fae7f", "#b18ae0", "#4f9be0", "#ef7d36"),
}
STEPS, TIME_CONSTANT = 60, 5
TARGET_TIMES = [16, 42]
STILL = 24  # the frame without motion
SECONDS = 6  # from the first frame to the last

WIDTH, HEIGHT, LEFT, STEP = 480, 232, 66, 6.8
TITLE_AT, SPIKES_AT, TRACE_AT, STRIP_AT, CURVE_AT = 16, 48, 116, 128, 220
TRACE_HEIGHT, STRIP_HEIGHT, CURVE_HEIGHT = 42, 14, 56

STYLE = f"""\
text {{ font: 14px system-ui, sans-serif; fill: INK }}
.value {{ font-weight: bold; text-anchor: end }}
path, circle {{ fill: none; stroke-width: 2 }}
.spike {{ stroke: INK; stroke-width: 3 }}
.target {{ stroke: TARGET }}
.dashed {{ stroke-dasharray: 5 4 }}
.filtered {{ stroke: FILTERED }}
.curve {{ stroke: INK; opacity: 0.45 }}
.dot {{ fill: INK }}
.lowers, .raises {{ stroke-width: {STRIP_HEIGHT} }}
.lowers {{ stroke: LOWERS }}
.raises {{ stroke: RAISES }}
.frames {{ animation: frames {SECONDS}s steps({STEPS}, jump-none) infinite alternate }}
@keyframes frames {{ to {{ transform: translate({-(STEPS - 1) * WIDTH}px) }} }}
@media (prefers-reduced-motion: reduce) {{
  .frames {{ animation: none; transform: translate({-STILL * WIDTH}px) }}
}}"""


def evaluate():
    """Return the filtered target, and for each time of the spike what the loss reads and returns.

    These are the filtered spikes and the gradients, ``[time of the spike, step]``, and the values.
    """
    kernel = sx.exponential_kernel(time_constant=TIME_CONSTANT, length=STEPS)
    evaluate_loss = sx.value_and_grad(
        sx.SpikeTime(time_constant=TIME_CONSTANT, time_axis=-1, reduction="sum")
    )
    spikes, target = np.eye(STEPS), np.zeros(STEPS)
    target[TARGET_TIMES] = 1
    results = [
        evaluate_loss(train[None, None], target[None, None]) for train in spikes
    ]
    values = np.asarray([value for value, _ in results])
    gradients = np.asarray([gradient[0, 0] for _, gradient in results])
    return (
        sx.causal_filter(target, kernel, time_axis=-1),
        sx.causal_filter(spikes, kernel, time_axis=-1),
        values,
        gradients,
    )


def x(step):
    """Return the middle of a step, in pixels."""
    return LEFT + (step + 0.5) * STEP


def curve(kind, heights, bottom):
    """Return a line with a height above `bottom` at each step."""
    points = (
        f"{x(step):.1f} {bottom - height:.1f}" for step, height in enumerate(heights)
    )
    return f'<path class="{kind}" d="M{"L".join(points)}"/>'


def strip(gradient, largest):
    """Return the steps in blue and orange, as strong as the gradient."""
    cells = []
    for step, slope in enumerate(gradient / largest):
        strength = f"{abs(slope):.2f}"
        if float(strength):
            start = f"M{x(step - 0.5):.1f} {STRIP_AT + STRIP_HEIGHT / 2:g}h{STEP}"
            kind = "lowers" if slope < 0 else "raises"
            cells.append(f'<path class="{kind}" opacity="{strength}" d="{start}"/>')
    return "".join(cells)


def draw(colours):
    """Return the picture in the colours of a theme, in the order of `NAMES`."""
    style = STYLE
    for name, colour in zip(NAMES, colours, strict=True):
        style = style.replace(name, colour)
    target, filtered, values, gradients = evaluate()
    trace_unit = TRACE_HEIGHT / filtered.max()
    losses = CURVE_HEIGHT * values / values.max()
    rows = {
        "spike": SPIKES_AT,
        "filtered": TRACE_AT - 16,
        "gradient": STRIP_AT + 7,
        "loss": CURVE_AT - 28,
    }
    names = [f'<text y="{y + 5}">{name}</text>' for name, y in rows.items()]
    title = f'<text x="{LEFT}" y="{TITLE_AT}">SpikeTime</text>'
    circles = [
        f'<circle class="target" cx="{x(t):.1f}" cy="{SPIKES_AT}" r="8"/>'
        for t in TARGET_TIMES
    ]
    aim = curve("target dashed", trace_unit * target, TRACE_AT)
    frames = [
        f'<g transform="translate({step * WIDTH})">'
        f'<text class="value" x="{WIDTH - 10}" y="{TITLE_AT}">loss {values[step]:.2f}</text>'
        f'<path class="spike" d="M{x(step):.1f} {SPIKES_AT - 13}v26"/>'
        + curve("filtered", trace_unit * filtered[step], TRACE_AT)
        + strip(gradients[step], np.abs(gradients).max())
        + f'<circle class="dot" cx="{x(step):.1f}" cy="{CURVE_AT - losses[step]:.1f}" r="5"/></g>'
        for step in range(STEPS)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
            f"<style>\n{style}\n</style>",
            *(title, *names, *circles, aim, curve("curve", losses, CURVE_AT)),
            *('<g class="frames">', *frames, "</g>", "</svg>", ""),
        ]
    )


def main():
    """Write a picture for each theme."""
    for theme, colours in THEMES.items():
        (FOLDER / f"moving-{theme}.svg").write_text(draw(colours), encoding="utf-8")


if __name__ == "__main__":
    main()
