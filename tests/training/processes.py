"""One process of a training that `torchrun` starts in several: writes what it drew and the weights it ends with."""

import os
import sys
from pathlib import Path

import torch
from tests.training.test_trainer import CONFIG, Ragged, Toy, toy, weights
from transformers.modeling_outputs import ModelOutput

from sidrec.config import RunSettings
from sidrec.training.trainer import train_model


class Drawing(Toy):
    """Notes the first number that it draws in training, as dropout and negatives would."""

    drawn: list[float] = []  # noqa: RUF012 - of the process

    def forward(self, input_ids, attention_mask, labels):
        """The loss of `Toy`, after a draw."""
        if self.training:
            self.drawn.append(torch.rand(()).item())
        # Distributed training looks for tensors in outputs of known types only.
        return ModelOutput(loss=super().forward(input_ids, attention_mask, labels).loss)


def trained(folder: Path) -> dict[str, object]:
    """What was drawn, the weights before and after, the best step, and the digest of the start; scratch in a folder.

    Validation gives ever more in the first process, ever less in the others.
    """
    rising = os.environ.get("RANK", "0") == "0"
    figures = iter(range(100) if rising else range(100, 0, -1))
    model = toy(dropout=0.0)
    model.__class__ = Drawing
    start = weights(model)
    Drawing.drawn.clear()
    config = CONFIG.model_copy(update={"patience": 1})
    run = RunSettings(device="cpu", seed=5, scratch=folder)
    report = train_model(model, Ragged.draw(num=64), config, run, validate=lambda: {"metric": float(next(figures))})
    return {
        "drawn": list(Drawing.drawn),
        "start": start,
        "weights": weights(model),
        "best_step": report.best_step,
        "digest": (folder / "checkpoints" / "start.json").read_text(),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    torch.save(trained(target.parent / "scratch"), target)
