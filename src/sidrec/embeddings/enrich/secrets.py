"""Keys and contact addresses kept out of all that is written, should a server repeat them."""

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["HIDDEN", "Secrets"]

HIDDEN = "[hidden]"
"""What stands in the place of a secret."""


class Secrets:
    """Texts that must not be written anywhere.

    Args:
        secrets: the texts, in ASCII.
        shortest: secrets of fewer characters are let pass.
    """

    def __init__(self, secrets: Sequence[str] = (), shortest: int = 1) -> None:
        forms = {form for secret in secrets if len(secret) >= shortest for form in _forms(secret)}
        # The longest first: a form may hold another one.
        self._forms = sorted(forms, key=len, reverse=True)

    def hidden(self, text: str) -> str:
        r"""A text without the secrets, even those in JSON that is part of it.

        >>> Secrets(["a/b"]).hidden(r'a/b or "a\/b"')
        '[hidden] or "[hidden]"'
        """
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return text

    def hidden_in(self, value: Any) -> Any:
        """What was read from JSON, without the secrets in any of its texts and names.

        >>> Secrets(["key"]).hidden_in({"key": ["my key", 3]})
        {'[hidden]': ['my [hidden]', 3]}
        """
        if isinstance(value, str):
            return self.hidden(value)
        if isinstance(value, list):
            return [self.hidden_in(each) for each in value]
        if isinstance(value, dict):
            return {self.hidden(str(name)): self.hidden_in(each) for name, each in value.items()}
        return value


def _forms(secret: str) -> tuple[str, str, str]:
    """How a secret is written: as it is, and as JSON escapes it, with slashes or without."""
    escaped = json.dumps(secret)[1:-1]
    return secret, escaped, escaped.replace("/", r"\/")
