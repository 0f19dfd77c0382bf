"""Array arithmetic that is independent of losses: kernels, block filters, survival products."""
