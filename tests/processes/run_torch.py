"""Evaluate the PyTorch recipes in two processes: ``run_torch.py FOLDER``.

Each process writes its losses and gradients: the loss of the whole is the mean of the losses.
"""

import pickle
import sys
from pathlib import Path

import in_torch
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

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


def evaluate(model, part, recipe):
    """Return value and gradient of one process, after its backward pass."""
    model.zero_grad()
    spikes, *target, options = tensors(part)
    value = recipe(part.loss, model(spikes), *target, **options)
    value.backward()
    return found(value, model)


def accumulated(model, parts):
    """Return value and gradient of one process, after those of its micro-batches."""
    model.zero_grad()
    micro_batches = [tensors(part) for part in parts]
    return found(in_torch.accumulate_distributed(parts[0].loss, model, micro_batches), model)


def found(value, model):
    """Return a value and the gradient in the parameters, as arrays."""
    (gradient,) = (p.grad for p in model.parameters())
    whole = getattr(gradient, "full_tensor", lambda: gradient)()
    return value.detach().numpy(), whole.numpy(force=True).copy()


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
    for kind, batches in pickle.loads((folder / "batches.pickle").read_bytes()).items():
        for name, batch in batches.items():
            recipe = (
                in_torch.distributed if batch.target is not None else in_torch.distributed_sparsity
            )
            model = models[kind][batch.spikes.shape[1]]
            part = batch.part(PARTS[rank])
            if kind == "accumulated":
                parts = [part.part(slice(0, 1)), part.part(slice(1, None))]
                results[kind, name] = accumulated(model, parts)
            else:
                results[kind, name] = evaluate(model, part, recipe)
    (folder / f"results-{rank}.pickle").write_bytes(pickle.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.multiprocessing.start_processes(main, (folder,), nprocs=2, start_method="fork")
