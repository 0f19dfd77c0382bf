"""Compare with SpikingJelly 2.0.0, if it is installed."""

import pytest

from _support.side_by_side import (
    assert_match,
    evaluate_line,
    import_peer,
    labels,
    potentials,
    table_rows,
    torch,
    trains,
)

jelly = import_peer("spikingjelly.activation_based.functional")

import spikeloss_xp as sx

SHAPES = [(20, 4, 3), (8, 1, 10), (100, 16, 2), (1, 5, 5)]  # [time, batch, class]


@pytest.mark.parametrize(("there", "here"), table_rows("SpikingJelly"))
def test_migration_table_rows_match(there, here):
    names = {"functional": jelly, "F": torch.nn.functional, "sx": sx, "C": 3}
    names |= {"y": labels(3, (4,))}
    assert_match(
        *(lambda x, line=line: evaluate_line(line, names | {"x": x}) for line in (there, here)),
        trains((20, 4, 3)),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("input", [trains, potentials])
def test_temporal_efficient_training_matches(shape, input):
    label = labels(shape[2], shape[1:2])
    ours = sx.SpikeMax(1, "softmax", "mean", time_axis=0)
    assert_match(
        lambda x: jelly.temporal_efficient_training_cross_entropy(x, label),
        lambda x: ours(x, label),
        input(shape, torch.float64),
    )


def test_temporal_efficient_training_matches_for_spatial_labels():
    # SpikingJelly takes the spatial axes last; this library takes each location as a sample.
    potential, label = potentials((6, 2, 3, 4, 5), torch.float64), labels(3, (2, 4, 5))
    ours = sx.SpikeMax(1, "softmax", "mean", time_axis=0)
    assert_match(
        lambda x: jelly.temporal_efficient_training_cross_entropy(x, label),
        lambda x: ours(x.movedim(2, -1).flatten(1, 3), label.flatten()),
        potential,
    )
