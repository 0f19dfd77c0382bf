"""Losses that take a few lines in PyTorch, as shown in docs/recipes.md.

Outputs of a network have shape ``[time, batch, class]``.
"""

import dataclasses

import torch

import spikeloss_xp as sx

F = torch.nn.functional

loss = sx.CrossEntropy(time_axis=0)


def fractions(like, alpha):
    """Draw a mixing fraction for each sample."""
    return torch.distributions.Beta(alpha, alpha).sample((like.shape[1],)).to(like)


def mixed_labels(labels, order, fraction, classes):
    """Mix labels, and return class probabilities [batch, class]."""
    one_hot = F.one_hot(labels, classes).to(fraction)
    return fraction[:, None] * one_hot + (1 - fraction[:, None]) * one_hot[order]


def mixup(inputs, labels, classes, alpha=0.2):
    """Mix inputs [time, batch, ...], and return them with mixed labels."""
    order, fraction = torch.randperm(len(labels)), fractions(inputs, alpha)
    part = fraction.reshape(-1, *[1] * (inputs.ndim - 2))
    mixed = part * inputs + (1 - part) * inputs[:, order]
    return mixed, mixed_labels(labels, order, fraction, classes)


def cutmix(frames, labels, classes, alpha=1.0):
    """Paste a box of another sample into frames [time, batch, channel, y, x]."""
    order, fraction = torch.randperm(len(labels)), fractions(frames, alpha)
    # the side of the box relative to the frame
    side = (1 - fraction[:, None]).sqrt()

    def interval(size):
        centre = size * torch.rand(len(labels), 1).to(side)
        return (torch.arange(size).to(side) + 0.5 - centre).abs() < size * side / 2

    height, width = frames.shape[-2:]
    inside = interval(height)[:, None, :, None] & interval(width)[:, None, None, :]
    # the border may cut off part of a box
    fraction = 1 - inside.to(frames).mean((1, 2, 3))
    mixed = torch.where(inside, frames[:, order], frames)
    return mixed, mixed_labels(labels, order, fraction, classes)


def distil(student, teacher, labels, temperature=4.0, weight=0.5):
    """Return the loss of a student's output, given a teacher's logits."""
    soft = dataclasses.replace(loss, temperature=temperature)
    probabilities = torch.softmax(teacher.detach() / temperature, dim=1)
    part = weight * temperature**2 * soft(student, probabilities)
    return part + (1 - weight) * loss(student, labels)


def triplet(responses, anchor, positive, negative, margin=1.0, time_constant=10):
    """Return the triplet loss of [time, sample, neuron], given sample indices."""
    trains = responses.permute(1, 2, 0)  # [sample, neuron, time]
    distance = sx.distances.van_rossum(
        trains[anchor], trains, time_constant=time_constant
    )
    row = torch.arange(len(anchor))
    return F.relu(distance[row, positive] - distance[row, negative] + margin).mean()


by_pixel = sx.CrossEntropy(time_axis=0, ignore_index=255)


def as_samples(x, label):
    """Return [time, batch, class, y, x] and [batch, y, x] with pixels as samples."""
    return x.movedim(2, -1).flatten(1, -2), label.flatten()


def intersection_over_union(output, label):
    """Return the mean intersection over union of [time, batch, class, y, x]."""
    confusion = by_pixel.confusion(*as_samples(output, label))
    both = confusion.diagonal()
    return (both / (confusion.sum(0) + confusion.sum(1) - both)).mean()
