"""The one way in which models are trained: `transformers.Trainer`, told what this library wants.

Borrowed: accumulation, mixed precision, distribution, checkpoints. Ours: which examples share a batch, the
mean over target tokens, validation by recommending, keeping the best state, silence. Leaves out objectives
(models compute their own loss) and the tokenizers' loop.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments, get_scheduler

from sidrec.config import RunSettings
from sidrec.errors import ArtifactError, ConfigError, TrainingError
from sidrec.random import torch_seed
from sidrec.training.batch_loss import OWN_LOSS, BatchLoss
from sidrec.training.batches import IDLE, BatchDataset, TrainingExamples, num_examples, num_targets, padding_of
from sidrec.training.checkpoints import find_checkpoint, keep_only, start_digest
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.training.freezing import FrozenRows
from sidrec.training.isolation import isolated_process
from sidrec.training.watch import StepWatch, Validation

__all__ = ["train_model"]

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def train_model(
    model: nn.Module,
    examples: TrainingExamples,
    training: TrainingConfig,
    run: RunSettings,
    *,
    validate: Validation | None = None,
    frozen: Sequence[FrozenRows] = (),
    keep_start: bool = False,
    loss: BatchLoss = OWN_LOSS,
) -> TrainReport:
    """Train a model in place and leave it, in evaluation mode, in the state that validated best.

    With `training.ema_decay` every state that is validated and kept is a moving average; with
    `training.average` the mean of the best ones is the final state, if it validates at least as well.

    The mean loss of an optimizer step is taken over all its targets, however it is accumulated. What is no mean over
    targets depends on the pieces: experts' balance and in-batch negatives are those of one forward pass. With
    `run.scratch` a killed run goes on where it was, with the same result.

    Args:
        model: with its first weights (draw them inside `isolated_rng` for a reproducible run).
        examples: what to train on.
        training: how long and how.
        run: seed, device, progress, scratch.
        validate: scores the model as it is now; by its first figure states are chosen, the highest or, with
            `training.select` "loss", the lowest.
        frozen: rows of tables of the model that stay as they are.
        keep_start: validate the first state too, and keep it unless a later one is better.
        loss: of a batch; by default the model is called with what `examples.collate` returns and answers with a
            `.loss`, the mean over the labels that are not `IGNORE`.

    Raises:
        TrainingError: loss, validation figure or final weights are not finite.
        ConfigError: the batch size cannot be cut into the pieces asked for, there is no such device, or states are to
            be averaged that nothing validates.
        ArtifactError: a checkpoint cannot be written.
    """
    if not len(examples):
        raise TrainingError("there are no training examples", expected="at least one", next="check the split")
    if training.average > 1 and validate is None:
        raise ConfigError(
            f"training.average: there is no validation to choose {training.average} states by",
            next="set training.average=0, or prepare the dataset with a split that has a validation part",
        )
    started = time.perf_counter()
    with (
        ExitStack() as held,
        isolated_process(_seed(run)),
        _plain_model(model),
        _folder(run) as folder,
    ):
        for table in frozen:
            held.enter_context(table.held())
        arguments, checkpoint = _arguments(training, run, folder), None
        if run.scratch is not None:
            digest = start_digest(model, examples, training, run, frozen, loss, arguments.world_size)
            with arguments.main_process_first(local=False):
                checkpoint = find_checkpoint(folder, digest)
        trainer = _Trainer(model, examples, training, run, arguments, validate)
        trainer.frozen, trainer.loss = frozen, loss
        watch = trainer.watch
        watch.keeps_start = keep_start
        with run.progress("train", watch.total) as advance:
            watch.advance = advance
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        watch.finish()
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    model.eval()
    return trainer.report(time.perf_counter() - started)


class _Trainer(Trainer):
    """`transformers.Trainer` with our batches, optimizer, loss weights and checkpoints, and silent."""

    def __init__(
        self,
        model: nn.Module,
        examples: TrainingExamples,
        training: TrainingConfig,
        run: RunSettings,
        arguments: TrainingArguments,
        validate: Validation | None,
    ) -> None:
        piece, share = arguments.per_device_train_batch_size, (arguments.process_index, arguments.world_size)
        self.data: BatchDataset = BatchDataset(examples, training.batch_size, piece, run.seed, *share)
        self.watch = StepWatch(model, self.data.batches, training, validate, keeps_checkpoints=run.scratch is not None)
        super().__init__(model, arguments, train_dataset=self.data, callbacks=[self.watch])
        self.remove_callback(PrinterCallback)
        # The loss is scaled in compute_loss; this tells the loop not to scale it again.
        self.model_accepts_loss_kwargs = True
        self.training = training
        self.examples_seen = self.padded = self.positions = 0
        self.folder = Path(str(arguments.output_dir))
        self.partial: Path | None = None
        self.frozen: Sequence[FrozenRows] = ()
        self.loss: BatchLoss = OWN_LOSS

    def get_train_dataloader(self) -> DataLoader[Any]:
        pin_memory = self.args.dataloader_pin_memory
        loader: DataLoader[Any] = DataLoader(
            self.data, batch_sampler=self.data.batches, collate_fn=_unchanged, pin_memory=pin_memory
        )
        # Batches are shared among processes already.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        config = self.training.optimizer
        weights = [weight for weight in self.watch.model.parameters() if weight.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
        for table in self.frozen:
            table.keep(self.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            config = self.training.optimizer
            warmup = ceil(config.warmup_ratio * num_training_steps)
            self.lr_scheduler = get_scheduler(
                SCHEDULES[config.schedule], optimizer or self.optimizer, warmup, num_training_steps
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        targets: Any = torch.zeros((), dtype=torch.long, device=device)
        for batch in batches:
            targets = targets + num_targets(batch)
            if IDLE not in batch:
                padded, positions = padding_of(batch)
                self.padded, self.positions = self.padded + padded, self.positions + positions
                self.examples_seen += num_examples(batch)
        if self.args.world_size > 1:
            targets = self.accelerator.reduce(targets, "sum")
        return batches, targets.clamp(min=1)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        mean = self.loss(model, {name: value for name, value in inputs.items() if name != IDLE})
        share = num_targets(inputs) / num_items_in_batch
        # Distributed gradients are averaged over processes, the mean over targets needs their sum.
        loss = mean * share * self.args.world_size
        self.watch.add_loss(loss.detach())
        return (loss, {}) if return_outputs else loss

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.folder if self.partial is None else self.partial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write the checkpoint under another name and rename it, so that it is whole or absent."""
        folder = self.folder
        name = f"checkpoint-{self.state.global_step}"
        self.partial = folder / "partial"
        try:
            super()._save_checkpoint(model, trial)
            if self.is_world_process_zero():
                self.watch.save_record(self.partial / name)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                (self.partial / name).replace(folder / name)
                keep_only(folder / name)
        except (OSError, RuntimeError) as error:
            raise ArtifactError(
                f"a checkpoint could not be written: {error}", where=str(folder), next="free disk space and run again"
            ) from error
        finally:
            self.partial = None

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        return None

    def _sum(self, number: int) -> int:
        """The sum over all processes of a number that each of them has."""
        total: Any = self.accelerator.reduce(torch.tensor(number, device=self.args.device), "sum")
        return int(total)

    def report(self, seconds: float) -> TrainReport:
        record, spent = self.watch.record, max(self.watch.train_seconds, 1e-9)
        best, figure, before = record.best, self.watch.figure, record.seconds
        return TrainReport(
            steps=self.state.global_step,
            seconds=seconds + before,
            seconds_before=before,
            examples_per_second=self._sum(self.examples_seen) / spent,
            padding_share=self._sum(self.padded) / max(self._sum(self.positions), 1),
            best_metric=figure(best and best.value),
            best_step=self.state.global_step if best is None else best.step,
            losses=tuple(record.losses),
            validations=self.watch.curve,
            start_metric=figure(record.start_value),
            trained_metric=figure(record.trained_value),
            average_metric=figure(record.mean_value),
            averaged=record.averaged,
        )


