"""Norms, gates, attention and experts of the network, each against arithmetic by hand or a slow loop."""

from itertools import product

import pytest
import torch

from sidrec.recommenders.sasrec_layers import Experts, SASRecModelConfig
from sidrec.training.isolation import isolated_rng
from sidrec.training.objectives import balance_loss

from .test_sasrec_model import batch_of_all, small

# --- layers ------------------------------------------------------------------------------------------------


def layer_norm(values):
    centred = values - values.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt()


def rms_norm(values):
    return values / (values.square().mean() + 1e-5).sqrt()


@pytest.mark.parametrize(("attention_norm", "by_hand"), [("layer", layer_norm), ("rms", rms_norm)])
@pytest.mark.parametrize("place", ["pre", "post"])
def test_norms_by_hand(place, attention_norm, by_hand):
    """One position attends to itself, so attention is output(value); norms have weight 1."""
    fields = {"num_layers": 1, "norm_place": place, "attention_norm": attention_norm, "scale_inputs": False}
    model = small(width=4, num_heads=1, activation="relu", **fields)
    block = model.blocks[0]
    for norm in (block.attention_norm, block.feed_norm, model.norm):
        for name, weight in norm.named_parameters():
            weight.data.fill_(float(name == "weight"))
    with torch.no_grad():
        found = model(torch.tensor([[5]])).hidden[0, 0]
        state = model.items.weight[5] + model.positions.weight[0]

        def attention(values):
            return block.output(block.query_key_value(values)[8:])

        def feed(values):
            return block.down(block.up(values).clamp(min=0))

        if place == "pre":
            state = state + attention(by_hand(state))
            state = state + feed(layer_norm(state))
        else:
            state = by_hand(state + attention(state))
            state = layer_norm(state + feed(state))
    torch.testing.assert_close(found, layer_norm(state), rtol=1e-4, atol=1e-5)


def test_a_gate_by_hand():
    block = small(feed_forward="gated", activation="silu", inner_width=3, num_layers=1).blocks[0]
    assert block.up.bias is None
    state = torch.randn(8)
    gate, up, down = (part.weight for part in (block.gate, block.up, block.down))
    expected = down @ (torch.sigmoid(gate @ state) * (gate @ state) * (up @ state))
    torch.testing.assert_close(block._feed(state[None, None], None)[0][0, 0], expected)


def test_attention_equals_a_loop():
    """Two heads of width 3 in states of width 8; the mask of a history with a gap."""
    model = small(head_width=3, num_layers=1)
    block, states = model.blocks[0], torch.randn(1, 4, 8)
    real = torch.tensor([[1, 0, 1, 1]])
    _, sight = model._sight(torch.zeros(1, 4, dtype=torch.long), real, None)
    found = block._attend(states, sight)
    queries, keys, values = block.query_key_value(states[0]).view(4, 3, 2, 3).unbind(1)
    for place in (0, 2, 3):
        seen = [other for other in range(place + 1) if real[0, other]]
        heads = []
        for head in range(2):
            weights = torch.stack([queries[place, head] @ keys[other, head] / 3**0.5 for other in seen]).softmax(0)
            heads.append(sum(weight * values[other, head] for weight, other in zip(weights, seen, strict=True)))
        torch.testing.assert_close(found[0, place], block.output(torch.cat(heads)))


# --- experts -----------------------------------------------------------------------------------------------


def experts(seed=0, **fields):
    with isolated_rng(seed):
        layer = Experts(SASRecModelConfig(hidden_size=8, inner_width=5, feed_forward="moe", **fields))
        layer.router.weight.data.normal_()
    return layer


@pytest.mark.parametrize("expert", ["dense", "gated"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("chosen", [1, 2, 4])
def test_experts_equal_a_loop_over_positions(expert, shared, chosen):
    layer = experts(expert=expert, shared_expert=shared, experts_per_item=chosen)
    states = torch.randn(2, 5, 8, requires_grad=True)
    found, balance = layer(states, None)
    probabilities, best = [], []
    for row, place in product(range(2), range(5)):
        state = states[row, place]
        shares = (layer.router.weight @ state).softmax(0)
        picked = sorted(range(4), key=lambda number: -shares[number].item())[:chosen]
        total = sum(shares[number] for number in picked)
        expected = sum(shares[number] / total * layer.experts[number](state) for number in picked)
        if shared:
            expected = expected + layer.shared(state)
        torch.testing.assert_close(found[row, place], expected)
        probabilities.append(shares)
        best.append(torch.tensor(picked))
    torch.testing.assert_close(balance, balance_loss(torch.stack(probabilities), torch.stack(best)))


def test_experts_are_the_same_twice_also_in_training_and_whatever_shares_the_batch():
    layer, states = experts().train(), torch.randn(6, 4, 8)
    together = layer(states, None)[0]
    assert torch.equal(together, layer(states, None)[0])
    for row in range(6):
        torch.testing.assert_close(layer(states[row : row + 1], None)[0][0], together[row])


def test_padding_is_not_routed_and_does_not_count():
    layer, states = experts(), torch.randn(2, 4, 8)
    real = torch.tensor([[True, True, False, False], [True, True, True, True]])
    found, balance = layer(states, real)
    alone, expected = layer(states[real][None], None)
    torch.testing.assert_close(found[real], alone[0])
    assert not found[~real].any()
    torch.testing.assert_close(balance, expected)
    assert not torch.allclose(balance, layer(states, None)[1])


def test_the_balance_loss_teaches_the_router_and_spreads_positions():
    """All positions like expert 0 at first; descending the balance loss alone evens them out."""
    layer = experts(experts_per_item=1)
    layer.router.weight.data.mul_(0.1)
    layer.router.weight.data[0, 0] = 1
    states = torch.randn(1, 64, 8)
    states[..., 0] = 2
    _, first = layer(states, None)
    optimizer = torch.optim.Adam([layer.router.weight], lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        _, balance = layer(states, None)
        balance.backward()
        optimizer.step()
    assert first > 2
    assert layer(states, None)[1] < 1.2


def test_the_balance_loss_is_a_part_of_the_models_loss():
    batch = batch_of_all()
    plain, more = (small(feed_forward="moe", balance_weight=weight) for weight in (0.0, 0.5))
    with torch.no_grad():
        difference = more(**batch).loss - plain(**batch).loss
    assert 0.5 <= difference.item() < 2


def test_experts_in_half_precision_route_in_float32():
    layer, states = experts(), torch.randn(1, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, balance = layer(states, None)
    full, expected = layer(states, None)
    assert torch.equal(balance, expected)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.02)
