"""Constants that affect the speed of the library but not its results.

They were chosen from measurements on two CPU cores; the comments summarise these measurements. To
repeat a measurement, try several values in turn on the benchmark rows whose names contain PATTERN::

    python tools/benchmarks/daily.py PATTERN --tune NAME VALUE [VALUE ...]
"""

# Large arrays are evaluated in chunks, so that intermediate arrays stay in a cache. The constants
# give the number of entries in a chunk.
# CHUNK is used for losses on NumPy, and for Dask's blocks. Compared with this size, losses took
# 0.99 to 1.00 times as long with chunks half as large, and 1.12 to 1.29 times as long with chunks
# twice as large.
CHUNK = 1 << 18
AUTOGRAD_CHUNK = 1 << 19  # used for losses on PyTorch
# COMPILED_CHUNK is used for losses that JAX compiles, if the array has at least COMPILED_LARGE
# entries. Without chunks, SpikeTime took 2.7 times as long for 5e6 entries, and windows 3 times.
COMPILED_CHUNK, COMPILED_LARGE = 1 << 19, 3 << 20
# PAIRS_CHUNK is used for the traces and products from which distances are computed. Computing the
# distances between 8,000 trains needs 1.3 times as much memory as the result, and computing the
# distances between 4,000 trains needs 2.2 times as much.
PAIRS_CHUNK = 1 << 22
EDITS_CHUNK = 1 << 16  # used for the anti-diagonals of the table of edit costs
# On a CPU, the prices of all matches are computed together if an anti-diagonal has at most
# EDITS_AT_ONCE entries. VictorPurpura then took 0.7 to 0.8 times as long.
EDITS_AT_ONCE = 1 << 11

# The block filter: SHORT_WINDOW is the longest window that is summed by one matrix product per
# block, and WINDOW_BLOCK is the number of steps in each of these blocks.
SHORT_WINDOW, WINDOW_BLOCK = 64, 32
# On a CPU, JAX sums along the first axis with matrix products if there are at least this many sums.
WIDE_SUM = 1 << 15
# JAX and PyTorch compute a moving sum one block at a time if there are at most this many blocks.
# For many blocks, JAX would take about a second to compile the matrix products.
FEW_BLOCKS = 10
# If there are more than FEW_BLOCKS blocks, PyTorch computes a moving sum one block at a time only
# if there are at least this many trains. For 200 trains, computing the sum one block at a time made
# a loss 1.3 times slower.
TRAINS_IN_BLOCKS = 512
# A single matrix filters up to this many steps. For more steps, the sums in its matrix product
# would have more terms and larger rounding errors.
ONE_MATRIX = 64
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 64  # block lengths for which matrix products are efficient
CARRIED = 512  # one matrix carries at most this many sums to later blocks
SMALLEST_TOEPLITZ, LARGEST_TOEPLITZ = 32, 128  # block lengths for kernels that are given as taps

# To compute first-spike latencies, time steps are merged into groups. If there are at most
# LARGEST_GROUP steps, all steps form one group. Otherwise, the steps are split into groups of equal
# length. The length is the first entry of GROUPS that divides the number of steps without a
# remainder. If no entry of GROUPS does, the length is GROUP, and the last group is padded.
GROUP, LARGEST_GROUP = 8, 16
GROUPS = (8, 10, 12, 9, 16, 11, 13, 14, 15, 7, 6, 5)

# NumPy sums up to this many steps with `einsum`. Up to this limit, `einsum` is both faster and more
# accurate than `sum`. For longer sums of up to 2,048 steps, `einsum` takes 0.86 times as long as
# `sum`, but it is less accurate.
SHORT_SUM = 512
