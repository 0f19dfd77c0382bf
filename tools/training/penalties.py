"""Print how penalties reduce the activity of a hidden layer.

``python tools/training/penalties.py`` takes two minutes and requires scikit-learn. Three networks,
one for each seed, learn to classify digits. The program prints the mean rate of the hidden layer,
the rate of its most active neuron and the accuracy, each averaged over the networks.
"""

import torch
import training_data as data
import training_networks as networks

import spikeloss_xp as sx

SEEDS, EPOCHS, BATCH, RATE = 3, 15, 100, 0.002
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
        weights = networks.initial(SEEDS, "one hidden", spikes.shape[2], 0.0)
        weights = [torch.tensor(each, requires_grad=True) for each in weights]
        optimiser = torch.optim.Adam(weights, lr=RATE)

        def layers(x, weights=weights):
            """Return the spikes of both layers, ``[time, seed, batch, neuron]``."""
            first, first_bias, second, second_bias = weights
            hidden = networks.neurons(x @ first + first_bias, "fast sigmoid")
            return hidden, networks.neurons(hidden @ second + second_bias, "fast sigmoid")

        generators = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
        for _ in range(EPOCHS):
            orders = torch.stack([torch.randperm(len(label), generator=g) for g in generators])
            for chosen in orders.split(BATCH, dim=1):
                hidden, output = layers(spikes[:, chosen])
                value = SEEDS * loss(output.flatten(1, 2), label[chosen].flatten())
                optimiser.zero_grad()
                (value + penalty(hidden.unbind(1))).backward()  # a term for each network
                optimiser.step()
        with torch.no_grad():
            hidden, output = layers(test[:, None].expand(-1, SEEDS, -1, -1))
            right = loss.predict(output.flatten(1, 2)).reshape(SEEDS, -1) == test_label
            rates = hidden.mean((0, 2))  # of each neuron
        figures = rates.mean(), rates.amax(1).mean(), right.double().mean()
        print(f"{name:28}", *(f"{float(x):.3f}" for x in figures))


if __name__ == "__main__":
    main()
