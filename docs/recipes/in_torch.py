"""PyTorch recipes for batches that are split, as shown in docs/processes.md."""

import contextlib

import torch
import torch.distributed as dist


def divisor(loss, weight):
    """Return the divisor of the total sum, given the weight of the whole batch."""
    if loss.reduction == "sum":
        return 1
    # the loss is 0 if everything is masked
    return torch.where(weight > 0, weight, torch.inf)


def accumulate(loss, model, micro_batches):
    """Return the loss of all micro-batches, and store its gradient."""
    total = weight = 0
    for spikes, target, options in micro_batches:
        part, part_weight = loss.sum_and_weight(model(spikes), target, **options)
        part.backward()
        total, weight = total + part.detach(), weight + part_weight
    by = divisor(loss, weight)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= by
    return total / by


def distributed(loss, output, target, **options):
    """Return the share of this process. The mean of all shares is the loss."""
    total, weight = loss.sum_and_weight(output, target, **options)
    dist.all_reduce(weight)  # in place: now the weight of the whole batch
    return total * dist.get_world_size() / divisor(loss, weight)


def accumulate_distributed(loss, model, micro_batches):
    """Accumulate gradients in each process. The loss is the mean over processes."""
    total = weight = 0
    for i, (spikes, target, options) in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with contextlib.nullcontext() if last else model.no_sync():
            part, part_weight = loss.sum_and_weight(model(spikes), target, **options)
            part.backward()
        total, weight = total + part.detach(), weight + part_weight
    dist.all_reduce(weight)
    by = divisor(loss, weight) / dist.get_world_size()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= by
    return total / by


def accumulate_sparsity(sparsity, model, micro_batches):
    """Return the term of all micro-batches, and store its gradient."""
    with torch.no_grad():
        sums = [
            torch.stack(sparsity.events_and_entries(model(spikes), **options))
            for spikes, options in micro_batches
        ]
    whole = sum(sums)
    for (spikes, options), own in zip(micro_batches, sums, strict=True):
        term = sparsity(model(spikes), others=whole - own, **options)
        term.backward()
    return term.detach()  # each micro-batch has the value of the whole batch


def distributed_sparsity(sparsity, layer, **options):
    """Return the term of the batch times the number of processes, for averaged gradients."""
    own = torch.stack(sparsity.events_and_entries(layer.detach(), **options))
    whole = own.clone()
    dist.all_reduce(whole)
    return sparsity(layer, others=whole - own, **options) * dist.get_world_size()
