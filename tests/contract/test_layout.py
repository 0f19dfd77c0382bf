"""The axes of an input: batch, neurons and time."""

import pytest

from spikeloss_xp._input.prepared import Layout


@pytest.mark.parametrize(
    ("shape", "axis", "batch", "classes", "steps", "per_step", "per_class"),
    [
        ((2, 3, 5), -1, 2, 3, 5, (2, 5), (2, 3, 5)),
        ((2, 3, 5), 0, 3, 5, 2, (2, 3), (2, 3, 5)),
        ((2, 3, 5), 1, 2, 5, 3, (2, 3), (2, 3, 5)),
        ((2, 3, 4, 5), -1, 2, 12, 5, (2, 5), (2, 12, 5)),
        ((2, 3, 4, 5), 0, 3, 20, 2, (2, 3), (2, 3, 20)),
        ((2, 3, 4, 5), 1, 2, 20, 3, (2, 3), (2, 3, 20)),
        ((2, 3, 4, 5), 2, 2, 15, 4, (2, 4), (2, 15, 4)),
        ((2, 3, 4, 5), -3, 2, 20, 3, (2, 3), (2, 3, 20)),
        ((2, 5), -1, 2, 1, 5, (2, 5), (2, 1, 5)),
        ((2, 5), 0, 5, 1, 2, (2, 5), (2, 5, 1)),
    ],
)
def test_layout_splits_a_shape_into_batch_neurons_and_steps(
    shape, axis, batch, classes, steps, per_step, per_class
):
    layout = Layout.of(shape, axis, "input")
    assert (layout.batch, layout.neurons, layout.steps) == (batch, classes, steps)
    assert layout.with_time(batch) == per_step
    assert layout.with_time(batch, classes) == per_class
