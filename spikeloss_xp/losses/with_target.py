"""The base class for losses that have a target."""

from typing import Any, Never

from spikeloss_xp._arrays import adapter_of, on_device_of
from spikeloss_xp._typing import ArrayLike, ArrayT, Pullback
from spikeloss_xp.losses.base import OPTIONS, Loss, unknown_argument


class TargetLoss(Loss):
    """Base class for losses that compare spikes with a target."""

    def __call__(
        self,
        input: ArrayT,
        target: ArrayLike,
        *,
        where: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        **unknown: Never,
    ) -> ArrayT:
        """Return the loss, as an array from the same library and on the same device as `input`.

        Parameters
        ----------
        input : array
            Spikes of shape ``[batch, *space, time]``, with the time axis at `time_axis`.
        target : array or sequence
            The target. The docstring of each loss class describes which targets the loss accepts.
        where : array or sequence of bool, optional
            The mask, which is True for entries to keep. Masked entries are treated as silence and
            have gradient 0. If all entries from which a term is computed are masked, the term is 0
            and is excluded from a mean. The mask may have one of the following shapes:

            - ``[batch]``, with one value for each sample;
            - ``[time]``, with one value for each time step. If the input has as many samples as
              time steps, a mask with one axis is treated as ``[batch]``;
            - ``[batch, time]``, with the two axes in the same order as in `input`. The batch axis
              may have length 1;
            - the shape of `input`, in which any axis may have length 1. For example, a mask of
              shape ``[1, 1, neuron]`` leaves out whole neurons.
        lengths : array or sequence of int, optional
            The length of each sample in time steps, of shape ``[batch]``, from 0 to the number of
            steps of `input`. All steps after this length are masked.
        weight : array or sequence of float, optional
            Class weights of shape ``[class]``, finite and at least 0. If the target holds class
            indices, each term is multiplied by the weight of the labelled class. If the target
            holds a number for each class, each term is multiplied by the weight of its own class.
            If the target holds a train for each neuron, pass one weight for each neuron. With
            ``reduction="mean"``, the sum of the terms is divided by the sum of the weights of the
            terms. For class probabilities, see `CrossEntropy`.

        Returns
        -------
        array
            A scalar array, which is 0 if everything is masked. With ``reduction="none"``, the
            result is an array of the terms, in which masked terms are 0.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape or dtype, comes from another library or is out of
            range. On a GPU and in traced functions, an invalid label or length makes the terms of
            its sample NaN. The gradient of a NaN term is NaN or 0.
        """
        if unknown:
            raise unknown_argument(self, OPTIONS, unknown)
        options: dict[str, Any] = {"target": target, "where": where}
        options |= {"lengths": lengths, "weight": weight}
        value: ArrayT = adapter_of(input).evaluate(self, input, options)
        return value

    def value(self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None) -> ArrayT:
        """Return the loss, computed with operations that the library can differentiate.

        `value` takes the same arguments as a call to the loss, and returns the same value. With
        `value`, the library records and differentiates each operation. A call to the loss may
        compute the gradient in closed form instead.
        """
        value: ArrayT = self._compute(input, target, options, with_pullback=False)[0]
        return value

    def value_and_pullback(
        self, input: ArrayT, target: ArrayLike, **options: ArrayLike | None
    ) -> tuple[ArrayT, Pullback]:
        """Return the loss and its pullback to `input`, computed in closed form.

        Parameters
        ----------
        input : array
            Spikes, in the same form as for a call to the loss.
        target : array or sequence
            The target, in the same form as for a call to the loss.
        **options
            The optional arguments of a call to the loss: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple
            The value and the pullback, which is a function that computes a vector-Jacobian product.
            The argument of the pullback is a cotangent with the same shape as the value. The
            pullback returns an array with the shape of `input`. Call the pullback at most once. Do
            not modify the arguments of `value_and_pullback` before you call the pullback.
        """
        return self._compute(input, target, options, with_pullback=True)

    @on_device_of("input")
    def sum_and_weight(
        self, input: ArrayT, target: ArrayLike, *, context: int = 0, **options: ArrayLike | None
    ) -> tuple[ArrayT, ArrayT]:
        """Return the sum of the terms, and the weight by which the sum is divided for a mean.

        Use this method if the batch is split between micro-batches, processes or devices. Add up
        the sums of all parts, and add up the weights of all parts. With ``reduction="sum"``, the
        total sum is the loss of the whole batch. With ``reduction="mean"`` or ``"batchmean"``, the
        loss of the whole batch is the total sum divided by the total weight. If the total weight is
        0, the loss is 0. With `context`, you can also split trains into segments along the time
        axis.

        Parameters
        ----------
        input : array
            Spikes, in the same form as for a call to the loss. The batch axis may have length 0, in
            which case the sum and the weight are 0.
        target : array or sequence
            The target, in the same form as for a call to the loss.
        context : int, default 0
            The number of time steps at the start of `input` that belong to earlier segments. The
            context affects the terms of later steps, but it has no terms of its own, and its labels
            are not checked. A segment needs ``loss.memory`` steps of context, or all earlier steps
            if there are fewer.
        **options
            The optional arguments of a call to the loss: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple of array
            Two scalar arrays with the same dtype. The sum can be differentiated. For the reductions
            "sum" and "mean", the weight is the number of unmasked terms. If you pass class weights,
            the weight is the sum of the class weights of the unmasked terms. For the reduction
            "batchmean", the weight is the number of samples that have an unmasked term.

        Raises
        ------
        ValueError, TypeError
            If the reduction is "none", or if an argument is invalid, just as when the loss is
            called. A `context` above 0 is invalid if the reduction is "batchmean" or if
            ``loss.memory`` is None.

        Examples
        --------
        Compute the mean over the whole batch from the sums and weights of two micro-batches:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> loss = sx.SpikeRate(0.5, 0.0, time_axis=-1)
        >>> spikes, label = np.eye(4)[:, None, :], [0, 0, 0, 0]
        >>> sums = [loss.sum_and_weight(spikes[part], label[part])
        ...         for part in (slice(0, 1), slice(1, 4))]
        >>> total, weight = map(sum, zip(*sums))
        >>> float(total / weight), float(loss(spikes, label))
        (0.0625, 0.0625)
        """
        return self._sum_of_part(input, target, context, options, with_pullback=False)[:2]

    @on_device_of("input")
    def sum_weight_and_pullback(
        self, input: ArrayT, target: ArrayLike, *, context: int = 0, **options: ArrayLike | None
    ) -> tuple[ArrayT, ArrayT, Pullback]:
        """Return the sum of the terms, their weight, and the closed-form pullback of the sum.

        Use this method instead of `sum_and_weight` if you need the gradient and the library has no
        automatic differentiation.

        Parameters
        ----------
        input : array
            Spikes, in the same form as for a call to the loss. The batch axis may have length 0, in
            which case the sum and the weight are 0.
        target : array or sequence
            The target, in the same form as for a call to the loss.
        context : int, default 0
            The number of time steps at the start of `input` that belong to earlier segments, as in
            `sum_and_weight`. The gradient has the shape of `input`, so it includes the steps of the
            context.
        **options
            The optional arguments of a call to the loss: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple
            The sum and the weight that `sum_and_weight` returns, and the pullback of the sum. The
            argument of the pullback is a scalar array, which is the derivative of the loss with
            respect to the sum. The pullback returns the gradient of the loss with respect to
            `input`. Call the pullback at most once.

        Raises
        ------
        ValueError, TypeError
            The errors that `sum_and_weight` raises.

        Examples
        --------
        Compute the gradient of a mean over two micro-batches:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> loss = sx.SpikeRate(0.5, 0.0, time_axis=-1)
        >>> spikes, label = np.eye(4)[:, None, :], [0, 0, 0, 0]
        >>> first = loss.sum_weight_and_pullback(spikes[:1], label[:1])
        >>> rest = loss.sum_weight_and_pullback(spikes[1:], label[1:])
        >>> weight = first[1] + rest[1]
        >>> pullbacks = first[2], rest[2]
        >>> gradient = np.concatenate([pullback(1 / weight) for pullback in pullbacks])
        >>> bool(np.all(gradient == sx.value_and_grad(loss)(spikes, label)[1]))
        True
        """
        return self._sum_of_part(input, target, context, options, with_pullback=True)
