"""Constants that affect the speed of the library but not its results.

The constants were chosen from measurements on two CPU cores. The comments summarise these
measurements. To repeat a measurement, run the following command. It runs the benchmarks whose names
contain PATTERN, once for each VALUE of the constant NAME::

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
# entries. For 5e6 entries, evaluating the loss without chunks was slower by a factor of 2.7 for
# SpikeTime, and by a factor of 3 for losses with a moving window.
COMPILED_CHUNK, COMPILED_LARGE = 1 << 19, 3 << 20
# PAIRS_CHUNK is used for the filtered trains and the products from which the distances between all
# pairs of trains are computed. Computing the distances between 8,000 trains needs 1.3 times as much
# memory as the matrix of distances. For 4,000 trains, the factor is 2.2.
PAIRS_CHUNK = 1 << 22
EDITS_CHUNK = 1 << 16  # used for edit distances, whose table of costs is computed by anti-diagonals
# VictorPurpura needs the cost of moving each spike of one train to each spike of the other train.
# On a CPU, if an anti-diagonal of the table has at most EDITS_AT_ONCE entries, all these costs are
# computed by one array operation. This reduced the run time of VictorPurpura by 20 to 30 %.
EDITS_AT_ONCE = 1 << 11

# A moving sum over at most SHORT_WINDOW steps is computed in blocks of WINDOW_BLOCK steps, with one
# matrix product for each block.
SHORT_WINDOW, WINDOW_BLOCK = 64, 32
# On a CPU, JAX computes sums along the first axis as matrix products if the result has at least
# this many entries.
WIDE_SUM = 1 << 15
# JAX and PyTorch compute a moving sum one block at a time if there are at most this many blocks.
# For more blocks, JAX would take about a second to compile the matrix products.
FEW_BLOCKS = 10
# If there are more than FEW_BLOCKS blocks, PyTorch computes a moving sum one block at a time only
# if there are at least this many trains. For 200 trains, computing the sum one block at a time made
# a loss slower by a factor of 1.3.
TRAINS_IN_BLOCKS = 512
# If an array has at most this many time steps, it is filtered by multiplying it by a single matrix.
# With a larger matrix, each output would be a sum over more steps, and its rounding error would be
# larger.
ONE_MATRIX = 64
# The range of block lengths, in time steps, of the filter with an exponential kernel.
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 64
CARRIED = 512  # largest number of sums that a single matrix carries to later blocks
# The range of block lengths, in time steps, of the filter with given taps.
SMALLEST_TOEPLITZ, LARGEST_TOEPLITZ = 32, 128

# To compute first-spike latencies, time steps are merged into groups. If there are at most
# LARGEST_GROUP steps, all steps form one group. Otherwise, the steps are split into groups of equal
# length. This length is the first entry of GROUPS that divides the number of steps without a
# remainder. If no entry of GROUPS divides the number of steps, the length is GROUP, and the last
# group is padded.
GROUP, LARGEST_GROUP = 8, 16
GROUPS = (8, 10, 12, 9, 16, 11, 13, 14, 15, 7, 6, 5)

# For NumPy arrays, sums over at most this many time steps are computed with `einsum`, which is then
# both faster and more accurate than `sum`. For longer sums of up to 2,048 steps, `einsum` takes
# 0.86 times as long as `sum`, but `einsum` is less accurate than `sum`.
SHORT_SUM = 512
