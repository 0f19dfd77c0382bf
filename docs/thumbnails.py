"""Pictures of the gallery's index, with letters that can be read in a small picture."""

import re
from pathlib import Path

from sphinx_gallery.scrapers import matplotlib_scraper
from sphinx_gallery.utils import scale_image

SCALE = 0.6  # of the size of a figure, whose letters stay as large as they are
MAIN = re.compile(r"^# sphinx_gallery_thumbnail_number = (\d+)$", re.MULTILINE)


def main_number(script):
    """Return which picture of an example stands for it, counted from 1."""
    found = MAIN.search(Path(script).read_text(encoding="utf-8"))
    return int(found[1]) if found else 1


def scrape(block, block_vars, gallery_conf):
    """Save the pictures of a block, and a small version of the main picture."""
    from matplotlib import (
        pyplot as plt,
    )  # which the gallery reloads for each example

    script, before = block_vars["src_file"], len(block_vars["image_path_iterator"])
    for number, figure in enumerate(
        map(plt.figure, plt.get_fignums()), start=before + 1
    ):
        if number == main_number(script):
            size = figure.get_size_inches()
            small = Path(block_vars["target_file"]).parent / "images" / "small"
            small.mkdir(parents=True, exist_ok=True)
            figure.set_size_inches(SCALE * size)
            figure.savefig(small / Path(script).with_suffix(".png").name, dpi=220)
            figure.set_size_inches(size)
    return matplotlib_scraper(block, block_vars, gallery_conf)


def replace(app):
    """Put the small versions in place of the thumbnails of the gallery."""
    width, height = app.config.sphinx_gallery_conf["thumbnail_size"]
    images = Path(app.srcdir, "auto_gallery", "images")
    for picture in images.glob("small/*.png"):
        thumbnail = images / "thumb" / f"sphx_glr_{picture.stem}_thumb.png"
        scale_image(picture, thumbnail, width, height)
