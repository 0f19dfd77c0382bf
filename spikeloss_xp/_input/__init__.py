"""Check inputs, masks and targets, and convert them to the axes and dtype used by the losses."""
