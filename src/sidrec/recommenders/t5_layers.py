"""A T5's layers for inference, rearranged so that fewer and larger matrix products do the same.

The weights are those of a transformers T5. Every norm's weight is folded into the matrices that follow
it, queries, keys and values of a layer come from one product, the encoder's keys and values for all
decoder layers from one more, and residuals are added inside the products. Leaves out training, dropout
and the search.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from sidrec.errors import DataError
from sidrec.recommenders.attention import NodeStates, attend, laid_out, merge_heads, reads_paths, split_heads
from sidrec.recommenders.item_t5 import ItemEncoder

__all__ = ["T5Decoder", "T5Encoder"]


class T5Encoder:
    """Tokens → what the decoder's layers look back at.

    Args:
        model: in evaluation mode.

    Raises:
        DataError: its layers do not share the positions of the first one.
    """

    def __init__(self, model: T5ForConditionalGeneration) -> None:
        config: Any = model.config
        stack: Any = model.encoder
        decoder: Any = model.decoder
        _refuse_own_positions([*stack.block[1:], *decoder.block[1:]])
        self._embed = model.encoder.embed if isinstance(model.encoder, ItemEncoder) else stack.embed_tokens
        self._heads = config.num_heads
        self._compute_bias = stack.block[0].layer[0].SelfAttention.compute_bias
        self._layers = [(_SelfAttention(block.layer[0]), _FeedForward(block.layer[1])) for block in stack.block]
        self._norm = stack.final_layer_norm
        crosses: list[Any] = [block.layer[1].EncDecAttention for block in decoder.block]
        self._cross = _folded(self._norm, *(matrix for cross in crosses for matrix in (cross.k, cross.v)))
        self._num_layers = len(crosses)

    def __call__(self, tokens_US: Tensor, mask_US: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cross-attention keys and values [U, H, S, D] for every decoder layer.

        Args:
            tokens_US: int64[U, S], or [U, S, L] where each position is an item.
            mask_US: bool[U, S], which tokens are real; at least one a user.
        """
        hidden_USD: Tensor = self._embed(tokens_US)
        length = tokens_US.shape[1]
        bias: Tensor = self._compute_bias(length, length).to(hidden_USD.dtype)
        if not bool(mask_US.all()):
            bias = bias.masked_fill(~mask_US[:, None, None], -torch.inf)
        for attention, feed_forward in self._layers:
            queries, keys, values = attention.project(hidden_USD)
            hidden_USD = attention.add(hidden_USD, attend(queries, keys, values, bias))
            hidden_USD = feed_forward(hidden_USD)
        both = F.linear(_normed(hidden_USD, self._norm), self._cross).chunk(2 * self._num_layers, dim=-1)
        states = [laid_out(split_heads(part, self._heads)) for part in both]
        return list(zip(states[::2], states[1::2], strict=True))


class T5Decoder:
    """One new token for each of many prefixes → hidden states.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: T5ForConditionalGeneration) -> None:
        stack: Any = model.decoder
        self._embed, self._norm = stack.embed_tokens, stack.final_layer_norm
        self.compute_bias = stack.block[0].layer[0].SelfAttention.compute_bias
        self._layers = [
            (_SelfAttention(block.layer[0]), _CrossAttention(block.layer[1]), _FeedForward(block.layer[2]))
            for block in stack.block
        ]

    def fold(self, weight_VD: Tensor) -> Tensor:
        """The output matrix with the last norm's weight in it, for what `__call__` gives."""
        return weight_VD * self._norm.weight

    def __call__(
        self,
        tokens_UW: Tensor,
        paths_UWT: Tensor,
        nodes: list[NodeStates],
        bias: Tensor,
        cross: list[tuple[Tensor, Tensor]],
        cross_bias: Tensor,
    ) -> Tensor:
        """Hidden states [U, W, D] of the new tokens, normed; their keys and values join the nodes.

        Args:
            tokens_UW: int64[U, W].
            paths_UWT: int64[U, W, T], nodes of each prefix, its own last.
            nodes: of each layer.
            bias: of self-attention, over all nodes, or over the path where the tree `reads_paths`.
            cross: of the encoder.
            cross_bias: [U, 1, 1, S].
        """
        hidden_UWD: Tensor = self._embed(tokens_UW)
        for layer, own, (keys, values) in zip(self._layers, nodes, cross, strict=True):
            attention, crossing, feed_forward = layer
            queries, new_keys, new_values = attention.project(hidden_UWD)
            own.append(new_keys, new_values)
            if reads_paths(own.size):
                seen = own.attend_paths(queries, paths_UWT, bias)
            else:
                seen = attend(queries, own.keys, own.values, bias)
            hidden_UWD = attention.add(hidden_UWD, seen)
            seen = attend(crossing.project(hidden_UWD), keys, values, cross_bias)
            hidden_UWD = crossing.add(hidden_UWD, seen)
            hidden_UWD = feed_forward(hidden_UWD)
        return _normed(hidden_UWD, self._norm)


