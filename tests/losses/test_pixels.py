"""Labels for each pixel: the loss is that of a batch with a sample for each pixel."""

import dataclasses
import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import one_jax, run
from _support.cases import close

BATCH, CLASSES, PIXELS, STEPS = 3, 4, (2, 5), 6
LOSSES = {
    "counts": sx.CrossEntropy(time_axis=0, temperature=0.5, label_smoothing=0.1),
    "bounds": sx.CrossEntropy(time_axis=0, rates=(0.5, 0.1)),
    "latency": sx.CrossEntropy(time_axis=0, readout="latency"),
    "softmax": sx.CrossEntropy(time_axis=0, readout="softmax_sum", moving_window=None),
    "last": sx.CrossEntropy(time_axis=0, readout="last"),
    "groups": sx.CrossEntropy(time_axis=0, num_classes=2),
    "window": sx.CrossEntropy(time_axis=0, moving_window=2),
    "rates": sx.SpikeRate((0.9, 0.5, 0.7, 0.8), 0.1, time_axis=0),
    "rates, window": sx.SpikeRate(0.8, 0.1, 3, time_axis=0),
    "shares": sx.SpikeMax(2, time_axis=0),
}


def of_image(x, axis):
    """Return spikes [sample, pixel, pixel, class, time] as an input with this time axis."""
    return np.moveaxis(np.moveaxis(x, 3, 1), -1, axis)


def draw(loss, seed):
    """Draw spikes, labels and masks, each with a sample for each pixel and time last."""
    random = np.random.default_rng(seed)
    images = (BATCH, *PIXELS)
    spikes = (random.random((*images, CLASSES, STEPS)) < 0.4) * 1.0
    classes = getattr(loss, "num_classes", None) or CLASSES
    steps = (STEPS,) if loss.moving_window and random.random() < 0.6 else ()
    label = random.integers(classes, size=(*images, *steps))
    label = np.where(random.random(label.shape) < 0.2, loss.ignore_index, label)
    if isinstance(loss, sx.CrossEntropy) and random.random() < 0.5:
        label = random.random((*images, classes, *steps)) * (
            random.random((*images, 1, *(1,) * len(steps))) < 0.8
        )
    masks = {}
    if random.random() < 0.5:
        masks["lengths"] = random.integers(0, STEPS + 1, size=BATCH)
    shape = [images, (*images, CLASSES, STEPS), (STEPS,), None][random.integers(4)]
    if shape:
        masks["where"] = random.random(shape) < 0.7
    if random.random() < 0.3:
        masks["weight"] = random.random(classes)
    return spikes, label, masks


def as_samples(spikes, label, masks):
    """Return the arguments of the call whose samples are the pixels, with time last."""
    flat = dict(masks)
    if "lengths" in masks:
        flat["lengths"] = np.repeat(masks["lengths"], math.prod(PIXELS))
    if np.ndim(where := masks.get("where")) > 1:
        flat["where"] = where.reshape(-1, *where.shape[3:])
    return spikes.reshape(-1, CLASSES, STEPS), label.reshape(-1, *label.shape[3:]), flat


def placed(x, axis, *, with_class, timed):
    """Return labels or terms [sample, pixel, pixel, class?, time?] as the user has them."""
    x = np.moveaxis(x, 3, 1) if with_class else x
    return np.moveaxis(x, -1, axis if with_class or axis < 2 else axis - 1) if timed else x


def arguments(loss, seed, axis):
    """Return the same call of pixels, and of samples with time last."""
    spikes, label, masks = draw(loss, seed)
    with_class = label.dtype.kind == "f"
    timed = label.ndim > 3 + with_class and loss.moving_window
    target = placed(label, axis, with_class=with_class, timed=timed)
    given = dict(masks)
    if "where" in masks and masks["where"].ndim > 3:
        given["where"] = of_image(masks["where"], axis)
    return (of_image(spikes, axis), target, given), as_samples(spikes, label, masks)


@one_jax
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_pixels_is_that_of_samples(backend, name, axis, seeds):
    number = seeds(2, slow=3) if backend.name == "numpy" else range(1)  # JAX compiles each
    for seed in number:
        (image, target, given), (x, y, flat) = arguments(LOSSES[name], [seed, axis + 1], axis)
        for reduction in ("mean", "none"):
            loss = dataclasses.replace(LOSSES[name], reduction=reduction, time_axis=axis)
            samples = dataclasses.replace(loss, time_axis=-1)
            cotangent = np.random.default_rng(1).random(np.shape(samples(x, y, **flat)))
            value, gradient = sx.value_and_grad(samples)(x, y, **flat, cotangent=cotangent)
            if reduction == "none":
                kind = {"with_class": isinstance(loss, sx.SpikeRate), "timed": loss.moving_window}
                value, cotangent = (
                    placed(each.reshape(BATCH, *PIXELS, *each.shape[1:]), axis, **kind)
                    for each in (value, cotangent)
                )
            evaluate = sx.value_and_grad(loss)
            got = run(backend, evaluate, image, target, **given, cotangent=cotangent)
            assert got[0].shape == np.shape(value)
            close(got[0], value, 10 * backend.rtol)
            close(got[1], of_image(gradient.reshape(BATCH, *PIXELS, CLASSES, STEPS), axis), 1e-5)


