"""Draw the network of the guide "Initialisation" before and after it is scaled.

``python docs/gallery/initialisation.py`` runs the first example of the guide until it scales the
network, and writes docs/images/initialisation.png.
"""

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import spikeloss_xp as sx
from spikeloss_xp.torch import record, scale_network

DOCS = Path(__file__).parents[1]
GUIDE, PATH = (
    DOCS / "guides" / "initialisation.md",
    DOCS / "images" / "initialisation.png",
)


def example() -> tuple[torch.nn.Module, torch.Tensor]:
    """Return the network and the inputs of the first example."""
    code = (
        GUIDE.read_text(encoding="utf-8")
        .split("```python\n")[1]
        .partition("factors =")[0]
    )
    found: dict[str, Any] = {}
    exec(code, found)
    return found["network"], found["inputs"]


def report_of(network: torch.nn.Module, inputs: torch.Tensor) -> Any:
    """Return the report on one batch, with labels that are drawn at random."""
    loss, labels = sx.CrossEntropy(time_axis=0), torch.arange(inputs.shape[1]) % 10
    network.zero_grad()
    with record(network) as seen:
        spikes = network(inputs)
    loss(spikes, labels).backward()
    return sx.diagnose(
        loss, spikes, labels, hidden=seen.hidden, gradients=seen.gradients
    )


def main() -> None:
    """Write the figures of both reports, one below the other."""
    network, inputs = example()
    images = []
    for title in ("Before", "After"):
        figure = report_of(network, inputs).plot()
        figure.suptitle(f"{title} scaling")
        stream = io.BytesIO()
        figure.savefig(stream, dpi=130)
        images.append(Image.open(stream))
        scale_network(network, lambda: network(inputs))
    width, height = images[0].size
    whole = Image.new("RGB", (width, 2 * height), "white")
    for row, image in enumerate(images):
        whole.paste(image, (0, row * height))
    whole.save(PATH)


if __name__ == "__main__":
    main()
