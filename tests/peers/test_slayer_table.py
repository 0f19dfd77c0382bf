"""Compare the `slayer` modules with the equivalents that the migration table gives for them."""

import pytest

import spikeloss_xp as sx
from _support.side_by_side import (
    assert_match,
    evaluate_line,
    generator,
    labels,
    table_rows,
    torch,
    trains,
)
from spikeloss_xp import slayer


@pytest.mark.parametrize(("there", "here"), table_rows("lava-dl"))
def test_migration_table_rows_match(there, here):
    shape = (4, 3, 20)
    names = {"slayer": slayer, "sx": sx, "y": labels(3, (4,))}
    names |= {"hot": torch.rand(shape[:2], generator=generator(3)) < 0.5}
    names |= {"desired": (torch.rand(shape, generator=generator(4)) < 0.3).float()}
    assert_match(
        *(lambda x, line=line: evaluate_line(line, names | {"x": x}) for line in (there, here)),
        trains(shape),
    )
