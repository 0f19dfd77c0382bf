"""Pictures of the gallery's index: parts of the pictures, in which letters can be read."""

import re
from pathlib import Path

from matplotlib.transforms import Bbox
from sphinx_gallery.scrapers import matplotlib_scraper
from sphinx_gallery.utils import scale_image

PARTS = {  # of an example: which picture, which of its panels, and the scale of the figure
    "plot_decoded_signal": (3, (2,), 1),
    "plot_digits": (2, (0,), 1),
    "plot_distances": (3, (1,), 0.75),
    "plot_does_not_learn": (1, (0,), 0.75),
    "plot_early_answers": (2, (0,), 1),
    "plot_event_based_training": (2, (2, 3), 1),
    "plot_large_recording": (2, (0, 1, 2, 3), 0.6),
    "plot_model_against_recording": (2, (0,), 1),
    "plot_models_of_recordings": (3, (1, 3), 1),
    "plot_own_loss": (1, (2, 4), 1),
    "plot_pull_of_a_spike": (1, (1,), 1),
    "plot_recorded_neurons": (3, (2, 3), 1),
    "plot_spike_pattern": (3, (3,), 1),
    "plot_what_a_loss_sees": (1, (0, 1), 0.8),
}
MAIN = re.compile(r"^# sphinx_gallery_thumbnail_number = (\d+)$", re.MULTILINE)


def main_number(script):
    """Return which picture comes first on the page of an example, counted from 1."""
    found = MAIN.search(Path(script).read_text(encoding="utf-8"))
    return int(found[1]) if found else 1


def scrape(block, block_vars, gallery_conf):
    """Save the pictures of a block, and the part of one that stands for the example."""
    from matplotlib import (
        pyplot as plt,
    )  # which the gallery reloads for each example

    example, before = (
        Path(block_vars["src_file"]),
        len(block_vars["image_path_iterator"]),
    )
    wanted, panels, scale = PARTS.get(example.stem, (None, (), 1))
    for number, figure in enumerate(
        map(plt.figure, plt.get_fignums()), start=before + 1
    ):
        if number == wanted:
            images = Path(block_vars["target_file"]).parent / "images"
            save_part(
                figure, panels, scale, images / "parts" / f"{example.stem}.png"
            )
    return matplotlib_scraper(block, block_vars, gallery_conf)


def save_part(figure, panels, scale, path):
    """Save some panels of a figure, which is drawn smaller, with letters of the same size."""
    size = figure.get_size_inches()
    figure.set_size_inches(scale * size)
    figure.canvas.draw()  # decides where the panels are
    box = Bbox.union([figure.axes[panel].get_tightbbox() for panel in panels])
    box = box.transformed(figure.dpi_scale_trans.inverted()).padded(0.03)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches=box, dpi=840 / box.width)
    figure.set_size_inches(size)


def replace(app):
    """Put these parts in place of the thumbnails of the gallery."""
    images = Path(app.srcdir, "auto_gallery", "images")
    for part in images.glob("parts/*.png"):
        thumbnail = images / "thumb" / f"sphx_glr_{part.stem}_thumb.png"
        scale_image(
            part, thumbnail, *app.config.sphinx_gallery_conf["thumbnail_size"]
        )
