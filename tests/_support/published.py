"""Losses of papers, by the names that people know them by.

Each row is a test in tests/peers/test_published.py, and a row of docs/published-code.md, which
``python tools/write_pages.py`` writes. The formulas are written here from the definitions in the
papers and in their public code, most of which cannot be installed. The page defines the variables.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from _support.pages import DOCS, table, with_tables

PAGE = DOCS / "published-code.md"


@dataclass(frozen=True)
class Row:
    """A published loss, its formula, and our line that equals it."""

    names: tuple[str, ...]
    """The names to search for. The first one is shown at the start of the row."""
    paper: str
    """The authors, where the paper was published, and the year, in Markdown."""
    there: str
    """The formula, in PyTorch."""
    here: str
    jax: str
    """The formula in JAX, or an empty string if it cannot be written there in a line."""
    of: str = "x"
    """The variables that the gradient is taken with respect to."""
    note: str = ""


@dataclass(frozen=True)
class Missing:
    """A published loss that cannot be written with this library, and the reason."""

    names: tuple[str, ...]
    paper: str
    reason: str


EVENTPROP = "https://github.com/tnowotny/genn_eventprop"
SHAPING = "Nowotny, Turner and Knight, Neuromorphic Computing and Engineering, 2025"
GOELTZ = (
    "Göltz, Kriener et al., Nature Machine Intelligence, 2021 "
    "([code](https://github.com/JulianGoeltz/fastAndDeep))"
)
SPIKINGJELLY = "[SpikingJelly](https://github.com/fangwei123456/spikingjelly)"

CLASSES = (
    Row(
        ("EventProp",),
        f"Wunderlich and Pehle, Scientific Reports, 2021 ([code]({EVENTPROP}))",
        "F.cross_entropy(v.amax(0), y)",
        'sx.CrossEntropy(time_axis=0, readout="max")(v, y)',
        "cross_entropy(v.max(0), y)",
        of="v",
        note="The loss type `max`.",
    ),
    Row(
        ("EventProp, sum",),
        f"{SHAPING} ([code]({EVENTPROP}))",
        "F.cross_entropy(v.mean(0), y)",
        'sx.CrossEntropy(time_axis=0, readout="rate")(v, y)',
        "cross_entropy(v.mean(0), y)",
        of="v",
    ),
    Row(
        ("EventProp, sum_weigh_exp", "loss shaping"),
        f"{SHAPING} ([code]({EVENTPROP}))",
        "F.cross_entropy((v * w).mean(0), y)",
        'sx.CrossEntropy(time_axis=0, readout="rate")(v * w, y)',
        "cross_entropy((v * w).mean(0), y)",
        of="v",
        note="`w` is `exp(-t / T)` at step t, of shape `[time, 1, 1]`.",
    ),
    Row(
        ("EventProp, avg_xentropy",),
        f"{SHAPING} ([code]({EVENTPROP}))",
        "sum(F.cross_entropy(o, y) for o in v) / T",
        "sx.CrossEntropy(time_axis=0, moving_window=1)(v, y)",
        "sum(cross_entropy(o, y) for o in v) / T",
        of="v",
    ),
    Row(
        ("TET", "temporal efficient training"),
        "Deng et al., ICLR, 2022 "
        "([code](https://github.com/brain-intelligence-lab/temporal_efficient_training))",
        "0.95 * sum(F.cross_entropy(o, y) for o in v) / T + 0.05 * ((v - 1) ** 2).mean()",
        "0.95 * sx.CrossEntropy(time_axis=0, moving_window=1)(v, y) "
        "+ 0.05 * sx.SquaredError(time_axis=0, moving_window=1)(v, xp.ones_like(v))",
        "0.95 * sum(cross_entropy(o, y) for o in v) / T + 0.05 * ((v - 1) ** 2).mean()",
        of="v",
    ),
    Row(
        ("OTTT", "online training through time"),
        "Xiao et al., NeurIPS, 2022 ([code](https://github.com/pkuxmq/OTTT-SNN))",
        "sum(0.95 * F.cross_entropy(o, y) + 0.05 * F.mse_loss(o, hot) for o in v) / T",
        "0.95 * sx.CrossEntropy(time_axis=0, moving_window=1)(v, y) "
        "+ 0.05 * sx.SquaredError(time_axis=0, moving_window=1)(v, hot)",
        "sum(0.95 * cross_entropy(o, y) + 0.05 * ((o - hot) ** 2).mean() for o in v) / T",
        of="v",
    ),
    Row(
        ("TRT", "temporal regularization training"),
        "Zhang, Xu and Tao, arXiv:2506.19256, 2025 "
        "([code](https://github.com/ZBX05/Temporal-Regularization-Training))",
        "sum((1 - eta) * F.cross_entropy(o, y) + eta * F.mse_loss(o, hot) for o in v) / T",
        "(1 - eta) * sx.CrossEntropy(time_axis=0, moving_window=1)(v, y) "
        "+ eta * sx.SquaredError(time_axis=0, moving_window=1)(v, hot)",
        "sum((1 - eta) * cross_entropy(o, y) + eta * ((o - hot) ** 2).mean() for o in v) / T",
        of="v",
        note="This is the part on the outputs; add the decaying penalty on the weights to it.",
    ),
    Row(
        ("SHD", "SRNN"),
        "Yin, Corradi and Bohté, Nature Machine Intelligence, 2021 "
        "([code](https://github.com/byin-cwi/Efficient-spiking-networks))",
        "F.cross_entropy(sum(v[t].softmax(1) for t in range(T) if t > 10), y)",
        'sx.CrossEntropy(time_axis=0, readout="softmax_sum")'
        "(v, y, where=(xp.arange(T) > 10)[:, None, None])",
        "cross_entropy(sum(softmax(v[t]) for t in range(T) if t > 10), y)",
        of="v",
        note="The votes of the steps after step 10 count.",
    ),
    Row(
        ("DECOLLE",),
        "Kaiser, Mostafa and Neftci, Frontiers in Neuroscience, 2020 "
        "([code](https://github.com/nmi-lab/decolle-public))",
        "sum(F.smooth_l1_loss(o, hot) for o in v) / T",
        "sx.HuberError(time_axis=0, moving_window=1)(v, hot)",
        "sum(smooth_l1(o - hot).mean() for o in v) / T",
        of="v",
        note="`v` is the readout of one layer. The public code updates the weights at each step.",
    ),
    Row(
        ("tempotron",),
        f"Gütig and Sompolinsky, Nature Neuroscience, 2006 (code: {SPIKINGJELLY})",
        "(((v.amax(0) - 1) * ((v.amax(0) >= 1) != (hot > 0))) ** 2).sum() / B",
        'sx.SquaredError(time_axis=0, readout="max", reduction="batchmean")'
        "(v, xp.ones_like(hot), where=((xp.amax(v, 0) >= 1) != (hot > 0))[None])",
        "(((v.max(0) - 1) * ((v.max(0) >= 1) != (hot > 0))) ** 2).sum() / B",
        of="v",
        note="The threshold is 1. A class contributes if it wrongly fires or wrongly does not.",
    ),
    Row(
        ("aggregate label learning", "aggregate label"),
        "Gütig, Science, 2016",
        "((x.sum(0) - n) ** 2).mean()",
        'sx.SquaredError(time_axis=0, readout="count")(x, n)',
        "((x.sum(0) - n) ** 2).mean()",
        note="`n` are target counts. The learning rule of the paper moves a threshold instead.",
    ),
    Row(
        ("CTC", "connectionist temporal classification"),
        "Graves et al., ICML, 2006",
        "F.ctc_loss(F.log_softmax(windows(x, 4), -1), words, steps, lengths)",
        "F.ctc_loss(F.log_softmax(sx.CrossEntropy(time_axis=0, moving_window=4)"
        ".scores(x, per_step=True), -1), words, steps, lengths)",
        "",
        note="`windows(x, 4)` counts the spikes of the last four steps.",
    ),
    Row(
        ("policy gradient", "REINFORCE"),
        f"Williams, Machine Learning, 1992 (code: {SPIKINGJELLY})",
        "-(F.log_softmax(x.sum(0), 1).gather(1, y[:, None])[:, 0] * advantage).mean()",
        '(sx.CrossEntropy(time_axis=0, reduction="none")(x, y) * advantage).mean()',
        "-((log_softmax(x.sum(0)) * hot).sum(1) * advantage).mean()",
        note="`y` are the actions that were taken.",
    ),
    Row(
        ("DQN", "Q-learning"),
        f"Mnih et al., Nature, 2015 (code: {SPIKINGJELLY})",
        "F.smooth_l1_loss(v[-1].gather(1, y[:, None])[:, 0], returns)",
        'sx.HuberError(time_axis=0, readout="last")'
        "(v, hot * returns[:, None], where=(hot > 0)[None])",
        "smooth_l1((v[-1] * hot).sum(1) - returns).mean()",
        of="v",
        note="`y` are the actions that were taken, and `returns` what they are expected to return.",
    ),
)

FIRST_SPIKES = (
    Row(
        ("Göltz, TTFS", "pytorch-eventprop", "fast and deep"),
        f"{GOELTZ}, and [pytorch-eventprop](https://github.com/lolemacs/pytorch-eventprop)",
        "(torch.logsumexp(-t / (xi * tau), 1) + t.gather(1, y[:, None])[:, 0] / (xi * tau)).mean()",
        "sx.times.CrossEntropy(temperature=xi * tau, silent_time=end)(t, y)",
        "(logsumexp(-t / (xi * tau), 1) + (t * hot).sum(1) / (xi * tau)).mean()",
        of="t",
    ),
    Row(
        ("EventProp, first_spike_exp", "early output"),
        f"{SHAPING} ([code]({EVENTPROP})); Göltz, Kriener et al., 2021",
        "F.cross_entropy(-t / tau, y) "
        "+ alpha * ((t.gather(1, y[:, None]) / tau_1).exp() - 1).mean()",
        "sx.times.CrossEntropy(temperature=tau, silent_time=end)(t, y) "
        "+ alpha * (xp.exp((t * hot).sum(1) / tau_1) - 1).mean()",
        "cross_entropy(-t / tau, y) + alpha * (jnp.exp((t * hot).sum(1) / tau_1) - 1).mean()",
        of="t",
        note="The second term is the regulariser for early outputs. `y` must fire for it.",
    ),
    Row(
        ("Göltz, MSE",),
        GOELTZ,
        "(0.5 * ((t - (hot * (t_correct - t_wrong) + t_wrong)) ** 2).sum(1)).mean()",
        "0.5 * sx.times.SpikeLatency(true_time=t_correct, false_time=t_wrong, silent_time=end, "
        'reduction="batchmean")(t, y)',
        "(0.5 * ((t - (hot * (t_correct - t_wrong) + t_wrong)) ** 2).sum(1)).mean()",
        of="t",
    ),
    Row(
        ("Göltz, shift-invariant MSE", "shift_invariant_MSE"),
        GOELTZ,
        "(0.5 * ((t - t.gather(1, y[:, None]) - delta * (1 - hot)) ** 2).sum(1)).mean()",
        "0.5 * sx.times.SpikeLatency(true_time=0, false_time=delta, silent_time=end, "
        'reduction="batchmean")(t - (t * hot).sum(1)[:, None], y)',
        "(0.5 * ((t - (t * hot).sum(1)[:, None] - delta * (1 - hot)) ** 2).sum(1)).mean()",
        of="t",
    ),
    Row(
        ("S4NN",),
        "Kheradpisheh and Masquelier, International Journal of Neural Systems, 2020 "
        "([code](https://github.com/SRKH/S4NN))",
        "0.5 * (((relative_targets(t, y) - t) / end) ** 2).sum(1).mean()",
        '0.5 / end**2 * sx.times.SpikeLatency(silent_time=end, reduction="batchmean")'
        "(t, relative_targets(t, y))",
        "0.5 * (((relative_targets(t, y) - t) / end) ** 2).sum(1).mean()",
        of="t",
        note="The target of the label is the first spike of all classes. The target of a class "
        "that is less than `gamma` later is `gamma` later, and other targets are the times "
        "themselves. The public code also normalises the error of each sample, and has other "
        "targets if no class fires.",
    ),
    Row(
        ("Comsa", "ihmehimmeli"),
        "Comsa et al., ICASSP, 2020 ([code](https://github.com/google/ihmehimmeli))",
        "F.cross_entropy(-t, y)",
        "sx.times.CrossEntropy(temperature=1, silent_time=end)(t, y)",
        "cross_entropy(-t, y)",
        of="t",
    ),
    Row(
        ("Mostafa",),
        "Mostafa, IEEE Transactions on Neural Networks and Learning Systems, 2018",
        "F.cross_entropy(-t.exp(), y)",
        "sx.times.CrossEntropy(temperature=1, silent_time=math.exp(end))(xp.exp(t), y)",
        "cross_entropy(-jnp.exp(t), y)",
        of="t",
        note="Times are in units of the synaptic time constant.",
    ),
    Row(
        ("jaxsnn",),
        "Müller et al., NICE, 2024 ([code](https://github.com/electronicvisions/jaxsnn))",
        "-F.cross_entropy(-t.clip(max=2 * tau) / tau, y)",
        "-sx.times.CrossEntropy(temperature=tau, silent_time=2 * tau)(t, y)",
        "-cross_entropy(-t.clip(max=2 * tau) / tau, y)",
        of="t",
        note="This is `ttfs_loss`. Leave out the minus sign: with it, training moves the first "
        "spike of the label to later times.",
    ),
)

LAYERS = (
    Row(
        ("e-prop", "LSNN"),
        "Bellec et al., Nature Communications, 2020 "
        "([code](https://github.com/IGITUGraz/eligibility_propagation))",
        "0.5 * ((v - signal) ** 2).sum() + 300 * 0.5 * ((z.mean((0, 1)) - 10 / 1000) ** 2).sum()",
        '0.5 * sx.SquaredError(time_axis=0, moving_window=1, reduction="sum")(v, signal) + 150 * '
        'sx.SparsityEnforcer(0.01, min_rate=0.01, per="neuron", reduction="sum", time_axis=0)(z)',
        "0.5 * ((v - signal) ** 2).sum() + 300 * 0.5 * ((z.mean((0, 1)) - 10 / 1000) ** 2).sum()",
        of="v z",
        note="The target of 10 Hz, in steps of 1 ms, is a rate of 0.01.",
    ),
    Row(
        ("IM-Loss", "information maximization loss"),
        "Guo et al., NeurIPS, 2022 ([code](https://github.com/yfguo91/"
        "IM-Loss-Information-Maximization-Loss-for-Spiking-Neural-Networks))",
        "(u.mean() - 0.5 / T) ** 2",
        "sx.SquaredError(time_axis=0)(u.reshape(-1, 1, 1), [[0.5 / T]])",
        "(u.mean() - 0.5 / T) ** 2",
        of="u",
        note="`u` is the input of the neurons. A comment in the code allows 0.5 as the target.",
    ),
    Row(
        ("RMP-Loss", "RecDis-SNN", "MPD-Loss", "membrane potential quantisation"),
        "Guo et al., ICCV, 2023 (the line is a comment in the code of IM-Loss)",
        "(torch.minimum(u.abs(), (1 - u).abs()) ** 2).mean()",
        "sx.SquaredError(time_axis=0, moving_window=1)(u, xp.where(u > 0.5, 1.0, 0.0))",
        "(jnp.minimum(jnp.abs(u), jnp.abs(1 - u)) ** 2).mean()",
        of="u",
        note="RecDis-SNN (Guo et al., CVPR, 2022) also reduces this error; its code is not public.",
    ),
    Row(
        ("DECOLLE, regulariser",),
        "Kaiser, Mostafa and Neftci, Frontiers in Neuroscience, 2020 "
        "([code](https://github.com/nmi-lab/decolle-public))",
        "F.relu(u + 0.01).mean() + 3e-3 * F.relu(0.1 - u.sigmoid().mean())",
        "sx.AbsoluteError(time_axis=0, moving_window=1)(u, u.clip(max=-0.01)) "
        "+ 3e-3 * sx.SparsityEnforcer(1.0, min_rate=0.1, power=1, time_axis=0)(sigmoid(u))",
        "relu(u + 0.01).mean() + 3e-3 * relu(0.1 - sigmoid(u).mean())",
        of="u",
        note="In PyTorch, `sigmoid` is `torch.sigmoid`; in JAX, it is `jax.nn.sigmoid`.",
    ),
    Row(
        ("upper bound on voltages", "voltage regularisation"),
        "a common penalty",
        "(F.relu(u - 1) ** 2).mean()",
        "sx.SquaredError(time_axis=0, moving_window=1)(u, u.clip(max=1))",
        "(relu(u - 1) ** 2).mean()",
        of="u",
    ),
    Row(
        ("SynOps", "synaptic operations loss"),
        "Sorbaro et al., Frontiers in Neuroscience, 2020",
        "1e-6 * fan_out * z.sum((0, 2)).mean()",
        "sx.SparsityEnforcer(0, rate_weight=1e-6 * fan_out * T * N, power=1, time_axis=0)(z)",
        "1e-6 * fan_out * z.sum((0, 2)).mean()",
        of="z",
        note="This counts the operations of one layer of `N` neurons with equal fan-out.",
    ),
    Row(
        ("SynOps, with a target",),
        "[Sinabs](https://github.com/synsense/sinabs), `synops_loss_snn.ipynb`",
        "F.relu(fan_out * z.sum(2).mean() - 50) ** 2",
        "sx.SparsityEnforcer(50 / (fan_out * N), rate_weight=(fan_out * N) ** 2, time_axis=0)(z)",
        "relu(fan_out * z.sum(2).mean() - 50) ** 2",
        of="z",
        note="At most 50 operations in each step are free, on average.",
    ),
    Row(
        ("bandwidth limit", "events per step"),
        "no paper that we know; a limit of some chips",
        "(F.relu(z.mean(2) - 0.1) ** 2).mean()",
        'sx.SparsityEnforcer(0.1, per="sample_neuron", time_axis=2)(z.swapaxes(0, 1))',
        "(relu(z.mean(2) - 0.1) ** 2).mean()",
        of="z",
        note="The penalty is on the share of the layer that fires in one step.",
    ),
    Row(
        ("Forward-Forward", "goodness of a layer"),
        "Hinton, arXiv:2212.13345, 2022",
        "F.softplus(torch.where(real, 0.2 - z.mean((0, 2)), z.mean((0, 2)) - 0.2) / 0.05).mean()",
        "sx.SpikeMoid(theta=0.2, alpha=0.05, num_classes=1, time_axis=0)(z, real[:, None])",
        "softplus(jnp.where(real, 0.2 - z.mean((0, 2)), z.mean((0, 2)) - 0.2) / 0.05).mean()",
        of="z",
        note="The goodness is the mean rate of a layer, and `real` is True for real samples.",
    ),
)

TRAINS = (
    Row(
        ("SLAYER", "slayerPytorch", "spikeTime"),
        "Shrestha and Orchard, NeurIPS, 2018 ([code](https://github.com/bamsumit/slayerPytorch))",
        "0.5 * (convolve(x - trains, k) ** 2).sum()",
        '0.5 * sx.SpikeTime(kernel=k, time_axis=0, reduction="sum")(x, trains)',
        "0.5 * (convolve(x - trains, k) ** 2).sum()",
        note="`k` holds the taps of the alpha kernel, up to the one below 0.01. The axes there "
        "are `[batch, class, 1, 1, time]`. For lava-dl, see [Coming from another "
        "library](migrating.md#lava-dl).",
    ),
    Row(
        ("SPAN",),
        "Mohemmed et al., International Journal of Neural Systems, 2012",
        "0.5 * (convolve(x, k) - convolve(trains, k)).pow(2).sum((0, 2)).mean()",
        '0.5 * sx.SpikeTime(kernel=k, time_axis=0, reduction="batchmean")(x, trains)',
        "0.5 * ((convolve(x, k) - convolve(trains, k)) ** 2).sum((0, 2)).mean()",
        note="The paper trains single neurons with the delta rule of this error.",
    ),
    Row(
        ("FSVAE", "fully spiking variational autoencoder", "MMD"),
        "Kamata, Mukuta and Harada, AAAI, 2022 "
        "([code](https://github.com/kamata1729/FullySpikingVAE))",
        "((psp(x) - psp(trains)) ** 2).mean()",
        "sx.SpikeTime(kernel=[0.5 ** (i + 1) for i in range(T)], time_axis=0)(x, trains)",
        "((psp(x) - psp(trains)) ** 2).mean()",
        note="`psp` is the low-pass filter with a time constant of 2. `x` and `trains` are the "
        "latent spikes of the posterior and the prior, averaged over their copies.",
    ),
    Row(
        ("FSVAE, KL",),
        "Kamata, Mukuta and Harada, AAAI, 2022 "
        "([code](https://github.com/kamata1729/FullySpikingVAE))",
        "(q * torch.log((q + 0.01) / (p + 0.01)) "
        "+ (1 - q) * torch.log((1.01 - q) / (1.01 - p))).sum((0, 2)).mean()",
        'sx.SpikeMoid(theta=0, alpha=1, moving_window=1, reduction="batchmean", time_axis=0)'
        "(xp.log((p + 0.01) / (1.01 - p)), q) + (q * xp.log(q + 0.01) "
        "+ (1 - q) * xp.log(1.01 - q) - math.log(1.02)).sum((0, 2)).mean()",
        "(q * jnp.log((q + 0.01) / (p + 0.01)) "
        "+ (1 - q) * jnp.log((1.01 - q) / (1.01 - p))).sum((0, 2)).mean()",
        of="p",
        note="`q` and `p` are the rates of the posterior and the prior, `[time, batch, latent]`. "
        "The gradient is the one of `p`, because a target such as `q` gets none here.",
    ),
    Row(
        ("synchrony within classes", "van Rossum contrast"),
        "with the distance of van Rossum, Neural Computation, 2001",
        "squared_distances(x)[same].mean() - squared_distances(x)[other].mean()",
        "(d := sx.distances.van_rossum(x, time_constant=3.0, squared=True, time_axis=0))[same]"
        ".mean() - d[other].mean()",
        "squared_distances(x)[same].mean() - squared_distances(x)[other].mean()",
        note="`same` and `other` are True for pairs of samples of one class and of two classes.",
    ),
    Row(
        ("NT-Xent", "SimCLR", "contrastive loss"),
        "Chen et al., ICML, 2020",
        "F.cross_entropy(unit(x) @ unit(trains).T / 0.1, torch.arange(B))",
        "-xp.diagonal(log_softmax(sx.distances.similarity(x, trains, time_constant=3.0, "
        "time_axis=0) / 0.1)).mean()",
        "cross_entropy(unit(x) @ unit(trains).T / 0.1, jnp.arange(B))",
        note="`unit` filters the trains of a sample and scales them to length 1. `log_softmax` is "
        "over the last axis. One of the two directions is shown.",
    ),
)

TEACHERS = (
    Row(
        ("knowledge distillation", "KD", "KDSNN"),
        "Hinton, Vinyals and Dean, arXiv:1503.02531, 2015",
        "9 * sum(F.kl_div(F.log_softmax(o / 3, 1), q, reduction='batchmean') "
        "for o, q in zip(v, teacher)) / T",
        "9 * (sx.CrossEntropy(time_axis=0, moving_window=1, temperature=3)(v, teacher) "
        "+ (teacher * xp.log(teacher)).sum(-1).mean())",
        "9 * (teacher * (jnp.log(teacher) - log_softmax(v / 3))).sum(-1).mean()",
        of="v",
        note="`teacher` are its probabilities at each step, at temperature 3.",
    ),
    Row(
        ("TKS", "temporal knowledge sharing", "self-distillation"),
        "Dong, Zhao and Zeng, arXiv:2304.06540, 2023 "
        "([code](https://github.com/Brain-Cog-Lab/TKS))",
        "9 * sum(-(soft * F.log_softmax(o, 1)).sum(1).mean() for o in v) / T",
        "9 * sx.CrossEntropy(time_axis=0, moving_window=1)(v, soft)",
        "9 * sum(-(soft * log_softmax(o)).sum(1).mean() for o in v) / T",
        of="v",
        note="`soft` is the softmax, at temperature 3, of the sum of the outputs at the steps that "
        "are right. The public code also takes the gradient of `soft`.",
    ),
    Row(
        ("feature distillation",),
        "Xu et al., CVPR, 2023, and others",
        "F.mse_loss(z.mean(0), features)",
        "sx.SquaredError(time_axis=0)(z, features)",
        "((z.mean(0) - features) ** 2).mean()",
        of="z",
        note="`features` are the activations of a layer of another network, `[batch, neuron]`.",
    ),
)

RECORDINGS = (
    Row(
        ("NDT", "neural data transformer", "LFADS", "Poisson likelihood"),
        "Ye and Pandarinath, Neurons, Behavior, Data Analysis, and Theory, 2021 "
        "([code](https://github.com/snel-repo/neural-data-transformers)); "
        "Pandarinath et al., Nature Methods, 2018 (LFADS)",
        'nn.PoissonNLLLoss(reduction="none", log_input=True)(v, counts)[m].mean()',
        "sx.PoissonNLL(time_axis=0)(v, counts, where=m)",
        "((jnp.exp(v) - counts * v) * m).sum() / m.sum()",
        of="v",
        note="`v` are log rates, `counts` were recorded, and `m` is True for the steps to predict.",
    ),
    Row(
        ("negative binomial",),
        "scVI (Lopez et al., Nature Methods, 2018) and nemos",
        "-torch.distributions.NegativeBinomial(1 / 0.3, logits=v + math.log(0.3))"
        ".log_prob(counts).mean()",
        "sx.NegativeBinomialNLL(time_axis=0, dispersion=0.3, constant=True)(v, counts)",
        "((counts + 1 / 0.3) * jnp.log1p(0.3 * jnp.exp(v)) - counts * (v + math.log(0.3)) "
        "- lgamma(counts + 1 / 0.3) + lgamma(1 / 0.3) + lgamma(counts + 1)).mean()",
        of="v",
        note="`v` are log rates, and the dispersion is 0.3.",
    ),
)

GROUPS = {
    "Classes": CLASSES,
    "First spikes": FIRST_SPIKES,
    "Hidden layers": LAYERS,
    "Spike trains": TRAINS,
    "Teachers": TEACHERS,
    "Recordings": RECORDINGS,
}

MISSING = (
    Missing(
        ("zero-inflated Poisson",),
        "Lambert, Technometrics, 1992",
        "The logarithm of a mixture of two distributions is no term of a loss here.",
    ),
    Missing(
        ("renewal process", "gamma renewal", "log-normal intervals"),
        "Barbieri et al., Journal of Neuroscience Methods, 2001",
        "It is a likelihood of intervals between spikes, and our likelihoods are of counts.",
    ),
)


def rows() -> Iterator[Row]:
    """Yield the rows of all groups."""
    for group in GROUPS.values():
        yield from group


def first_cell(row: Row | Missing) -> str:
    """Return the first name, with an entry of the index for each name, so that a search finds it.

    A search ranks main entries, which begin with an exclamation mark, as high as titles.
    """
    first, *others = row.names
    also = f" (also {', '.join(f'{{index}}`!{name}`' for name in others)})" if others else ""
    return f"{{index}}`!{first}`{also}"


def page(text: str) -> str:
    """Return the page with its tables written anew."""
    sections = {}
    for heading, group in GROUPS.items():
        cells = (
            (first_cell(row), f"{row.paper}. {row.note}".strip(), f"`{row.there}`", f"`{row.here}`")
            for row in group
        )
        sections[f"## {heading}"] = [table(("loss", "paper and notes", "there", "here"), cells)]
    cells = ((first_cell(row), row.paper, row.reason) for row in MISSING)
    sections["## Losses that cannot be written"] = [table(("loss", "paper", "reason"), cells)]
    return with_tables(text, sections)
