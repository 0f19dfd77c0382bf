"""Losses that take spike times and are differentiable with respect to these times.

The input has shape ``[batch, class]`` or ``[batch, class, spike]``. The spike times of a class may
be in any order. The input has no time axis. NaN and infinity are treated as padding. Options that
hold times, such as `silent_time`, must be in the same unit as the input.

Examples
--------
>>> import numpy as np
>>> import spikeloss_xp as sx
>>> times = np.asarray([[[3.0, 9.0], [5.0, np.inf]]])  # one sample, two classes
>>> loss = sx.times.CrossEntropy(temperature=1.0, silent_time=20.0)
>>> value, gradient = sx.value_and_grad(loss)(times, [0])
>>> gradient.round(3)  # an earlier spike of the labelled class lowers the loss
array([[[ 0.119,  0.   ],
        [-0.119,  0.   ]]])
"""

from spikeloss_xp.times.first_spike import CrossEntropy, SpikeLatency
from spikeloss_xp.times.paired import SpikeTime, VictorPurpura

__all__ = ["CrossEntropy", "SpikeLatency", "SpikeTime", "VictorPurpura"]
