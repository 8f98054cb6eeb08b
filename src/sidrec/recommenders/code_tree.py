"""Output vectors for the nodes of a catalogue's prefix tree: a softmax over the children of each prefix.

A node's vector is the mean of the vectors of the items below it, so the probability of an item is a product of choices
among branches, as in the hierarchical softmax of Morin and Bengio (2005, *Hierarchical Probabilistic Neural Network
Language Model*, AISTATS), whose tree is binary and whose nodes have free vectors. Leaves out where states and items'
vectors come from.

Legend: N items with vectors · R prefixes · K codes of a level · C nodes of a level · M pairs of a prefix and a child ·
D width.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sidrec.decoding.trie import ItemTrie
from sidrec.decoding.trie_tensors import TrieTensors
from sidrec.errors import DataError

__all__ = ["NO_CHILD", "Branches", "CodeTree", "NodeLoss"]

NO_CHILD = -1e9
"""Logit of a code that leads out of the catalogue: no probability, and yet a number where no code leads on."""
NUMBERS_AT_ONCE = 2**22
"""Numbers that are gathered at once for inner products of pairs (16 MB of float32)."""


@dataclass(frozen=True, eq=False)
class CodeTree:
    """A catalogue's tree, and the leaves of the items that have vectors of their own.

    Nodes are numbered within their depth as in the trie; one number beyond the last stands for no node.

    Attributes:
        trie: the paths of all items.
        num_items: N, the first items of the catalogue, which have vectors.
    """

    trie: ItemTrie
    num_items: int

    def child(self, nodes: Tensor, codes: Tensor, level: int) -> Tensor:
        """The nodes int64[...] that codes int64[...] of a level lead to from nodes int64[...] of depth `level`."""
        keys_C = self.on(nodes.device).keys[level]
        wanted = nodes * self.trie.sizes[level] + codes
        found = torch.searchsorted(keys_C, wanted)
        return found.masked_fill(keys_C[found.clamp(max=len(keys_C) - 1)] != wanted, len(keys_C))

    def prefixes(self, codes: Tensor) -> list[Tensor]:
        """For each level int64[...], the node before its code, on the paths int64[..., L]."""
        nodes = [torch.zeros_like(codes[..., 0])]
        for level in range(self.trie.num_levels - 1):
            nodes.append(self.child(nodes[-1], codes[..., level], level))
        return nodes

    def branches(self, items_ND: Tensor) -> "Branches":
        """The tree with output vectors: the mean of the items below each node, zero where there are none.

        Raises:
            DataError: there are not as many vectors as items that have one.
        """
        if len(items_ND) != self.num_items:
            raise DataError(
                f"there are {len(items_ND):,} vectors of items for a tree of {self.num_items:,} that have one",
                next="make the tree of the catalogue that the model was trained on",
            )
        vectors, means = items_ND.float(), list[Tensor]()
        for level in reversed(self.on(items_ND.device).shares):
            vectors = _weighted_sums(vectors, level.rows_S, level.starts_C, level.weights_S)
            means.append(vectors.to(items_ND.dtype))
        return Branches(self, tuple(reversed(means)))

    def on(self, device: torch.device) -> "TreeTensors":
        """The tree's arrays on a device, made once."""
        name = str(device)
        if name not in self._copies:
            self._copies[name] = TreeTensors.of(self, name)
        return self._copies[name]

    @cached_property
    def _copies(self) -> dict[str, "TreeTensors"]:
        return {}


@dataclass(frozen=True)
class TreeTensors:
    """The arrays of a `CodeTree` on a device, for levels 0 … L-1.

    Attributes:
        trie: pointers to the children, and their codes.
        keys: int64[C] a level, parent · K + code, which rises from child to child.
        shares: what the means of each level's nodes are made of.
    """

    trie: TrieTensors
    keys: tuple[Tensor, ...]
    shares: tuple["Shares", ...]

    @classmethod
    def of(cls, tree: CodeTree, device: str) -> "TreeTensors":
        """The tree's arrays on a device."""
        trie, arrays = tree.trie, TrieTensors.of(tree.trie, device)
        # The trie's pointers have one entry more there, for no node.
        counts = [ptr.diff() for ptr in arrays.child_ptr]
        parents = [torch.arange(len(counts_R), device=device).repeat_interleave(counts_R) for counts_R in counts]
        sized = zip(parents, trie.sizes, arrays.codes, strict=True)
        keys = tuple(parent_C * size + codes_C for parent_C, size, codes_C in sized)
        leaf_N = torch.from_numpy(trie.nodes_at(trie.num_levels, trie.positions[: tree.num_items])).to(device)
        # From the leaves up: what lies below the nodes of a level, whose those are, and how many items are in each.
        rows, owners, weights = leaf_N.argsort(stable=True), leaf_N.sort()[0], torch.ones_like(leaf_N)
        shares: list[Shares] = []
        for level in reversed(range(trie.num_levels)):
            sizes_C = owners.bincount(minlength=trie.num_nodes[level + 1])
            items_C = torch.zeros_like(sizes_C).index_add(0, owners, weights)
            shares.append(Shares(rows, sizes_C.cumsum(0) - sizes_C, weights / items_C.clamp(min=1)[owners]))
            owners, weights = parents[level], items_C
            rows = torch.arange(len(items_C), device=device)
        return cls(arrays, keys, tuple(reversed(shares)))


@dataclass(frozen=True)
class Shares:
    """The means of a level's nodes as weighted sums of what is below.

    Attributes:
        rows_S: int64[S], nodes of the level below, or items below the last.
        starts_C: int64[C], where those of each node begin.
        weights_S: float32[S], the share of each in its node's mean.
    """

    rows_S: Tensor
    starts_C: Tensor
    weights_S: Tensor


