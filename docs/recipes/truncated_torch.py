"""Backpropagate through segments of time in PyTorch, as shown in docs/segments.md.

Run as a program, this file checks the gradients against the gradients of whole trains, and prints
the relative errors that truncation causes.
"""

import functools

import torch

import spikeloss_xp as sx


class Spike(torch.autograd.Function):
    """A step function with the derivative of a fast sigmoid as its surrogate."""

    @staticmethod
    def forward(ctx, v):
        """Return 1 where the potential is above 0."""
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient with respect to the potential."""
        (v,) = ctx.saved_tensors
        return gradient / (1 + 5 * v.abs()) ** 2


class Layer(torch.nn.Module):
    """A recurrent layer of leaky integrate-and-fire neurons."""

    def __init__(self, inputs, neurons):
        super().__init__()
        self.input = torch.nn.Linear(
            inputs, neurons, bias=False, dtype=torch.float64
        )
        self.recurrent = torch.nn.Linear(
            neurons, neurons, bias=False, dtype=torch.float64
        )

    def silent(self, batch):
        """Return the initial state, with potentials and spikes of zero."""
        return tuple(self.input.weight.new_zeros(2, batch, len(self.input.weight)))

    def forward(self, x, state):
        """Return the spikes, ``[batch, neuron, time]``, and the state after them."""
        u, s = state
        train = []
        for step in x.unbind(-1):
            u = 0.9 * u * (1 - s) + self.input(step) + self.recurrent(s)
            s = Spike.apply(u - 1)
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


class Recording(Layer):
    """A layer that keeps its outputs, so that their gradients can be inspected."""

    def forward(self, x, state):
        """Return the spikes and the state."""
        output, state = super().forward(x, state)
        if output.requires_grad:
            output.retain_grad()
            self.outputs.append(output)
        return output, state

    def run(self, function, loss, *arguments):
        """Return the loss, and its gradients for the outputs and parameters."""
        self.outputs = []
        self.zero_grad()
        value = function(loss, self, *arguments)
        outputs = torch.cat([output.grad for output in self.outputs], dim=-1)
        return value, outputs, torch.cat([p.grad.ravel() for p in self.parameters()])


def whole(loss, layer, inputs, target, mask=None):
    """Return the loss of the whole train, and store its gradient."""
    value = loss(layer(inputs, layer.silent(len(inputs)))[0], target, where=mask)
    value.backward()
    return value.detach()


def main():
    """Compare segments of 50 steps with the whole train."""
    torch.manual_seed(0)
    layer = Recording(20, 10)
    inputs = (torch.rand(4, 20, 200) < 0.3).double()
    target = (torch.rand(4, 10, 200) < 0.1).double()
    mask = torch.arange(200) < torch.tensor([200, 200, 170, 90])[:, None]
    loss = sx.SpikeTime(time_constant=5, length=20, reduction="mean", time_axis=-1)
    close = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-12)

    value, of_outputs, gradient = layer.run(whole, loss, inputs, target, mask)
    train = layer.outputs[0].detach()
    _, weight = loss.sum_and_weight(train, target, where=mask)
    outputs = {}
    for function in (truncated, one_segment_later):
        found, outputs[function], got = layer.run(
            function, loss, inputs, target, mask, 50
        )
        close(found, value)
        print(
            f"{function.__name__:18}{(got - gradient).norm() / gradient.norm():4.0%}"
        )

    # The gradient of the outputs is exact if it continues into the context.
    close(outputs[one_segment_later] / weight, of_outputs)
    # Otherwise, it lacks terms at the last `memory` steps of each segment, which the
    # next segment reads.
    last = torch.arange(200) % 50 >= 50 - loss.memory
    last[150:] = False
    close(outputs[truncated][..., ~last] / weight, of_outputs[..., ~last])
    # In each segment, it is then the adjoint of the filter, without terms after the
    # segment.
    kernel = sx.exponential_kernel(5, 20)
    error = (
        sx.causal_filter((train - target) * mask[:, None], kernel, time_axis=-1)
        * mask[:, None]
    )
    for part, seen, got in zip(
        *(x.split(50, dim=-1) for x in (error, mask[:, None], outputs[truncated])),
        strict=True,
    ):
        close(
            got,
            2
            * sx.causal_filter(part.flip(-1), kernel, time_axis=-1).flip(-1)
            * seen,
        )

    counting = sx.CrossEntropy(time_axis=-1, readout="sqrt_count")
    labels = [0, 1, 2, 3]
    expected = layer.run(whole, counting, inputs, labels)
    for got, right in zip(
        layer.run(replayed, counting, inputs, labels, 50, False),
        expected,
        strict=True,
    ):
        close(got, right)
    # Even if truncated, the gradient with respect to the outputs is exact.
    close(layer.run(replayed, counting, inputs, labels, 50)[1], expected[1])


if __name__ == "__main__":
    main()
