"""Print how penalties reduce the activity of a hidden layer.

``python tools/training/penalties.py`` takes two minutes and requires scikit-learn. Three networks,
one for each seed, learn to classify digits. The program prints the mean rate of the hidden layer,
the rate of its most active neuron and the accuracy, each averaged over the networks.
"""

import networks
import torch
import training_data as data
from measure import PLAIN

import spikeloss_xp as sx

SEEDS, EPOCHS, BATCH = 3, 15, 100
PENALTIES = {
    "none": lambda layers: 0.0,
    "SparsityEnforcer(0.05, 100)": sx.SparsityEnforcer(0.05, 100),
    'the same, numerics="lava"': sx.SparsityEnforcer(0.05, 100, numerics="lava"),
}


def main() -> None:
    torch.set_num_threads(1)
    loss = sx.CrossEntropy(time_axis=0)
    (spikes, label), (test, test_label) = data.load("digits 20")
    for name, penalty in PENALTIES.items():
        settings = PLAIN["fast sigmoid"]._replace(rate=0.002, seeds=SEEDS)
        network = networks.build(settings, spikes.shape[2])
        generators = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
        for _ in range(EPOCHS):
            orders = torch.stack([torch.randperm(len(label), generator=g) for g in generators])
            for chosen in orders.split(BATCH, dim=1):
                hidden, output = network.spikes(network.weights, spikes[:, chosen])
                value = SEEDS * loss(output.flatten(1, 2), label[chosen].flatten())
                network.optimiser.zero_grad()
                (value + penalty(hidden.unbind(1))).backward()  # a term for each network
                network.optimiser.step()
        batch = test[:, None].expand(-1, SEEDS, -1, -1)
        hidden, output = network.evaluated(network.weights, batch)
        right = loss.predict(output.flatten(1, 2)).reshape(SEEDS, -1) == test_label
        rates = hidden.mean((0, 2))  # of each neuron
        figures = rates.mean(), rates.amax(1).mean(), right.double().mean()
        print(f"{name:28}", *(f"{float(x):.3f}" for x in figures))


if __name__ == "__main__":
    main()
