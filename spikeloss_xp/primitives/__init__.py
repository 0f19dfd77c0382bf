"""Arithmetic on arrays that knows no loss: kernels, the block filter, survival products."""
