"""Numbers that change how fast the library is, and no result. Each was measured on two CPU cores.

Each number has a comment with the measurement that it comes from. To measure it again, with several
values side by side, on the rows of the benchmark whose names contain PATTERN::

    python tools/benchmarks/table.py PATTERN --tune NAME VALUE [VALUE ...]
"""

# Chunks: entries that are evaluated at a time, so that intermediates stay in a cache.
# Of a filter and of a loss on NumPy, and of a block of Dask: losses took 0.99 to 1.00 times as long
# with half of it, and 1.12 to 1.29 times with twice as much.
CHUNK = 1 << 18
# Of a filter and of a loss on PyTorch: 1.03 to 1.17 times as long with half, 1.5 to 1.7 with twice.
AUTOGRAD_CHUNK = 1 << 19
COMPILED_CHUNK = 1 << 20  # of a loss that JAX compiles
COMPILED_LARGE = 3 << 20  # chunks took 1.3 times as long at 2.6e6 entries, and 0.4 times at 3.2e6
# Of the traces and the products of distances: those of 8,000 trains need 1.3 times the memory of
# the result, and those of 4,000 trains 2.2 times.
PAIRS_CHUNK = 1 << 22
EDITS_CHUNK = 1 << 16  # of an anti-diagonal of the table of edit costs

# How PyTorch evaluates and filters eagerly.
CHUNKED_FILTER = 1 << 17  # entries from which a filter in chunks is worth its overhead

# The block filter.
SHORT_WINDOW, WINDOW_BLOCK = 64, 32  # a window up to which a sum takes products of so many steps
WIDE_SUM = 1 << 15  # entries after a first axis from which JAX sums over it by a product
FEW_BLOCKS = 10  # products up to which JAX and PyTorch take them: JAX compiles many for a second
# Trains from which PyTorch takes more products: a loss of 200 trains took 1.3 times as long.
TRAINS_IN_BLOCKS = 512
ONE_MATRIX = 64  # steps up to which one matrix filters all of time: longer sums round too much
NEARBY = 256  # the same, where the sums of only a few blocks reach each block
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 64  # block lengths for which matrix products are efficient
CARRIED = 512  # sums up to which one matrix carries them all
CACHED_BYTES = 1 << 25  # of matrices that are kept for the next call
SMALLEST_TOEPLITZ, LARGEST_TOEPLITZ = 32, 128  # block lengths for a kernel of given taps

# First spikes: steps of a group, if no number of steps in `GROUPS` divides the duration.
GROUP, LARGEST_GROUP = 8, 16
GROUPS = (8, 10, 12, 9, 16, 11, 13, 14, 15, 7, 6, 5)  # in the order in which they are tried

# Steps up to which NumPy's `einsum` sums faster than its `sum`, and errs less. Up to 2,048 steps it
# takes 0.86 times as long, but errs more.
SHORT_SUM = 512
