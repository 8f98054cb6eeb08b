"""Norms, gates, attention and experts of the network, each against arithmetic by hand or a slow loop."""

from itertools import product

import pytest
import torch

from sidrec.recommenders.sasrec_layers import Experts, SASRecModelConfig, Sight
from sidrec.training.isolation import isolated_rng
from sidrec.training.objectives import balance_loss

from .test_sasrec_model import batch_of_all, small

# --- layers ------------------------------------------------------------------------------------------------


EPS = 0.01


def layer_norm(values):
    centred = values - values.mean()
    return centred / (centred.square().mean() + EPS).sqrt()


def rms_norm(values):
    return values / (values.square().mean() + EPS).sqrt()


BY_HAND = {"layer": layer_norm, "rms": rms_norm}


@pytest.mark.parametrize(("first", "second", "last"), product(BY_HAND, repeat=3))
@pytest.mark.parametrize("place", ["pre", "post"])
def test_norms_by_hand(place, first, second, last):
    """One position attends to itself, so attention is output(value); norms have weight 1."""
    norms = {"attention_norm": first, "feed_norm": second, "final_norm": last, "norm_eps": EPS}
    fields = {"num_layers": 1, "norm_place": place, "scale_inputs": False, **norms}
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
            state = state + attention(BY_HAND[first](state))
            state = state + feed(BY_HAND[second](state))
        else:
            state = BY_HAND[first](state + attention(state))
            state = BY_HAND[second](state + feed(state))
    torch.testing.assert_close(found, BY_HAND[last](state), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("feed_forward", ["dense", "gated"])
def test_biases_are_where_they_are_wanted(bias, feed_forward):
    block = small(bias=bias, feed_forward=feed_forward, num_layers=1).blocks[0]
    attention, feed = (block.query_key_value, block.output), (block.up, block.down)
    assert [layer.bias is not None for layer in attention] == [bias] * 2
    assert [layer.bias is not None for layer in feed] == [bias and feed_forward == "dense"] * 2


def test_inputs_are_scaled_by_the_root_of_the_width():
    """The same as rows that are √D times as long."""
    scaled, plain = small(scale_inputs=True), small(scale_inputs=False)
    with torch.no_grad():
        plain.items.weight.mul_(8**0.5)
        items = torch.tensor([[3, 1, 4]])
        torch.testing.assert_close(scaled(items).hidden, plain(items).hidden)


RATE = 0.25


def dropped(values, kept=1.0):
    """Whether all values are 0 or `kept` / (1 - rate), about so many of each as the rate says."""
    zero = values.abs() < 1e-6
    torch.testing.assert_close(values[~zero], torch.full_like(values[~zero], kept / (1 - RATE)))
    return abs(zero.float().mean().item() - RATE) < 0.05


def test_inputs_are_dropped_in_training_only():
    """What the first layer reads, where all rows are 1."""
    model, seen = small(dropout=RATE, positions="rope", scale_inputs=False), []
    model.items.weight.data.fill_(1)
    model.blocks[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    items = torch.zeros(200, 4, dtype=torch.long)
    with isolated_rng(0):
        model.train()(items)
    model.eval()(items)
    assert dropped(seen[0])
    assert (seen[1] == 1).all()


@pytest.mark.parametrize("part", ["attention", "feed-forward"])
def test_what_a_layer_adds_is_dropped_in_training_only(part):
    """One of the two adds 1 everywhere and the other nothing."""
    block = small(dropout=RATE, num_layers=1).blocks[0]
    for layer, adds in ((block.output, part == "attention"), (block.down, part == "feed-forward")):
        layer.weight.data.zero_()
        layer.bias.data.fill_(float(adds))
    states = torch.zeros(200, 4, 8)
    with isolated_rng(0):
        assert dropped(block.train()(states, Sight(None, None, None))[0])
    assert (block.eval()(states, Sight(None, None, None))[0] == 1).all()


@pytest.mark.parametrize("seen", [None, torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()], ids=["causal", "mask"])
def test_attention_weights_are_dropped_in_training_only(seen):
    """All values are 1, so each position reads the sum of its weights; the first sees itself alone."""
    block = small(dropout=RATE, num_layers=1, num_heads=8, bias=True).blocks[0]
    block.query_key_value.weight.data.zero_()
    block.query_key_value.bias.data.fill_(1)
    block.output.weight.data.copy_(torch.eye(8))
    block.output.bias.data.zero_()
    states = torch.zeros(200, 4, 8)
    with isolated_rng(0):
        found = block.train()._attend(states, Sight(seen, None, None))
    assert dropped(found[:, 0])
    torch.testing.assert_close(block.eval()._attend(states, Sight(seen, None, None)), torch.ones(200, 4, 8))


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
        # One expert has its probability as it is: made to sum to 1, it would not depend on the router.
        total = sum(shares[number] for number in picked) if chosen > 1 else 1
        expected = sum(shares[number] / total * layer.experts[number](state) for number in picked)
        if shared:
            expected = expected + layer.shared(state)
        torch.testing.assert_close(found[row, place], expected)
        probabilities.append(shares)
        best.append(torch.tensor(picked))
    torch.testing.assert_close(balance, balance_loss(torch.stack(probabilities), torch.stack(best)))


@pytest.mark.parametrize("chosen", [1, 2])
def test_the_router_learns_from_the_task(chosen):
    """Without the balance loss too, however few experts are chosen."""
    model = small(feed_forward="moe", experts_per_item=chosen, balance_weight=0.0)
    model(**batch_of_all()).loss.backward()
    for block in model.blocks:
        assert block.experts.router.weight.grad.abs().max() > 1e-5


def test_experts_are_the_same_twice_also_in_training_and_whatever_shares_the_batch():
    layer, states = experts().train(), torch.randn(6, 4, 8)
    together = layer(states, None)[0]
    assert torch.equal(together, layer(states, None)[0])
    for row in range(6):
        torch.testing.assert_close(layer(states[row : row + 1], None)[0][0], together[row])


def test_padding_is_not_routed_and_does_not_count():
    # A fixed draw: where positions happen to be spread evenly, padding changes nothing about the balance.
    layer, states = experts(), torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))
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


@pytest.mark.parametrize("masked", [True, False])
def test_the_balance_loss_is_the_mean_over_layers_and_of_items_alone(masked):
    """With a token that begins a history: it passes the experts and is not counted."""
    model, probabilities, expected = small(feed_forward="moe", special_rows=1, begin=True, num_layers=3), [], []
    for block in model.blocks:
        block.experts.register_forward_pre_hook(
            lambda layer, arguments: probabilities.append((arguments[0] @ layer.router.weight.T).softmax(-1))
        )
    batch = batch_of_all()
    batch["attention_mask"][:, 5:] = False
    real = batch["attention_mask"] if masked else torch.ones_like(batch["attention_mask"])
    arguments = (batch["input_ids"], real if masked else None, None, batch["labels"])
    with torch.no_grad():
        model.config.balance_weight = 0.0
        plain = model(*arguments).loss
        model.config.balance_weight = 1.0
        difference = model(*arguments).loss - plain
    for shares in probabilities[3:]:
        of_items = shares[:, 1:][real]
        expected.append(balance_loss(of_items, of_items.topk(2).indices))
    torch.testing.assert_close(difference, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_experts_in_half_precision_route_in_float32():
    layer, states = experts(), torch.randn(1, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, balance = layer(states, None)
    full, expected = layer(states, None)
    assert torch.equal(balance, expected)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.02)
