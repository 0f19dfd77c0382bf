"""Backpropagate through segments of time in PyTorch, as shown in docs/segments.md.

Run as a program, this file prints the relative errors of the gradient that truncation causes.
"""

import torch

import spikeloss_xp as sx


class Layer(torch.nn.Module):
    """A recurrent layer of leaky integrate-and-fire neurons."""

    def __init__(self, inputs, neurons):
        super().__init__()
        options = {"bias": False, "dtype": torch.float64}
        self.input = torch.nn.Linear(inputs, neurons, **options)
        self.recurrent = torch.nn.Linear(neurons, neurons, **options)

    def silent(self, batch):
        """Return the initial state, with potentials and spikes of zero."""
        return tuple(self.input.weight.new_zeros(2, batch, len(self.input.weight)))

    def forward(self, x, state):
        """Return the spikes, ``[batch, neuron, time]``, and the state after them."""
        u, s = state
        train = []
        for step in x.unbind(-1):
            u = 0.9 * u * (1 - s) + self.input(step) + self.recurrent(s)
            # its derivative is the surrogate gradient
            smooth = (u - 1) / (1 + 5 * (u - 1).abs())
            s = (u > 1).to(u.dtype) + (smooth - smooth.detach())
            train.append(s)
        return torch.stack(train, dim=-1), (u, s)


def truncated(loss, layer, inputs, target, mask, length):
    """Return the loss, and store the truncated gradient in the parameters."""
    state, before, total, weight = layer.silent(len(inputs)), None, 0, 0
    for start in range(0, inputs.shape[-1], length):
        output, state = layer(inputs[..., start : start + length], state)
        seen = output if before is None else torch.cat([before, output], dim=-1)
        context = seen.shape[-1] - output.shape[-1]
        steps = slice(start - context, start + length)
        part, part_weight = loss.sum_and_weight(
            seen, target[..., steps], where=mask[:, steps], context=context
        )
        part.backward()  # frees the graph of this segment
        total, weight = total + part.detach(), weight + part_weight
        state = tuple(x.detach() for x in state)
        before = seen[..., max(0, seen.shape[-1] - loss.memory) :].detach()
    for parameter in layer.parameters():
        parameter.grad /= weight
    return total / weight


def one_segment_later(loss, layer, inputs, target, mask, length):
    """Do the same as `truncated`, but let gradients flow into the context.

    Two graphs are in memory at a time. Each segment needs at least `loss.memory`
    steps.
    """
    state, before, total, weight = layer.silent(len(inputs)), None, 0, 0
    for start in range(0, inputs.shape[-1], length):
        state = tuple(x.detach() for x in state)
        output, state = layer(inputs[..., start : start + length], state)
        # collects the gradient of the output
        leaf = output.detach().requires_grad_()
        context = min(start, loss.memory)
        steps = slice(start - context, start + length)
        seen = (
            torch.cat([before[1][..., length - context :], leaf], dim=-1)
            if before
            else leaf
        )
        part, part_weight = loss.sum_and_weight(
            seen, target[..., steps], where=mask[:, steps], context=context
        )
        part.backward()
        total, weight = total + part.detach(), weight + part_weight
        if before:  # no later term reads this segment
            before[0].backward(before[1].grad)
        before = output, leaf
    output.backward(leaf.grad)
    for parameter in layer.parameters():
        parameter.grad /= weight
    return total / weight


def replayed(loss, layer, inputs, target, length, truncate=True):
    """Return a loss of counts, without `rates`, and store its gradient."""
    counts, state = 0, layer.silent(len(inputs))
    segments = inputs.split(length, dim=-1)
    with torch.no_grad():
        for segment in segments:
            output, state = layer(segment, state)
            counts = counts + output.sum(-1)
    value, signal = sx.value_and_grad(loss)(counts[..., None], target)
    state = layer.silent(len(inputs))
    for segment in segments:
        output, state = layer(segment, state)
        (signal * output).sum().backward(retain_graph=not truncate)
        state = tuple(x.detach() for x in state) if truncate else state
    return value


def main():
    """Compare the gradients for segments of 50 steps with that for the whole train."""
    torch.manual_seed(0)
    layer = Layer(20, 10)
    inputs = (torch.rand(4, 20, 200) < 0.3).double()
    target = (torch.rand(4, 10, 200) < 0.1).double()
    mask = torch.arange(200) < torch.tensor([200, 200, 170, 90])[:, None]
    loss = sx.SpikeTime(time_constant=5, length=20, reduction="mean", time_axis=-1)

    def gradient(function, length):
        layer.zero_grad()
        function(loss, layer, inputs, target, mask, length)
        return torch.cat([p.grad.ravel() for p in layer.parameters()])

    whole = gradient(truncated, 200)
    for function in (truncated, one_segment_later):
        error = (gradient(function, 50) - whole).norm() / whole.norm()
        print(f"{function.__name__:18}{error:4.0%}")


if __name__ == "__main__":
    main()
