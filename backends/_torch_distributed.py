"""Support for PyTorch's distributed tensors: each process evaluates a loss on its own part."""

from typing import Any

import torch

from spikeloss_xp._typing import Axes, ChunkFunction, Sums
from spikeloss_xp.backends import _torch_state
from spikeloss_xp.primitives import map_arrays


def is_distributed(x: torch.Tensor) -> bool:
    """Return whether a tensor is a `DTensor`, without importing the class."""
    return type(x) not in _torch_state.PLAIN and type(x).__name__ == "DTensor"


def replicated(x: torch.Tensor, like: Any) -> torch.Tensor:
    """Return `x` as a `DTensor` that is replicated over the mesh of `like`.

    If `like` is not a `DTensor`, or if `x` already is a `DTensor`, return `x` itself.
    """
    if not is_distributed(like) or is_distributed(x):
        return x
    from torch.distributed.tensor import DTensor, Replicate

    everywhere = [Replicate()] * like.device_mesh.ndim
    return DTensor.from_local(x, like.device_mesh, everywhere, run_check=False)


def map_local(function: ChunkFunction, arrays: Any, axes: Axes) -> Sums:
    """Evaluate a function on each process's part of the arrays, and add the sums of all processes.

    If all arrays are distributed in the same way, the processes exchange only the sums.
    """
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    x = arrays[0]
    mesh, placements = x.device_mesh, x.placements
    for placement in placements:
        if not isinstance(placement, Replicate) and getattr(placement, "dim", None) not in axes:
            raise ValueError(
                "input must be replicated or sharded along its samples, because a term depends on "
                f"all entries of a sample; got a DTensor with the placement {placement}: call its "
                "redistribute method first"
            )

    def local(y: Any) -> Any:
        own = [  # arrays that are shared by all samples are replicated
            p if isinstance(p, Shard) and y.shape[p.dim] == x.shape[p.dim] else Replicate()
            for p in placements
        ]
        return y.redistribute(mesh, own).to_local()

    added = [Partial() if isinstance(p, Shard) else Replicate() for p in placements]
    everywhere = [Replicate()] * mesh.ndim

    def total(part: Any) -> Any:
        part = torch.as_tensor(part, dtype=x.dtype, device=x.device)
        return DTensor.from_local(part, mesh, added, run_check=False).redistribute(mesh, everywhere)

    sums, _ = function(*map_arrays(local, arrays))
    return map_arrays(total, sums), None
