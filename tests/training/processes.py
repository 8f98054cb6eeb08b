"""One process of a training that `torchrun` starts in several: writes what it drew and the weights it ends with."""

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


def trained() -> dict[str, object]:
    """What was drawn, the weights before and the weights after."""
    model = toy(dropout=0.0)
    model.__class__ = Drawing
    start = weights(model)
    Drawing.drawn.clear()
    train_model(model, Ragged.draw(num=64), CONFIG, RunSettings(device="cpu", seed=5))
    return {"drawn": list(Drawing.drawn), "start": start, "weights": weights(model)}


if __name__ == "__main__":
    torch.save(trained(), Path(sys.argv[1]))
