"""Diagnose a network of PyTorch modules on one batch, without changing the network."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import Module

from spikeloss_xp._typing import ArrayLike
from spikeloss_xp.diagnosis import Report, diagnose
from spikeloss_xp.torch.recording import Modules, check_network, record
from spikeloss_xp.torch.scaling import restored

OF_LOSS = ("where", "lengths", "weight")  # options that are passed to `diagnose` and to the loss


def diagnose_network(
    network: Module,
    loss: Callable[..., Any],
    forward: Callable[[], Any],
    target: ArrayLike | None = None,
    earlier: Report | float | None = None,
    *,
    modules: Modules | None = None,
    **options: Any,
) -> Report:
    """Run a network on one batch, compute the gradients, and return the report of `diagnose`.

    Call this function before training. After about 100 updates, call it on the same batch again,
    and pass the first report as `earlier`. The new report then judges whether training has improved
    the loss or the accuracy on this batch. Without such an improvement, the report names the
    possible causes.

    The parameters, gradients, buffers (such as running statistics), training modes and hooks of the
    network are restored, even after an error. The random state of PyTorch is also restored. The
    states of the neurons are not restored, so reset them before the next batch.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    loss : callable
        A loss of this library, or another function of the output and the target. The result must
        have a gradient.
    forward : callable
        Runs the network on one batch and returns the input of the loss, for example
        ``lambda: network(inputs)``. `forward` must reset the states of the neurons first, and must
        not disable gradients.
    target : array or sequence, optional
        The target of the loss.
    earlier : spikeloss_xp.diagnosis.Report or float, optional
        The report on the same batch before some training, or the value of the loss in that report.
    modules : torch.nn.Module or sequence of torch.nn.Module, optional
        The spiking modules. By default, `record` searches for the spiking modules.
    **options
        The arguments ``where``, ``lengths``, ``weight``, ``time_axis`` and ``updates`` of
        `spikeloss_xp.diagnose`. If ``where``, ``lengths`` or ``weight`` is given, it is also passed
        to `loss`.

    Returns
    -------
    spikeloss_xp.diagnosis.Report
        The report, which includes the hidden layers and the gradients that `record` collects.

    Raises
    ------
    ValueError, TypeError
        If `record` finds no spiking modules, or if the loss or `diagnose` raises an error.

    Examples
    --------
    >>> import torch
    >>> import spikeloss_xp as sx
    >>> from spikeloss_xp.torch import diagnose_network
    >>> class Neurons(torch.nn.Module):
    ...     def forward(self, x):
    ...         soft = torch.sigmoid(x - 1)
    ...         return (x > 1).float() + soft - soft.detach()
    >>> torch.manual_seed(0) and None
    >>> layers = torch.nn.Linear(20, 30), Neurons(), torch.nn.Linear(30, 3), Neurons()
    >>> network, loss = torch.nn.Sequential(*layers), sx.CrossEntropy(time_axis=0)
    >>> inputs, labels = torch.rand(5, 6, 20).round(), torch.arange(6) % 3
    >>> first = diagnose_network(network, loss, lambda: network(inputs), labels)
    >>> optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     loss(network(inputs), labels).backward()
    ...     _ = optimizer.step()
    >>> then = diagnose_network(network, loss, lambda: network(inputs), labels, first)
    >>> [finding.code for finding in then.findings if finding.severity == "problem"]
    []
    """
    given = [] if target is None else [target]
    of_loss = {name: options[name] for name in OF_LOSS if options.get(name) is not None}
    with _unchanged(check_network(network)), record(network, modules) as seen:
        output = forward()
        loss(output, *given, **of_loss).mean().backward()  # `mean` is for reduction="none"
        found: dict[str, Any] = {"hidden": seen.hidden, "gradients": seen.gradients}
        return diagnose(loss, output, target, earlier=earlier, **found, **options)


@contextlib.contextmanager
def _unchanged(network: Module) -> Iterator[None]:
    """Return a context that restores a network and the random state of PyTorch on exit."""
    modules = [(x, x.training, {**x._buffers}) for x in network.modules()]
    gradients = {x: x.grad for x in network.parameters()}
    devices = {x.device for x in gradients if x.is_cuda}
    with torch.random.fork_rng([*devices]), restored(network), torch.enable_grad():
        try:
            network.zero_grad(set_to_none=True)
            yield
        finally:
            for module, is_training, buffers in modules:
                module.training = is_training
                module._buffers.update(buffers)
            for x, gradient in gradients.items():
                x.grad = gradient
