"""Distances between all pairs of spike trains.

`van_rossum` and `similarity` compare binned trains, or lists of spike times with ``times=True``.
`value_and_grad` computes the gradients of these two functions in every library. `victor_purpura`
and `coincidence_factor` compare lists of spike times.

Examples
--------
>>> import numpy as np
>>> import spikeloss_xp as sx
>>> trains = np.zeros((3, 100), dtype=bool)  # [train, time]
>>> trains[1, 20] = trains[2, 21] = True
>>> sx.distances.van_rossum(trains, time_constant=10).round(3)
array([[0.   , 1.   , 1.   ],
       [1.   , 0.   , 0.436],
       [1.   , 0.436, 0.   ]])
"""

from spikeloss_xp.distances._edit_distances import coincidence_factor, victor_purpura
from spikeloss_xp.distances._kernel_metrics import similarity, van_rossum

__all__ = ["coincidence_factor", "similarity", "van_rossum", "victor_purpura"]
