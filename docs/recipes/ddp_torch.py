"""Train a network with DistributedDataParallel: see docs/processes.md."""

import torch
import torch.distributed as dist
import torch.distributed.nn  # a later import keeps the threads alive
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import spikeloss_xp as sx
from spikeloss_xp.torch import record


class Network(torch.nn.Linear):
    """A layer of leaky integrate-and-fire neurons."""

    def forward(self, inputs):
        """Return the spikes, ``[sample, time, class]``."""
        membrane, spikes = 0, []
        for current in super().forward(inputs).unbind(1):
            membrane = 0.9 * membrane + current
            # its derivative is the surrogate gradient
            smooth = torch.atan(3 * (membrane - 1)) / 3
            spikes.append((membrane > 1).float() + (smooth - smooth.detach()))
            membrane = membrane - spikes[-1]
        return torch.stack(spikes, 1)


def main(rank, processes):
    """Train a network, and print its loss and accuracy on the test samples."""
    torch.manual_seed(0)
    # firing rates of 50 inputs, for each of 10 classes
    rates = 0.3 * torch.rand(10, 50)
    labels, lengths = torch.randint(10, (800,)), torch.randint(5, 21, (800,))
    # [sample, time, neuron]
    inputs = torch.bernoulli(rates[labels, None].expand(-1, 20, -1))
    train = TensorDataset(inputs[:600], labels[:600], lengths[:600])
    loader = DataLoader(train, 100 // processes, sampler=DistributedSampler(train))
    own = slice(600 + rank, None, processes)  # the test samples of this process

    model = DistributedDataParallel(Network(50, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    # the mean over all steps before padding
    loss = sx.CrossEntropy(time_axis=1, moving_window=5)
    for epoch in range(5):
        loader.sampler.set_epoch(epoch)
        for x, y, length in loader:
            total, weight = loss.sum_and_weight(model(x), y, lengths=length)
            dist.all_reduce(weight)  # now the weight of the whole batch
            optimizer.zero_grad()
            # gradients are averaged over processes
            (total * processes / weight).backward()
            optimizer.step()

        with torch.no_grad(), record(model, operations=True) as seen:
            output = model(inputs[own])
            options = {"lengths": lengths[own]}
            total, weight = loss.sum_and_weight(output, labels[own], **options)
            matrix = loss.confusion(output, labels[own], **options)
        counts = seen.activity(time_axis=1, **options)
        for tensor in (total, weight, matrix, counts.sums):
            dist.all_reduce(tensor)
        if rank == 0:
            accuracy = matrix.trace() / matrix.sum()
            print(f"test loss {total / weight:.4f}, rate {counts.rate:.3f}")
            print(f"{counts.operations_per_sample:.1f} operations per sample")
            print(f"accuracy {accuracy:.1%}")


if __name__ == "__main__":
    dist.init_process_group("gloo")  # "nccl" on GPUs
    main(dist.get_rank(), dist.get_world_size())
    dist.barrier()  # no process ends while another one still communicates
    dist.destroy_process_group()
