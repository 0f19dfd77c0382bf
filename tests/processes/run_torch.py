"""Evaluate the PyTorch recipes and `DTensor` in two processes: ``run_torch.py FOLDER``."""

import pickle
import sys
from pathlib import Path

import in_torch
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

import spikeloss_xp as sx
from _support.split import PARTS, mixed, mixing


class Model(torch.nn.Module):
    """The matrix that mixes the neurons."""

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.asarray(mixing(neurons)))

    def forward(self, spikes):
        return mixed(self.matrix, spikes)


def tensors(part):
    """Return the spikes, the target, if any, and the options of a part, as tensors."""
    target = () if part.target is None else (torch.asarray(part.target),)
    options = {name: torch.asarray(value) for name, value in part.options.items()}
    return torch.asarray(part.spikes), *target, options


def evaluate(model, part, micro_batches):
    """Return value and gradient of one process, after its backward pass."""
    model.zero_grad()
    if micro_batches:
        parts = [tensors(part.part(samples)) for samples in (slice(0, 1), slice(1, None))]
        value = in_torch.accumulate_distributed(part.loss, model, parts)
    else:
        spikes, *target, options = tensors(part)
        recipe = in_torch.distributed if target else in_torch.distributed_sparsity
        value = recipe(part.loss, model(spikes), *target, **options)
        value.backward()
    (gradient,) = (p.grad for p in model.parameters())
    whole = getattr(gradient, "full_tensor", lambda: gradient)()
    return value.detach().numpy(), whole.numpy(force=True).copy()


def of_distributed(batch, mesh, axis, kind):
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


def main(rank: int, folder: Path) -> None:
    init = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    models = {
        "ddp": {n: DistributedDataParallel(Model(n)) for n in (4, 8)},
        "fsdp": {n: fully_shard(Model(n), mesh=mesh) for n in (4, 8)},
    }
    models["accumulated"] = models["ddp"]
    results = {}
    for (kind, name), (batch, *how) in pickle.loads((folder / "batches.pickle").read_bytes()):
        if kind == "tensor":
            try:
                results[kind, name] = of_distributed(batch, mesh, *how)
            except ValueError as error:
                results[kind, name] = str(error)
        else:
            model, part = models[kind][batch.spikes.shape[1]], batch.part(PARTS[rank])
            results[kind, name] = evaluate(model, part, micro_batches=kind == "accumulated")
    (folder / f"results-{rank}.pickle").write_bytes(pickle.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.multiprocessing.start_processes(main, (folder,), nprocs=2, start_method="fork")
