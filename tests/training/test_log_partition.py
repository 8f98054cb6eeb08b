import pytest
import torch

from sidrec.training.log_partition import log_partition
from sidrec.training.objectives import IGNORE, full_softmax


def inputs(positions=5, items=23, width=4, dtype=torch.float64):
    draw = torch.Generator().manual_seed(1)
    return (
        torch.randn(positions, width, generator=draw, dtype=dtype).requires_grad_(),
        torch.randn(items, width, generator=draw, dtype=dtype).requires_grad_(),
    )


@pytest.mark.parametrize("slice_size", [1, 7, 23, 100])
def test_slices_change_neither_values_nor_gradients(slice_size):
    hidden, items = inputs(dtype=torch.float32)
    weights = torch.arange(1.0, 6.0)
    plain = (hidden @ items.T).logsumexp(dim=1)
    expected = torch.autograd.grad((plain * weights).sum(), (hidden, items))
    sliced = log_partition(hidden, items, slice_size)
    found = torch.autograd.grad((sliced * weights).sum(), (hidden, items))
    torch.testing.assert_close(sliced, plain)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_large_logits_do_not_overflow():
    hidden, items = torch.full((1, 1), 100.0), torch.tensor([[3.0], [2.0], [-5.0]])
    assert log_partition(hidden, items, 1).item() == pytest.approx(300.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("max_logits", [1, 20, 60, 161])
def test_a_sliced_softmax_equals_the_plain_one(smoothing, max_logits):
    """7 targets among 23 items are 161 logits."""
    torch.manual_seed(0)
    hidden, items = torch.randn(2, 4, 3, requires_grad=True), torch.randn(23, 3, requires_grad=True)
    labels = torch.randint(23, (2, 4))
    labels[1, 2] = IGNORE
    plain = full_softmax(hidden, items, labels, smoothing)
    sliced = full_softmax(hidden, items, labels, smoothing, max_logits)
    torch.testing.assert_close(sliced, plain)
    expected, found = (torch.autograd.grad(loss, (hidden, items)) for loss in (plain, sliced))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_in_half_precision_both_passes_multiply_the_same_numbers():
    hidden, items = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sliced = log_partition(hidden, items, 5)
        plain = (hidden @ items.T).float().logsumexp(dim=1)
    found, expected = (torch.autograd.grad(value.sum(), (hidden, items)) for value in (sliced, plain))
    torch.testing.assert_close(sliced, plain)
    assert found[0].dtype == torch.float32
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


def peak_bytes(call):
    """The most memory that lives at one time in tensors made by a call on the CPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def test_memory_does_not_grow_with_items_times_positions():
    """64 targets: 4 times the items make 4 times the logits; sliced, only gradients of the table grow."""
    labels = torch.arange(64)[None]
    used = {}
    for num_items in (4_000, 16_000):
        hidden = torch.randn(1, 64, 2, requires_grad=True)
        items = torch.randn(num_items, 2, requires_grad=True)
        for name, max_logits in (("plain", 0), ("sliced", 2**14)):
            used[name, num_items] = peak_bytes(
                lambda: full_softmax(hidden, items, labels, max_logits=max_logits).backward()  # noqa: B023
            )
    logits = 4 * 64 * 16_000
    assert used["plain", 16_000] > 2 * logits
    assert used["sliced", 16_000] < logits / 4
    assert used["sliced", 16_000] - used["sliced", 4_000] < 5 * (16_000 - 4_000) * 2 * 4