@one_jax
@pytest.mark.parametrize("name", ["counts", "groups", "window", "rates"])
def test_predictions_of_pixels_are_those_of_samples(backend, name):
    for axis in (0, -1):
        (image, target, given), (x, y, flat) = arguments(LOSSES[name], [5, axis + 1], axis)
        loss = dataclasses.replace(LOSSES[name], time_axis=axis)
        samples = dataclasses.replace(loss, time_axis=-1)
        for masks in (given, flat):
            masks.pop("weight", None)

        def evaluate(x, y, loss=loss, **masks):
            kind = {"per_pixel": x.ndim == 5, "per_step": bool(loss.moving_window)}
            scores = [f(x, **kind, **masks) for f in (loss.predict, loss.scores)]
            return [*scores, loss.confusion(x, y, **masks), loss.accuracy(x, y, **masks)]

        got = run(backend, evaluate, image, target, **given)
        expected = evaluate(x, y, samples, **flat)
        timed = loss.moving_window
        for i, with_class in enumerate((False, True)):
            whole = expected[i].reshape(BATCH, *PIXELS, *expected[i].shape[1:])
            whole = placed(whole, axis, with_class=with_class, timed=timed)
            np.testing.assert_allclose(got[i], whole, rtol=1e-5)
        np.testing.assert_array_equal(got[2], expected[2])
        np.testing.assert_allclose(got[3], expected[3], rtol=1e-6)


def test_batchmean_divides_by_samples_and_not_by_pixels():
    spikes, label, _ = draw(LOSSES["counts"], 0)
    label = np.where(label < 0, 0, label) if label.dtype.kind == "i" else label.argmax(axis=3)
    label[1] = -100
    mean, total = (
        sx.CrossEntropy(time_axis=0, reduction=reduction)(of_image(spikes, 0), label)
        for reduction in ("batchmean", "sum")
    )
    assert mean == total / 2
    _, weight = sx.CrossEntropy(time_axis=0, reduction="batchmean").sum_and_weight(
        of_image(spikes, 0), np.zeros_like(label)
    )
    assert weight == 3


def test_labels_of_samples_and_of_their_steps_come_first():
    spikes = np.random.default_rng(0).random((4, 3, 2, 4)) < 0.5  # [time, batch, class, pixel]
    # It is [time, batch]; as [batch, pixel] it would be (3, 4).
    label = np.random.default_rng(1).integers(2, size=(4, 3))
    loss = sx.CrossEntropy(time_axis=0, moving_window=1, reduction="none")
    assert loss(spikes, label).shape == (4, 3)
    assert loss(spikes, label.T).shape == (4, 3, 4)
    spikes = spikes[:, :, :, :3]  # (3, 3) would be both
    assert loss(spikes[:3], label[:3]).shape == (3, 3)
    assert loss(spikes[:3], label[:3, :, None] % 2 + np.zeros(3, int)).shape == (3, 3, 3)


def test_label_of_a_masked_pixel_may_be_any():
    spikes, label = np.random.default_rng(0).random((6, 3, 4, 2, 5)), np.zeros((3, 2, 5), int)
    where, loss = np.ones((3, 2, 5), bool), sx.CrossEntropy(time_axis=0)
    where[1, 1, 2] = False
    expected = loss(spikes, label, where=where)
    label[1, 1, 2] = 7
    assert loss(spikes, label, where=where) == expected
    assert loss.confusion(spikes, label, where=where).sum() == 29
    with pytest.raises(ValueError, match="target must be between 0 and 3"):
        loss(spikes, label)


def test_mistakes_with_pixels_raise():
    spikes = np.zeros((6, 3, 4, 2, 5))
    loss = sx.CrossEntropy(time_axis=0)
    with pytest.raises(
        ValueError, match="a pixel axis and a class axis whose length is divisible by 4"
    ):
        loss.predict(spikes[..., 0, 0], per_pixel=True)
    with pytest.raises(ValueError, match="divisible by 8"):
        sx.CrossEntropy(time_axis=0, num_classes=8).scores(spikes, per_pixel=True)
    with pytest.raises(ValueError, match="divisible by 12"):
        sx.CrossEntropy(time_axis=0, num_classes=12)(
            spikes[:, :, :3, :, :4], np.zeros((3, 2, 4), int)
        )
    with pytest.raises(
        ValueError, match=r"pixels would have shape \[batch, \*pixels\], \(3, 2, 5\)"
    ):
        loss(spikes, np.zeros((3, 5, 2), int))
    with pytest.raises(ValueError, match=r"\[batch, \*pixels\], \(3, 2\)"):
        loss(spikes[..., 0], np.zeros((3, 5), int))
    with pytest.raises(TypeError, match="Rate does not take labels for pixels"):
        sx.Rate(time_axis=0).predict(spikes, per_pixel=True)
    with pytest.raises(ValueError, match=r"got \(3, 2\)"):
        loss(spikes, np.zeros((3, 2), int))


def test_mask_that_could_be_of_steps_or_of_pixels_raises():
    """With as many pixels as steps; the same mask in the shape of the input is accepted."""
    spikes, mask = np.ones((2, 3, 5, 5)), np.ones((2, 5), bool)
    loss = sx.CrossEntropy(time_axis=-1)
    with pytest.raises(ValueError, match=r"where of shape \(2, 5\) could be .*\(2, 3, 5, 5\)"):
        loss(spikes, [0, 1], where=mask)
    full = np.broadcast_to(mask[:, None, :, None], spikes.shape)
    assert loss(spikes, [0, 1], where=full) == loss(spikes, [0, 1])


def test_advice_for_numbers_of_maps_works():
    spikes, target = np.ones((2, 3, 6, 4)), np.zeros((2, 3, 6))
    loss = sx.SquaredError(time_axis=-1)
    with pytest.raises(ValueError, match=r"flatten the space axes of the target: \(2, 18\)"):
        loss(spikes, target)
    assert loss(spikes, target.reshape(2, 18)) == 1
