"""That training trains, does what its settings say, and goes on after a kill to the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ConfigError, TrainingError
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.letter import Letter
from sidrec.tokenizers.quality import code_quality, relative_error
from sidrec.tokenizers.quantizer import ResidualQuantizer
from sidrec.tokenizers.rqkmeans import RQKMeans
from sidrec.tokenizers.rqvae import RQVAE

SMALL = {"layers": (32,), "latent_dim": 8, "levels": 2, "codebook_size": 16, "batch_size": 32}


def items(vectors: np.ndarray) -> ItemEmbeddings:
    return ItemEmbeddings(vectors, "blobs", "digest")


def error_of(tokenizer: RQVAE | RQKMeans, embeddings: ItemEmbeddings) -> float:
    codes = tokenizer.quantize(embeddings.vectors)
    return relative_error(embeddings.vectors, tokenizer.reconstruct(codes))


def test_training_lowers_the_error_and_keeps_callers_random_state() -> None:
    embeddings = items(blobs(400, 16))
    state = torch.random.get_rng_state()
    errors = [error_of(RQVAE(**SMALL, epochs=epochs, dropout=0.01).fit(embeddings), embeddings) for epochs in (1, 40)]
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.35
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "rotation"},
        {"ema_decay": 0.95},
        {"batch_norm": True},
        {"reconstruction": "l1"},
        {"commit": "first"},
        {"sinkhorn": (0.0, 0.01)},
        {"init": "uniform"},
        {"init": "first_batch"},
        {"init": "balanced"},
        {"precision": "bf16"},
        {"skip": True},
        {"optimizer": "rmsprop", "lr": 1e-3},
    ],
    ids=lambda options: ", ".join(f"{name}={value}" for name, value in options.items()),
)
def test_every_option_learns(options: dict[str, object]) -> None:
    embeddings = items(blobs(200, 16))
    tokenizer = RQVAE(**{**SMALL, "epochs": 30, **options}).fit(embeddings, RunSettings(seed=3))
    assert error_of(tokenizer, embeddings) < 0.6


def test_the_best_state_is_kept() -> None:
    embeddings = items(blobs(200, 16))
    # A learning rate that destroys what it learned: the last state is not the best.
    settings = {**SMALL, "lr": 0.3, "schedule": "constant", "epochs": 12, "revive_every": 0}
    score = {}
    for every in (0, 1):
        tokenizer = RQVAE(**settings, validate_every=every).fit(embeddings)
        codes = tokenizer.quantize(embeddings.vectors)
        collisions = code_quality(codes, tokenizer.sizes)["collision_rate"]
        score[every] = error_of(tokenizer, embeddings) + collisions
    assert score[1] < score[0]


@pytest.mark.parametrize("monitor", ["collisions", "gini", "error"])
def test_training_stops_when_the_monitored_figure_no_longer_falls(monitor: str) -> None:
    looks: list[tuple[int, dict[str, float]]] = []
    tokenizer = RQVAE(**SMALL, epochs=400, validate_every=1, patience=3, monitor=monitor)
    tokenizer.look = lambda epoch, figures: looks.append((epoch, figures))
    tokenizer.fit(items(blobs(100, 16)))
    assert len(looks) < 400
    values = [figures[monitor] for _, figures in looks]
    best = int(np.argmin(values))
    assert len(values) == best + 1 + 3


def test_dead_codes_come_back() -> None:
    draw = np.random.default_rng(0)
    embeddings = items(draw.normal(size=(300, 16)).astype(np.float32))
    used = {}
    for every in (0, 2):
        settings = {**SMALL, "codebook_size": 64, "init": "uniform", "epochs": 24, "validate_every": 0}
        codes = RQVAE(**settings, revive_every=every).fit(embeddings).quantize(embeddings.vectors)
        used[every] = len(np.unique(codes[:, 0])) + len(np.unique(codes[:, 1]))
    assert used[2] > used[0]


def test_a_warm_start_begins_as_rq_k_means_and_goes_below_its_error() -> None:
    # A curved surface: what a code cannot say, the decoder can guess from the code.
    place = np.random.default_rng(0).uniform(-3, 3, size=(300, 2))
    waves = [wave(factor * place) for factor in (0.5, 1, 1.5, 2) for wave in (np.sin, np.cos)]
    embeddings = items(np.concatenate(waves, axis=1).astype(np.float32))
    tokenizer = RQVAE(**SMALL, skip=True, standardize=False)
    training = tokenizer.training(embeddings, RunSettings())
    latents = training.network.eval().encode_all(training.vectors_ND)
    assert torch.equal(latents, training.vectors_ND)
    books = [book.detach().numpy() for book in training.network.quantizer.codebooks]
    assert [book.shape for book in books] == [(16, 16), (16, 16)]
    kmeans = RQKMeans(levels=2, codebook_size=16).fit(embeddings)
    start = training.figures()["error"]
    assert start == pytest.approx(error_of(kmeans, embeddings), rel=0.15)
    settings = {**SMALL, "skip": True, "standardize": False, "epochs": 60, "monitor": "error"}
    assert error_of(RQVAE(**settings).fit(embeddings), embeddings) < 0.9 * start


def test_unequal_levels() -> None:
    settings = {key: value for key, value in SMALL.items() if key not in ("levels", "codebook_size")}
    tokenizer = RQVAE(**settings, codebook_sizes=(4, 32, 8), epochs=2).fit(items(blobs(200, 16)))
    assert tokenizer.sizes == (4, 32, 8)


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="sinkhorn has 1 values for 3 levels"):
        RQVAE(sinkhorn=(0.003,))
    with pytest.raises(ConfigError, match=r"init=first_batch looks at 128 items.* raise batch_size"):
        RQVAE(init="first_batch")
    with pytest.raises(ConfigError, match="raise init_sample"):
        RQVAE(init_sample=200)
    with pytest.raises(ConfigError, match="neither skip connections nor moving averages"):
        RQVAE(weights="some.pth", skip=True)
    with pytest.raises(ConfigError, match="set validate_every"):
        RQVAE(patience=2, validate_every=0)


def test_a_last_batch_of_one_item_joins_the_one_before() -> None:
    embeddings = items(blobs(65, 16))
    training = RQVAE(**SMALL).training(embeddings, RunSettings())
    assert [len(rows) for rows in training.batch_rows(3)] == [32, 33]
    assert training.batches == 2
    RQVAE(**SMALL, batch_norm=True, epochs=2).fit(embeddings)


def test_codes_are_revived_after_the_look_not_before() -> None:
    figures: dict[int, dict[int, float]] = {}
    for every in (0, 5):
        tokenizer = RQVAE(
            **{**SMALL, "codebook_size": 64}, init="uniform", epochs=8, validate_every=1, revive_every=every
        )
        found = figures.setdefault(every, {})
        tokenizer.look = lambda epoch, seen, found=found: found.update({epoch: seen["error"]})
        tokenizer.fit(items(blobs(100, 16)))
    assert [figures[0][epoch] for epoch in range(1, 6)] == [figures[5][epoch] for epoch in range(1, 6)]
    assert figures[0][6] != figures[5][6]


def test_a_loss_that_is_no_number_ends_training_with_advice() -> None:
    with pytest.raises(TrainingError, match="no longer a number in epoch"):
        RQVAE(**SMALL, epochs=50, lr=1e30, schedule="constant", optimizer="sgd").fit(items(blobs(64, 16)))


TRAIN = """
import sys
from pathlib import Path
from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers import rqvae_training
from sidrec.tokenizers.letter import Letter
rqvae_training.CHECKPOINT_SECONDS = 0.0
vectors, behaviour = (ItemEmbeddings(blobs(300, dims), "blobs", "digest") for dims in (16, 8))
settings = dict(layers=(32,), latent_dim=8, levels=2, codebook_size=16, batch_size=32, epochs=30, clusters=3)
settings |= dict(dropout=0.1, validate_every=4, revive_every=3, cluster_every=2, sinkhorn=(0.0, 0.003))
Letter(**settings).fit(vectors, RunSettings(scratch=Path(sys.argv[1])), behaviour).save(Path(sys.argv[2]))
"""


def start(scratch: Path, out: Path) -> "subprocess.Popen[bytes]":
    out.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(scratch), str(out)], env=environment)


def steps_in(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    with safe_open(checkpoint, framework="np") as file:
        return json.loads(file.metadata()["facts"])["step"]


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    checkpoint = tmp_path / "scratch" / "training.safetensors"
    process = start(tmp_path / "scratch", tmp_path / "killed")
    # Epochs of ten steps: behind the first look, two revivals and several clusterings.
    while process.poll() is None and steps_in(checkpoint) < 75:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "killed in the middle, not after the end"
    assert start(tmp_path / "scratch", tmp_path / "killed").wait() == 0
    assert start(tmp_path / "fresh", tmp_path / "whole").wait() == 0
    weights = [(tmp_path / name / "tokenizer.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidrec.tokenizers.rqvae_training.CHECKPOINT_SECONDS", 0.0)
    embeddings = items(blobs(100, 16))
    settings = {**SMALL, "alpha": 0.0, "epochs": 3}
    Letter(**settings).fit(embeddings, RunSettings(scratch=tmp_path))
    assert (tmp_path / "training.safetensors").exists()
    again = Letter(**settings, lr=1e-4).fit(embeddings, RunSettings(scratch=tmp_path))
    fresh = Letter(**settings, lr=1e-4).fit(embeddings)
    for one, other in zip(again.codebooks, fresh.codebooks, strict=True):
        assert np.array_equal(one, other)


def test_large_catalogues_start_from_a_drawn_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    initialize = ResidualQuantizer.initialize

    def watched(self: ResidualQuantizer, latents: torch.Tensor, **settings: object) -> None:
        seen.append(latents)
        initialize(self, latents, **settings)

    monkeypatch.setattr(ResidualQuantizer, "initialize", watched)
    embeddings = items(blobs(300, 16))
    for sample in (300, 50, 50):
        training = RQVAE(**SMALL, init_sample=sample).training(embeddings, RunSettings(seed=1))
    everything, some, again = seen
    assert [len(latents) for latents in seen] == [300, 50, 50]
    assert torch.equal(some, again), "the same seed draws the same items"
    assert not torch.equal(some, everything[:50]), "not the first ones"
    assert training.figures()["error"] < 1.5
