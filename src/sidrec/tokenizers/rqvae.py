"""RQ-VAE: an autoencoder whose latent is quantized level by level, as TIGER, LC-Rec, LETTER, GRec and ETEGRec train it.

TIGER (2023, arXiv:2305.05065), LC-Rec (2023, arXiv:2311.09049), LETTER (2024, arXiv:2405.07314) without its
collaborative and diversity terms, which `letter` adds. Nothing is variational. Deviations of the defaults from the
published code: inputs are standardised, the commitment of every level reaches the encoder (`commit="first"` is
theirs), codebooks start from k-means over all items, unused codes are revived, the learning rate falls, the best
state is kept, and encoding never needs the trainer. What some of them gave is in the project's log.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from sidrec.artifact import file_digest
from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError
from sidrec.random import torch_seed
from sidrec.tokenizers.autoencoder import AutoencoderTokenizer
from sidrec.tokenizers.published import published_state
from sidrec.tokenizers.quantizer import ResidualQuantizer
from sidrec.tokenizers.rqvae_config import RQVAEConfig
from sidrec.tokenizers.rqvae_network import ResidualAutoencoder
from sidrec.tokenizers.rqvae_training import Look, RQVAETraining, Term
from sidrec.training.checkpoints import find_checkpoint, start_digest
from sidrec.training.isolation import isolated_rng
from sidrec.types import FloatArray, Metric

__all__ = ["RQVAE"]

BOOK = "quantizer.codebooks."


class RQVAE(AutoencoderTokenizer):
    """A learned residual quantizer.

    Attributes:
        look: hears of every look at all items in training, for learning curves; None by default.
    """

    class Config(RQVAEConfig):
        """RQ-VAE."""

        kind: Literal["rqvae"] = "rqvae"  # type: ignore[assignment]  # narrows the family's field

    look: Look | None = None

    @property
    def metric(self) -> Metric:
        """As configured."""
        return self.config.metric

    def sources(self) -> dict[str, str]:
        """The digest of the published weights, if they are taken over."""
        if not self.config.weights:
            return {}
        path = Path(self.config.weights)
        if not path.is_file():
            raise DataError("there is no such file of weights", where=str(path), next="check tokenizer.weights")
        return {"weights": file_digest(path)}

    def fit(
        self,
        embeddings: ItemEmbeddings,
        run: RunSettings = RunSettings(),
        collaborative: ItemEmbeddings | None = None,
    ) -> Self:
        """Train the network, or take over published weights; keeps the best state it saw.

        Args:
            embeddings: vectors of the catalogue.
            run: seed, device, progress; with a scratch folder a killed training goes on from its last checkpoint.
            collaborative: vectors learnt from what users did, for `terms`.

        Raises:
            DataError: published weights do not fit the vectors, or the collaborative vectors are of other items.
            TrainingError: the loss is no longer a number.
        """
        _check_pair(embeddings, collaborative)
        vectors_ND = torch.from_numpy(np.ascontiguousarray(embeddings.vectors, np.float32))
        if self.config.weights:
            self._adopt(self._published(vectors_ND.shape[1]))
            return self
        device = run.torch_device()
        vectors_ND = vectors_ND.to(device)
        # Dropout draws from the global stream; the caller's state stays as it was.
        with isolated_rng():
            network, training = self._prepared(vectors_ND, run, collaborative)
            with run.progress("train the tokenizer", self.config.epochs) as advance:
                network.load_state_dict(training.run(advance, self._scratch(run, network, embeddings, collaborative)))
        self._adopt(network)
        return self

    def terms(self, network: ResidualAutoencoder, collaborative: ItemEmbeddings | None, seed: int) -> Sequence[Term]:
        """Further losses of a method that is built on this one."""
        return ()

    def training(
        self, embeddings: ItemEmbeddings, run: RunSettings, collaborative: ItemEmbeddings | None = None
    ) -> RQVAETraining:
        """The training that `fit` runs, not begun: for looking at single steps.

        With dropout its steps seed torch's global stream, which `fit` puts back.
        """
        vectors_ND = torch.from_numpy(np.ascontiguousarray(embeddings.vectors, np.float32)).to(run.torch_device())
        return self._prepared(vectors_ND, run, collaborative)[1]

    def _prepared(
        self, vectors_ND: Tensor, run: RunSettings, collaborative: ItemEmbeddings | None
    ) -> tuple[ResidualAutoencoder, RQVAETraining]:
        config: RQVAE.Config = self.config
        dims = vectors_ND.shape[1]
        latent_dim = dims if config.skip else config.latent_dim
        network = self._new_network([dims, *config.layers, latent_dim], config.sizes)
        network.initialize_weights(torch_seed(run.seed, "rqvae", "weights"))
        network.to(vectors_ND.device)
        if config.standardize:
            network.fit_scaler(vectors_ND)
        self._initialize_codebooks(network, vectors_ND, run.seed)
        terms = self.terms(network, collaborative, run.seed)
        return network, RQVAETraining(config, network, vectors_ND, run.seed, terms=terms, look=self.look)

    def _initialize_codebooks(self, network: ResidualAutoencoder, vectors_ND: Tensor, seed: int) -> None:
        config: RQVAE.Config = self.config
        seed_of_codes = torch_seed(seed, "rqvae", "codebooks")
        if config.init == "uniform":
            network.quantizer.initialize_uniform(seed_of_codes)
            return
        points_ND = vectors_ND
        if config.init == "first_batch":
            points_ND = vectors_ND[RQVAETraining(config, network, vectors_ND, seed).batch_rows(0)[0]]
        elif len(vectors_ND) > config.init_sample:
            generator = torch.Generator().manual_seed(seed_of_codes)
            rows = torch.randperm(len(vectors_ND), generator=generator)[: config.init_sample]
            points_ND = vectors_ND[rows.sort().values.to(vectors_ND.device)]
        network.eval()
        network.quantizer.initialize(
            network.encode_all(points_ND),
            balanced=config.init == "balanced",
            iterations=config.init_iterations,
            seed=seed_of_codes,
        )

    def _scratch(
        self,
        run: RunSettings,
        network: ResidualAutoencoder,
        embeddings: ItemEmbeddings,
        collaborative: ItemEmbeddings | None,
    ) -> Path | None:
        """The folder of this training's checkpoint; what another training left there is removed."""
        if run.scratch is None:
            return None
        parts = [embeddings.vectors, None if collaborative is None else collaborative.vectors]
        find_checkpoint(run.scratch, start_digest(network, parts, self.config, run))
        return run.scratch

    def _published(self, dims: int) -> ResidualAutoencoder:
        """The network of published weights."""
        path: str = self.config.weights
        try:
            network = self._network_of(published_state(Path(path)))
        except (KeyError, IndexError, RuntimeError) as error:
            raise DataError(
                f"the published weights do not fit together: {str(error).strip().splitlines()[-1].strip()}",
                where=path,
                expected="encoder, decoder and codebooks of one network",
            ) from error
        if len(network.mean) != dims:
            raise DataError(
                f"the published weights take vectors of {len(network.mean)} dimensions, these have {dims}",
                where=path,
                next="make vectors with the encoder that the weights were trained on",
            )
        return network

    def _network_of(self, state: dict[str, Tensor]) -> ResidualAutoencoder:
        """The network whose state this is; shapes come from the state, since codebooks may have shrunk."""
        books = [state[f"{BOOK}{level}"] for level in range(sum(name.startswith(BOOK) for name in state))]
        layers = {int(name.split(".")[1]): state[name] for name in state if re.fullmatch(r"encoder\.\d+\.weight", name)}
        matrices = [layers[number] for number in sorted(layers) if layers[number].ndim == len(("out", "in"))]
        network = self._new_network([matrices[0].shape[1], *map(len, matrices)], list(map(len, books)))
        network.load_state_dict(state)
        return network

    def _books_of(self, network: ResidualAutoencoder) -> list[FloatArray]:
        return [book.detach().numpy() for book in network.quantizer.codebooks]

    def _new_network(self, widths: Sequence[int], sizes: Sequence[int]) -> ResidualAutoencoder:
        config: RQVAE.Config = self.config
        quantizer = ResidualQuantizer(
            sizes,
            widths[-1],
            metric=config.metric,
            rule=config.commit,
            gradient=config.gradient,
            epsilons=config.sinkhorn if len(config.sinkhorn) == len(sizes) else (),
            sinkhorn_iterations=config.sinkhorn_iterations,
            decay=config.ema_decay,
        )
        return ResidualAutoencoder(
            widths,
            quantizer,
            dropout=config.dropout,
            batch_norm=config.batch_norm and not config.weights,
            skip=config.skip,
            reconstruction=config.reconstruction,
            temperature=config.temperature,
        )


def _check_pair(embeddings: ItemEmbeddings, collaborative: ItemEmbeddings | None) -> None:
    if collaborative is None:
        return
    mine, theirs = ((len(each.vectors), each.catalog_digest) for each in (embeddings, collaborative))
    if mine != theirs:
        raise DataError(
            f"{mine[0]} vectors of catalogue {mine[1][:12]}, "
            f"{theirs[0]} collaborative vectors of catalogue {theirs[1][:12]}",
            where=f"{embeddings.encoder}; {collaborative.encoder}",
            expected="both of the same items in the same order",
            next="make the collaborative vectors from the same dataset",
        )
