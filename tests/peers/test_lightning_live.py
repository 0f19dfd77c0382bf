"""The recipe for Lightning in two processes, and hyper-parameters and checkpoints, if installed."""

import numpy as np
import pytest

from _support.side_by_side import import_peer

import_peer("lightning")
import lightning
import torch

import spikeloss_xp as sx
from _support.processes import (
    CASES,
    EACH_LOSS,
    RTOL,
    error,
    free_port,
    launch,
    one_process,
    recipes,
)

NAMES = [name for name in EACH_LOSS if not name.startswith("no")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run one training step for each case, in one group of processes."""
    environment = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    environment |= {"NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("lightning")
    batches = {name: CASES[name] for name in NAMES}
    return launch("run_lightning.py", folder, batches, number=2, **environment)


@pytest.mark.parametrize("name", NAMES)
def test_training_step_equals_one_process(results, name):
    values, (first, second) = zip(*(found[name] for found in results), strict=True)
    assert np.array_equal(first, second)
    assert error((np.mean(values), first), one_process(CASES[name])) < RTOL


# Lightning itself calls what a newer PyTorch deprecates.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_checkpoint_restores_loss_and_class_weights(tmp_path):
    module = recipes("in_lightning").Classifier
    loss = sx.SpikeMax(3, mode="softmax", reduction="mean")  # of any output, negative too
    torch.manual_seed(0)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(**options, max_steps=1, enable_checkpointing=False)
    batch = torch.ones(2, 3, 5), torch.tensor([0, 2]), {"lengths": torch.tensor([5, 3])}
    trained = module(torch.nn.Linear(5, 5), loss, class_weights=[1.0, 2.0, 3.0])
    trainer.fit(trained, torch.utils.data.DataLoader([batch], batch_size=None))
    trainer.save_checkpoint(tmp_path / "checkpoint")
    new = {"network": torch.nn.Linear(5, 5), "class_weights": torch.zeros(3)}
    loaded = module.load_from_checkpoint(tmp_path / "checkpoint", **new, weights_only=False)
    assert loaded.hparams.loss == loaded.loss.loss == loss
    assert loaded.loss.weight.tolist() == [1, 2, 3]
