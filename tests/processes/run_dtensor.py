"""Evaluate losses of distributed tensors in two processes: ``run_dtensor.py FOLDER``."""

import pickle
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh
from torch.distributed.tensor.debug import CommDebugMode

import spikeloss_xp as sx


def evaluate(batch, mesh, axis, kind):
    """Return value, gradient, the gradient of `value_and_grad`, and the numbers of collectives.

    The spikes are sharded along an axis, or the same in each process if it is None.
    """

    def distributed(values, axis):
        placement = Replicate() if axis is None else Shard(axis)
        return distribute_tensor(torch.asarray(values), mesh, [placement])

    x = distributed(batch.spikes, axis).requires_grad_()
    target, options = () if batch.target is None else (batch.target,), batch.options
    if kind == "distributed":
        target = tuple(distributed(y, axis) for y in target)
        options = {name: distributed(value, None) for name, value in options.items()}
    with CommDebugMode() as forward:
        value = batch.loss(x, *target, **options)
    with CommDebugMode() as backward:
        value.sum().backward()
    assert isinstance(value, DTensor)
    cotangent = {"cotangent": torch.ones(value.shape)} if value.ndim else {}
    _, native = sx.value_and_grad(batch.loss)(x.detach(), *target, **options, **cotangent)
    whole = [tensor.detach().full_tensor().numpy() for tensor in (value, x.grad, native)]
    counts = [
        {str(kind).rpartition(".")[2]: number for kind, number in mode.get_comm_counts().items()}
        for mode in (forward, backward)
    ]
    return (*whole, *counts)


def main(rank, folder):
    batches = pickle.loads((folder / "batches.pickle").read_bytes())
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    found = {}
    for name, (batch, axis, kind) in batches.items():
        try:
            found[name] = evaluate(batch, mesh, axis, kind)
        except ValueError as error:
            found[name] = str(error)
    (folder / f"results-{rank}.pickle").write_bytes(pickle.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.multiprocessing.start_processes(main, (folder,), nprocs=2, start_method="fork")
