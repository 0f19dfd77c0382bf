"""Handwritten digits as random spikes, for the programs of docs/quickstart.md."""

import numpy as np
from sklearn.datasets import load_digits

pixels, labels = load_digits(return_X_y=True)
chance = np.random.default_rng(0).random((20, *pixels.shape))
spikes = (chance < pixels / 16).astype(np.float32)  # [time, sample, pixel]