def _unchanged(batch: Any) -> Any:
    return batch


def _arguments(training: TrainingConfig, run: RunSettings, folder: Path) -> TrainingArguments:
    """The borrowed trainer's settings; whatever our own code decides is switched off."""
    device = run.torch_device()
    if device not in ("cpu", "cuda", "mps"):
        raise ConfigError(
            f"cannot train on device '{device}'", next="use cpu, cuda or mps; choose a GPU with CUDA_VISIBLE_DEVICES"
        )
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=device == "cpu",
        max_steps=training.max_steps or -1,
        num_train_epochs=training.max_epochs,
        gradient_accumulation_steps=training.accumulation,
        max_grad_norm=training.optimizer.max_grad_norm,
        bf16=training.precision == "bf16",
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=device == "cuda",
        # Every weight takes part in every step, so nobody needs to look for those that do not.
        ddp_find_unused_parameters=False,
    )
    # One process uses one device; several are started by torchrun or accelerate, not by DataParallel.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # pyright: ignore[reportPrivateUsage] - it has no public setting
    pieces = training.accumulation * arguments.world_size
    if training.batch_size % pieces:
        raise ConfigError(
            f"training.batch_size: {training.batch_size} is not a multiple of {pieces} "
            f"(training.accumulation={training.accumulation} × {arguments.world_size} processes)",
            next="choose a batch_size that is, or start another number of processes",
        )
    arguments.per_device_train_batch_size = training.batch_size // pieces
    arguments.seed = _seed(run, arguments.process_index)
    return arguments


def _seed(run: RunSettings, process: int = 0) -> int:
    """Of what a process draws in training, dropout and negatives; the first process draws what one alone would.

    >>> one, other = RunSettings(seed=1), RunSettings(seed=2)
    >>> _seed(one) == _seed(one, 0), len({_seed(one), _seed(one, 1), _seed(one, 2), _seed(other)})
    (True, 4)
    """
    return torch_seed(run.seed, "train", *([str(process)] if process else [])) % 2**32


@contextmanager
def _folder(run: RunSettings) -> Generator[Path]:
    """Where checkpoints go; a folder that vanishes at once where the run keeps none."""
    if run.scratch is not None:
        yield run.scratch / "checkpoints"
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def _plain_model(model: nn.Module) -> Generator[None]:
    """Put back what the borrowed trainer changes on the model object besides its weights."""
    config: Any = getattr(model, "config", None)
    before = None if config is None else dict(vars(config))
    forward = vars(model).get("forward")
    try:
        yield
    finally:
        vars(model).pop("forward", None)
        vars(model).pop("_original_forward", None)
        if forward is not None:
            vars(model)["forward"] = forward
        if before is not None:
            vars(config).clear()
            vars(config).update(before)
