"""Weights in the layout of LETTER and LC-Rec give the codes that their own network gives."""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.base import load_tokenizer
from sidrec.tokenizers.rqvae import RQVAE

WIDTHS = [16, 24, 12, 4]
VECTORS = ItemEmbeddings(blobs(60), "blobs", "digest")


class Layers(nn.Module):
    """Dropout, linear, batch norm if there is any, ReLU, as the published modules are nested and numbered."""

    def __init__(self, widths: Sequence[int], batch_norm: str) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths)):
            is_last = number == len(widths) - 2
            modules += [nn.Dropout(0.1), nn.Linear(before, after)]
            if batch_norm == "everywhere" or (batch_norm == "inside" and not is_last):
                modules.append(nn.BatchNorm1d(after))
            if not is_last:
                modules.append(nn.ReLU())
        self.mlp_layers = nn.Sequential(*modules)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.mlp_layers(vectors)


class Level(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)


class Levels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vq_layers = nn.ModuleList(Level() for _ in range(3))


class Theirs(nn.Module):
    """A network of the published layout with statistics as after training."""

    def __init__(self, batch_norm: str = "none") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = Layers(WIDTHS, batch_norm), Layers(WIDTHS[::-1], batch_norm)
        self.rq = Levels()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        self.eval()

    @torch.no_grad()
    def codes(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = self.encoder(torch.from_numpy(vectors))
        total, chosen = torch.zeros_like(rest), []
        for level in self.rq.vq_layers:
            chosen.append(torch.cdist(rest, level.embedding.weight).argmin(1))
            total = total + level.embedding.weight[chosen[-1]]
            rest = rest - level.embedding.weight[chosen[-1]]
        return torch.stack(chosen, 1).numpy(), self.decoder(total).numpy()


@pytest.mark.parametrize("batch_norm", ["none", "inside", "everywhere"])
@pytest.mark.parametrize("form", ["safetensors", "state dict", "checkpoint"])
def test_codes_and_reconstructions_are_theirs(batch_norm: str, form: str, tmp_path: Path) -> None:
    theirs = Theirs(batch_norm)
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(theirs.state_dict(), path)
    elif form == "state dict":
        torch.save(theirs.state_dict(), path)
    else:
        args = argparse.Namespace(lr=1e-3, layers=WIDTHS[1:-1], bn=True)
        torch.save({"args": args, "epoch": 3, "best_loss": 0.1, "state_dict": theirs.state_dict()}, path)
    tokenizer = RQVAE(weights=str(path)).fit(VECTORS)
    codes, rebuilt = theirs.codes(VECTORS.vectors)
    assert tokenizer.sizes == (8, 8, 8)
    assert np.array_equal(tokenizer.quantize(VECTORS.vectors), codes)
    np.testing.assert_allclose(tokenizer.reconstruct(codes), rebuilt, rtol=1e-4, atol=1e-4)
    home = tmp_path / "saved"
    home.mkdir()
    tokenizer.save(home)
    path.unlink()
    assert np.array_equal(load_tokenizer(home).quantize(VECTORS.vectors), codes)


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.path, "was run")


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"state_dict": Theirs().state_dict(), "extra": Harmful(trace)}, path)
    with pytest.raises(DataError, match="no file of weights that can be read without running code"):
        RQVAE(weights=str(path)).fit(VECTORS)
    assert not trace.exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({**Theirs().state_dict(), "surprise": torch.ones(1)}, path)
    with pytest.raises(DataError, match="unknown keys: surprise"):
        RQVAE(weights=str(path)).fit(VECTORS)
    save_file({"encoder.mlp_layers.1.weight": torch.ones(2, 2)}, path)
    with pytest.raises(DataError, match="codebooks missing"):
        RQVAE(weights=str(path)).fit(VECTORS)
    theirs = Theirs().state_dict()
    save_file({name: tensor for name, tensor in theirs.items() if name != "encoder.mlp_layers.1.weight"}, path)
    with pytest.raises(DataError, match="do not fit together"):
        RQVAE(weights=str(path)).fit(VECTORS)
    save_file({**theirs, "rq.vq_layers.1.embedding.weight": torch.ones(8, 5)}, path)
    with pytest.raises(DataError, match="do not fit together"):
        RQVAE(weights=str(path)).fit(VECTORS)
    save_file(Theirs().state_dict(), path)
    with pytest.raises(DataError, match="take vectors of 16 dimensions, these have 5"):
        RQVAE(weights=str(path)).fit(ItemEmbeddings(blobs(9, 5), "blobs", "digest"))
    with pytest.raises(DataError, match="no such file"):
        RQVAE(weights=str(tmp_path / "nowhere.pth")).sources()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="no state dict"):
        RQVAE(weights=str(tmp_path / "list.pth")).fit(VECTORS)
