"""The input side: arrays, layouts, masks and labels in the form that a loss computes in."""