@dataclass(frozen=True)
class Branches:
    """A tree whose nodes have output vectors.

    Attributes:
        tree: of the catalogue.
        vectors: float[C, D] of the children of each level.
    """

    tree: CodeTree
    vectors: tuple[Tensor, ...]

    def logits(self, code_logits: Tensor, states: Tensor, nodes: Tensor, level: int) -> Tensor:
        """Logits float32[..., K] of the codes of a level: those of codes, and of the node that each leads to.

        Args:
            code_logits: float[..., K], what is known without the prefix.
            states: float[..., D], whose inner products with the nodes' vectors are added.
            nodes: int64[...], the prefixes; all logits are `NO_CHILD` behind no node.
            level: of the codes.
        """
        codes_C, vectors_CD = self.tree.on(states.device).trie.codes[level].long(), self.vectors[level]
        logits = torch.full_like(code_logits, NO_CHILD, dtype=torch.float32)
        if not level:
            of_nodes = code_logits[..., codes_C].float() + F.linear(states, vectors_CD).float()
            return logits.index_copy(-1, codes_C, of_nodes)
        rows_M, child_M, start_R = self._pairs(nodes.flatten(), level)
        place_M = rows_M * code_logits.shape[-1] + codes_C[child_M]
        dots_M = pair_products(states.flatten(0, -2), vectors_CD, rows_M, child_M, start_R)
        of_nodes = code_logits.flatten()[place_M].float() + dots_M
        return logits.flatten().scatter(0, place_M, of_nodes).view_as(logits)

    def _pairs(self, nodes_R: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """All children of prefixes: int64[M] whose they are, int64[M] nodes, and int64[R] where each one's begin."""
        ptr = self.tree.on(nodes_R.device).trie.child_ptr[level].long()
        first_R, counts_R = ptr[nodes_R], ptr[nodes_R + 1] - ptr[nodes_R]
        start_R = counts_R.cumsum(0) - counts_R
        rows_M = torch.arange(len(nodes_R), device=nodes_R.device).repeat_interleave(counts_R)
        child_M = torch.arange(len(rows_M), device=nodes_R.device) + (first_R - start_R)[rows_M]
        return rows_M, child_M, start_R


def pair_products(states_RD: Tensor, vectors_CD: Tensor, rows_M: Tensor, child_M: Tensor, start_R: Tensor) -> Tensor:
    """float32[M], inner products of states with vectors, without an array of M × D numbers in either pass.

    Args:
        states_RD: float[R, D].
        vectors_CD: float[C, D].
        rows_M: int64[M], rising, the state of each pair.
        child_M: int64[M], its vector.
        start_R: int64[R], where each state's pairs begin.
    """
    result: Any = _PairProducts.apply(states_RD, vectors_CD, rows_M, child_M, start_R)
    return result


class _PairProducts(torch.autograd.Function):
    """Forward gathers some pairs at a time; the gradients are weighted sums of rows."""

    @staticmethod
    def forward(ctx: Any, states_RD: Tensor, vectors_CD: Tensor, *pairs: Tensor) -> Tensor:
        rows_M, child_M, _ = pairs
        ctx.save_for_backward(states_RD, vectors_CD, *pairs)
        out_M = torch.empty(len(rows_M), dtype=torch.float32, device=rows_M.device)
        size = max(1, NUMBERS_AT_ONCE // states_RD.shape[1])
        for start in range(0, len(rows_M), size):
            part = slice(start, start + size)
            out_M[part] = (states_RD[rows_M[part]].float() * vectors_CD[child_M[part]].float()).sum(1)
        return out_M

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_RD, vectors_CD, rows_M, child_M, start_R = ctx.saved_tensors
        of_states = _weighted_sums(vectors_CD, child_M, start_R, gradients[0])
        order_M = child_M.argsort(stable=True)
        counts_C = child_M.bincount(minlength=len(vectors_CD))
        of_vectors = _weighted_sums(states_RD, rows_M[order_M], counts_C.cumsum(0) - counts_C, gradients[0][order_M])
        return of_states, of_vectors, None, None, None


def _weighted_sums(table: Tensor, rows_M: Tensor, starts: Tensor, weights_M: Tensor) -> Tensor:
    """float[S, D], weighted sums of rows of a table; each sum's rows stand side by side from its start on."""
    return F.embedding_bag(rows_M, table, starts, mode="sum", per_sample_weights=weights_M.to(table.dtype))


@dataclass(frozen=True)
class NodeLoss:
    """Cross-entropy of each code of an item among those that follow its prefix in the catalogue.

    As `LevelLoss`, in which all codes of the level compete.

    Attributes:
        tree: of the catalogue; the model is called with it.
        temperature: τ.
        label_smoothing: share of each target that is spread evenly over the children of its prefix.
    """

    tree: CodeTree
    temperature: float = 1.0
    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The mean over all codes of labels int64[P, L]; the model's `.logits` are float[P, K] of each level."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        losses = [
            self._level(logits_PK.float(), labels_P)
            for logits_PK, labels_P in zip(
                model(**inputs, tree=self.tree).logits, batch["labels"].unbind(1), strict=True
            )
        ]
        return torch.stack(losses).mean()

    def _level(self, logits_PK: Tensor, labels_P: Tensor) -> Tensor:
        logp_PK = (logits_PK / self.temperature).log_softmax(-1)
        total_P = (1 - self.label_smoothing) * logp_PK.gather(1, labels_P[:, None])[:, 0]
        if self.label_smoothing:
            is_child_PK = logits_PK > NO_CHILD / 2
            total_P = total_P + self.label_smoothing * (logp_PK * is_child_PK).sum(1) / is_child_PK.sum(1)
        return -total_P.sum() / max(len(labels_P), 1)
