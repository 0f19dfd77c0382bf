"""Convert inputs, masks and labels to the form that losses use for computation."""
