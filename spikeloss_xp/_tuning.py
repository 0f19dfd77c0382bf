"""Constants that affect the speed of the library but not its results.

The constants were chosen from measurements on two CPU cores. To repeat a measurement, run the
following command. The command runs the benchmarks whose names contain PATTERN, once for each VALUE
of the constant NAME::

    python tools/benchmarks/daily.py PATTERN --tune NAME VALUE [VALUE ...]
"""

# Large arrays are evaluated in chunks, so that intermediate arrays fit in the cache of the CPU. The
# constants whose names contain CHUNK give the number of entries in a chunk.
# CHUNK is used for losses on NumPy arrays, and for each block of a Dask array. With chunks of half
# this size, the run time of losses changed by at most 1 %. With chunks of twice this size, losses
# were slower by a factor of 1.12 to 1.29.
CHUNK = 1 << 18
AUTOGRAD_CHUNK = 1 << 19  # the number of entries in a chunk of a PyTorch tensor
# COMPILED_CHUNK is used for losses that JAX compiles, if the array has at least COMPILED_LARGE
# entries. Without chunks, losses on 5e6 entries were about three times slower.
COMPILED_CHUNK, COMPILED_LARGE = 1 << 19, 3 << 20
# PAIRS_CHUNK is used to compute the distances between all pairs of trains. For 8,000 trains, the
# computation needs 1.3 times as much memory as the matrix of distances.
PAIRS_CHUNK = 1 << 22
EDITS_CHUNK = 1 << 16  # the number of entries in a chunk for edit distances
# On a CPU, VictorPurpura computes all costs of moving spikes in one array operation if an
# anti-diagonal of its table has at most EDITS_AT_ONCE entries. This reduced the run time by 20 to
# 30 %.
EDITS_AT_ONCE = 1 << 11

# A moving sum over at most SHORT_WINDOW steps is computed in blocks of WINDOW_BLOCK steps, with one
# matrix product for each block.
SHORT_WINDOW, WINDOW_BLOCK = 64, 32
# On a CPU, JAX computes sums along the first axis as matrix products if the result has at least
# WIDE_SUM entries.
WIDE_SUM = 1 << 15
# JAX and PyTorch compute a moving sum one block at a time if there are at most FEW_BLOCKS blocks.
# For more blocks, JAX would take about a second to compile the matrix products.
FEW_BLOCKS = 10
# For more than FEW_BLOCKS blocks, PyTorch does so only for TRAINS_IN_BLOCKS trains or more. For 200
# trains, a loss with blocks was slower than a loss without blocks by a factor of 1.3.
TRAINS_IN_BLOCKS = 512
# Arrays with at most ONE_MATRIX time steps are filtered with a single matrix. With a larger matrix,
# the rounding errors would be larger.
ONE_MATRIX = 64
# The shortest and the longest block, in time steps, of the filter with an exponential kernel.
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 64
CARRIED = 512  # the largest number of weighted sums that a single matrix filters
# The shortest and the longest block, in time steps, of the filter with any other kernel.
SMALLEST_TOEPLITZ, LARGEST_TOEPLITZ = 32, 128

# To compute first-spike latencies, time steps are merged into groups. Up to LARGEST_GROUP steps
# form one group. More steps are split into groups of equal length. This length is the first entry
# of GROUPS that divides the number of steps. If there is no such entry, the length is GROUP, and
# the last group is padded.
GROUP, LARGEST_GROUP = 8, 16
GROUPS = (8, 10, 12, 9, 16, 11, 13, 14, 15, 7, 6, 5)

# For NumPy arrays, sums over at most SHORT_SUM time steps are computed with `einsum`, which is
# faster than `sum`. For longer sums, `einsum` is less accurate than `sum`.
SHORT_SUM = 512
