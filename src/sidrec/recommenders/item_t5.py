"""A T5 whose encoder knows where items begin and end: one vector an item, and positions of items.

All but the encoder's input is transformers' T5; its decoder writes codes. Importing this module makes
`AutoModelForSeq2SeqLM.from_pretrained` know the weights. Without either option a TIGER is a plain T5.

Legend: B batch · S input positions · L levels · D width.
"""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration
from transformers import initialization as init
from transformers.models.t5.modeling_t5 import T5Stack

__all__ = ["ItemEncoder", "ItemT5", "ItemT5Config"]


class ItemT5Config(T5Config):
    """A T5's sizes, and which of its tokens are codes."""

    model_type = "sidrec-t5"
    item_positions: int = 0
    """Rows of the table of item positions; 0 means none. Older items share the last row."""
    first_code: int = 3
    """Token of the first code of the first level; those of all levels follow it."""
    first_level_size: int = 1
    """Codes of the first level."""
    num_codes: int = 1
    """Codes of all levels."""


class ItemEncoder(T5Stack):
    """Encoder layers of a T5 above an input that is made of items."""

    def __init__(self, config: ItemT5Config) -> None:
        super().__init__(config)
        self.item_positions = nn.Embedding(config.item_positions, config.d_model) if config.item_positions else None

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # The layers are drawn before there is a table.
        if isinstance(module, nn.Embedding) and module is getattr(self, "item_positions", None):
            # As a T5 draws its relative positions: small beside tokens, whose standard deviation is 1.
            config: Any = self.config
            init.normal_(module.weight, std=config.initializer_factor * config.d_model**-0.5)

    def embed(self, tokens: Tensor) -> Tensor:
        """What the first layer reads, [B, S, D].

        Args:
            tokens: int64[B, S] token ids, or int64[B, S, L], whose vectors are summed; padding counts as nothing there.
        """
        table: Any = self.embed_tokens
        if tokens.ndim == 2:
            vectors_BSD: Tensor = table(tokens)
        else:
            sums = F.embedding_bag(tokens.flatten(0, 1), table.weight, mode="sum", padding_idx=self.config.pad_token_id)
            vectors_BSD = sums.unflatten(0, tokens.shape[:2])
        if self.item_positions is None:
            return vectors_BSD
        newer_BS, is_code_BS = self._places(tokens if tokens.ndim == 2 else tokens[..., 0])
        return vectors_BSD + self.item_positions(newer_BS) * is_code_BS[..., None]

    def _places(self, tokens_BS: Tensor) -> tuple[Tensor, Tensor]:
        """How many items stand behind the one that a token belongs to, and whether it belongs to one."""
        config: Any = self.config
        code_BS = tokens_BS - config.first_code
        is_code_BS = (code_BS >= 0) & (code_BS < config.num_codes)
        begins_BS = (is_code_BS & (code_BS < config.first_level_size)).long()
        newer_BS = begins_BS.flip(1).cumsum(1).flip(1) - begins_BS
        return newer_BS.clamp(max=config.item_positions - 1), is_code_BS

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - all else is passed on as it comes
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **inputs: Any
    ) -> Any:
        """The encoder's states; arguments are those of a T5's encoder, tokens those of `embed`."""
        if input_ids is not None and inputs_embeds is None:
            input_ids, inputs_embeds = None, self.embed(input_ids)
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **inputs)


class ItemT5(T5ForConditionalGeneration):
    """A T5 with an `ItemEncoder`."""

    config_class = ItemT5Config

    def __init__(self, config: ItemT5Config) -> None:
        super().__init__(config)
        encoder_config = copy.deepcopy(config)
        encoder_config.is_decoder = encoder_config.use_cache = False
        drawn, self.encoder = self.encoder, ItemEncoder(encoder_config)
        # In a class that is not transformers' own, it skips modules without weights of their own, such as a T5's
        # attention, which would have drawn those of its layers: they would stay at a standard deviation of 1.
        self.encoder.load_state_dict(drawn.state_dict(), strict=False)
        self.post_init()


AutoConfig.register(ItemT5Config.model_type, ItemT5Config, exist_ok=True)
AutoModelForSeq2SeqLM.register(ItemT5Config, ItemT5, exist_ok=True)
