"""Train with the recipe for Lightning in two processes: ``run_lightning.py FOLDER RANK``."""

import pickle
import sys
from pathlib import Path

import in_lightning
import lightning
import torch
from run_torch import Model

from _support.split import PARTS


class Recording(in_lightning.Classifier):
    """The recipe, which keeps its loss and its gradient."""

    def training_step(self, batch, batch_idx):
        value = super().training_step(batch, batch_idx)
        self.value = value.detach().numpy()
        return value

    def on_after_backward(self):
        self.gradient = self.network.matrix.grad.numpy().copy()


def evaluate(batch, part):
    """Return the loss and the gradient of a training step."""
    options = {name: torch.asarray(x) for name, x in part.options.items()}
    weight = options.pop("weight", None)
    module = Recording(Model(batch.spikes.shape[1]), batch.loss, class_weights=weight)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=1, use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    data = [(torch.asarray(part.spikes), torch.asarray(part.target), options)]
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    trainer.fit(module, loader)
    return module.value, module.gradient


def main(rank: int, folder: Path) -> None:
    batches = pickle.loads((folder / "batches.pickle").read_bytes())
    found = {name: evaluate(batch, batch.part(PARTS[rank])) for name, batch in batches.items()}
    (folder / f"results-{rank}.pickle").write_bytes(pickle.dumps(found))
    # Lightning keeps the group of processes. A thread of it can abort a process that ends.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[2]), Path(sys.argv[1]))
