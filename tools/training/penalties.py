"""Print how penalties reduce the activity of a hidden layer.

``python tools/training/penalties.py`` takes two minutes and requires scikit-learn. Three networks,
one for each seed, learn to classify digits. The program prints the mean rate of the hidden layer,
the rate of its most active neuron and the accuracy, each averaged over the networks.
"""

import networks
import numpy as np
import torch
import training_data as data
from measure import PLAIN

import spikeloss_xp as sx
from spikeloss_xp.slayer import published

PENALTIES = {
    "none": lambda hidden: 0.0,
    "SparsityEnforcer(0.05, 100)": sx.SparsityEnforcer(0.05, rate_weight=100, time_axis=-1),
    "the same, as lava-dl computes it": published.SparsityEnforcer(
        0.05, rate_weight=100, time_axis=-1
    ),
}


def main(epochs: int = 15) -> None:
    torch.set_num_threads(1)
    loss = sx.CrossEntropy(time_axis=0)
    (x, label), (test, test_label) = data.load("digits 20")
    for name, penalty in PENALTIES.items():
        found = []
        for seed in range(3):
            network = networks.Network(PLAIN["fast sigmoid"]._replace(seed=seed), x.shape[2])
            list(networks.train(network, loss, x, label, epochs, 100, penalty))
            with torch.no_grad():
                hidden, output = network.layers(test)
            rates = hidden.mean((0, 1))  # of each neuron
            found.append((rates.mean(), rates.max(), loss.accuracy(output, test_label)))
        print(f"{name:33}", *(f"{x:.3f}" for x in np.mean(found, axis=0)))


if __name__ == "__main__":
    main()
