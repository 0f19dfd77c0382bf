"""Convert inputs, masks and labels to the form that a loss computes in."""
