"""One Ctrl-C is enough, wherever it lands."""

import signal
import sys

import pytest

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