class _SelfAttention:
    """Norm and products of a self-attention layer."""

    def __init__(self, layer: Any) -> None:
        attention = layer.SelfAttention
        self._norm, self._heads = layer.layer_norm, attention.n_heads
        self._in, self._out = _folded(self._norm, attention.q, attention.k, attention.v), attention.o.weight

    def project(self, hidden_UTD: Tensor) -> list[Tensor]:
        """Queries, keys and values [U, H, T, D]."""
        parts = F.linear(_normed(hidden_UTD, self._norm), self._in).chunk(3, dim=-1)
        return [split_heads(part, self._heads) for part in parts]

    def add(self, hidden_UTD: Tensor, seen: Tensor) -> Tensor:
        """Residual and output product of what was seen, [U, H, T, D]."""
        return _add_product(hidden_UTD, merge_heads(seen), self._out)


class _CrossAttention:
    """Norm and products of a cross-attention layer; keys and values come from the encoder."""

    def __init__(self, layer: Any) -> None:
        attention = layer.EncDecAttention
        self._norm, self._heads = layer.layer_norm, attention.n_heads
        self._in, self._out = _folded(self._norm, attention.q), attention.o.weight

    def project(self, hidden_UTD: Tensor) -> Tensor:
        """Queries [U, H, T, D]."""
        return split_heads(F.linear(_normed(hidden_UTD, self._norm), self._in), self._heads)

    def add(self, hidden_UTD: Tensor, seen: Tensor) -> Tensor:
        """Residual and output product of what was seen, [U, H, T, D]."""
        return _add_product(hidden_UTD, merge_heads(seen), self._out)


class _FeedForward:
    """Norm, two products with a ReLU between, residual; gated and other activations run as transformers has them."""

    def __init__(self, layer: Any) -> None:
        self._layer, inner = layer, layer.DenseReluDense
        self._is_plain = hasattr(inner, "wi") and isinstance(inner.act, torch.nn.ReLU)
        if self._is_plain:
            self._in, self._out = _folded(layer.layer_norm, inner.wi), inner.wo.weight

    def __call__(self, hidden_UTD: Tensor) -> Tensor:
        if not self._is_plain:
            return self._layer(hidden_UTD)
        inner = F.linear(_normed(hidden_UTD, self._layer.layer_norm), self._in).relu_()
        return _add_product(hidden_UTD, inner, self._out)


def _refuse_own_positions(blocks: list[Any]) -> None:
    if any(hasattr(block.layer[0].SelfAttention, "relative_attention_bias") for block in blocks):
        raise DataError(
            "every layer of the model has relative positions of its own (UMT5)",
            expected="a T5 or mT5, in which all layers use those of the first",
        )


def _folded(norm: Any, *matrices: Any) -> Tensor:
    """One matrix of several with the weight of the norm before them."""
    return torch.cat([matrix.weight for matrix in matrices]) * norm.weight


def _normed(hidden_UTD: Tensor, norm: Any) -> Tensor:
    """Hidden states over their root mean square, without the norm's weight."""
    length = torch.linalg.vector_norm(hidden_UTD, dim=-1, keepdim=True, dtype=torch.float32)
    factor = (length.square() / hidden_UTD.shape[-1] + norm.variance_epsilon).rsqrt()
    return (hidden_UTD * factor.to(hidden_UTD.dtype)).to(norm.weight.dtype)


def _add_product(hidden_UTD: Tensor, states_UTX: Tensor, weight_DX: Tensor) -> Tensor:
    """Hidden + states · weightᵀ."""
    if not hidden_UTD.dtype == states_UTX.dtype == weight_DX.dtype:
        # Loaded in float16, transformers leaves the feed-forward's last matrix, and what it is added to, in float32.
        return hidden_UTD + F.linear(states_UTX.to(weight_DX.dtype), weight_DX)
    flat = torch.addmm(hidden_UTD.flatten(0, 1), states_UTX.flatten(0, 1), weight_DX.T)
    return flat.view_as(hidden_UTD)
