"""The modules that stand in for lava-dl's losses, beside the lines that the documentation gives."""

import pytest
from side_by_side import both, documented, evaluated, generator, labels, torch, trains

import spikeloss_xp as sx
from spikeloss_xp import slayer


@pytest.mark.parametrize(("there", "here"), documented("lava-dl"))
def test_the_table_of_the_documentation(there, here):
    shape = (4, 3, 20)
    names = {"slayer": slayer, "sx": sx, "y": labels(3, (4,))}
    names |= {"hot": torch.rand(shape[:2], generator=generator(3)) < 0.5}
    names |= {"desired": (torch.rand(shape, generator=generator(4)) < 0.3).float()}
    both(
        *(lambda x, line=line: evaluated(line, names | {"x": x}) for line in (there, here)),
        trains(shape),
    )
