"""One Ctrl-C is enough, wherever it lands."""

import shutil
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidrec.artifact import open_artifact
from sidrec.cli.failure import INTERRUPTED
from sidrec.cli.interrupts import listening
from sidrec.progress import Silent


class Swallows:
    """Presses Ctrl-C where Python drops exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def work(done: list[int]) -> None:
    """Ten steps; Ctrl-C is pressed in a destructor before the fourth is reported."""
    with listening(Silent()) as progress, progress("train", 10) as advance:
        for step in range(10):
            if step == 3:
                Swallows()
            advance()
            done.append(step)


def test_an_interrupt_lost_in_a_destructor_comes_back_at_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        work(done)
    assert done == [0, 1, 2]
    assert "Traceback" not in capsys.readouterr().err


def test_an_interrupt_elsewhere_is_raised_at_once_and_the_old_handlers_come_back() -> None:
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), listening(Silent()):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler
    assert sys.unraisablehook is hook


class PressAt:
    """A display during whose n-th reported step Ctrl-C is pressed."""

    def __init__(self, step: int, task: str = "") -> None:
        self.left, self.task = step, task

    @contextmanager
    def __call__(self, task: str, total: float | None) -> Generator:
        def advance(steps: float = 1, note: str = "") -> None:
            self.left -= self.task in task
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)

        yield advance


def press_at(patch: pytest.MonkeyPatch, display: PressAt) -> None:
    @contextmanager
    def opened(_: object) -> Generator[PressAt]:
        yield display

    patch.setattr("sidrec.cli.progress.open_progress", opened)


def press_at_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sidrec.artifact._write_synced", lambda *_: signal.raise_signal(signal.SIGINT))


VERBS = {
    "prepare": "dataset",
    "embed": "embeddings/tfidf",
    "tokenize": "tokenizers/rqkmeans",
    "train": "recommenders/tiger",
    "evaluate": "evaluations/tiger-test",
}


def command_of(verb: str, run: Path, toy: Path, tiny_tiger: list[str]) -> list[object]:
    """The command that makes the verb's artefact of the run `trained` again."""
    if verb == "evaluate":
        return [verb, run / "recommenders" / "tiger"]
    arguments: dict[str, list[object]] = {
        "prepare": ["--reader", "letter", "--path", toy],
        "embed": [],
        "tokenize": ["codebook_size=4"],
        "train": ["tiger", *tiny_tiger],
    }
    return [verb, "--run", run, *arguments[verb]]


@pytest.mark.parametrize("moment", ["first step", "last file"])
@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_in_any_stage_leaves_no_half_and_the_same_command_goes_on(
    sidrec, trained: Path, toy: Path, tiny_tiger: list[str], tmp_path: Path, monkeypatch, verb: str, moment: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    target = run / VERBS[verb]
    shutil.rmtree(target)
    command = command_of(verb, run, toy, tiny_tiger)
    with monkeypatch.context() as patch:
        if moment == "first step":
            press_at(patch, PressAt(1))
        else:
            press_at_the_end(patch)
        done = sidrec(*command)
    # On a slow machine lines of progress stand before the message.
    assert (done.code, done.out) == (1, "")
    assert done.err.strip().splitlines()[-1] == INTERRUPTED
    assert "Traceback" not in done.err
    assert not target.exists()
    assert not list(target.parent.glob(f".{target.name}.*"))
    for other in set(VERBS.values()) - {VERBS[verb]}:
        open_artifact(run / other)
    again = sidrec(*command)
    assert again.code == 0, again.err
    assert open_artifact(target).digest == open_artifact(trained / VERBS[verb]).digest


def test_a_resumed_training_equals_an_uninterrupted_one(
    sidrec, trained: Path, tiny_tiger: list[str], tmp_path: Path, monkeypatch
) -> None:
    from sidrec.training import trainer

    run, found, real = tmp_path / "run", [], trainer.find_checkpoint
    shutil.copytree(trained, run)
    command = ["train", "tiger", "--run", run, *tiny_tiger, "training.max_steps=6", "training.validate_every=2"]

    def spy(folder: Path, digest: str) -> Path | None:
        found.append(real(folder, digest))
        return found[-1]

    monkeypatch.setattr(trainer, "find_checkpoint", spy)
    monkeypatch.setattr("sidrec.training.watch.CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        press_at(patch, PressAt(5, "train"))
        assert sidrec(*command, "--name", "resumed").err.strip() == INTERRUPTED
    assert list((run / ".scratch").glob("resumed-*/checkpoints/checkpoint-*"))
    assert sidrec(*command, "--name", "resumed").code == 0
    assert [path.name if path else None for path in found] == [None, "checkpoint-4"]
    assert sidrec(*command, "--name", "whole").code == 0
    resumed, whole = (open_artifact(run / "recommenders" / name) for name in ("resumed", "whole"))
    assert resumed.digest == whole.digest


def test_ctrl_c_before_a_verb_begins_is_reported_too(sidrec, monkeypatch) -> None:
    monkeypatch.setattr("sidrec.cli.main.Verbs.make_context", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    # A process started in the background ignores the signal, and so would the test.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = sidrec("recipes", "ls")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.code, done.out) == (1, "")
    assert INTERRUPTED in done.err
