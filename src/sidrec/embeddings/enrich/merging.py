"""Answers of several sources made one, by declared precedence and in a stable order."""

from collections.abc import Mapping, Sequence

from sidrec.embeddings.enrich.answers import Facts

__all__ = ["facts_line", "merged"]


def merged(facts: Mapping[str, Facts], precedence: Mapping[str, Sequence[str]] | None = None) -> Facts:
    """One value a field: the first text in the order of precedence, or the union of all lists in that order.

    Texts of a list that differ in case alone are one, as its first source writes it. Where one source has a text and
    another a list, the text is a list of one.

    Args:
        facts: source → what it says, in the usual order of precedence.
        precedence: field → sources in the order that holds for it; others follow in the usual order.

    >>> steam, chat = {"year": "2011", "genres": ["Racing"]}, {"year": "2012", "genres": ["Sports", "racing"]}
    >>> merged({"steam": steam, "chat": chat}, {"year": ["chat"]})
    {'year': '2012', 'genres': ['Racing', 'Sports']}
    """
    fields = dict.fromkeys(name for own in facts.values() for name in own)
    out: Facts = {}
    for name in fields:
        first = (precedence or {}).get(name, ())
        order = dict.fromkeys([*(source for source in first if source in facts), *facts])
        values = [facts[source][name] for source in order if name in facts[source]]
        if any(isinstance(value, list) for value in values):
            out[name] = _union(values)
        else:
            out[name] = values[0]
    return out


def _union(values: Sequence[str | list[str]]) -> list[str]:
    found: dict[str, str] = {}
    for value in values:
        for text in value if isinstance(value, list) else [value]:
            found.setdefault(text.casefold(), text)
    return list(found.values())


def facts_line(facts: Facts, fields: Sequence[str] = ()) -> str:
    """Facts as one line for text encoders: `release year: 2011; genres: Racing, Sports`.

    Args:
        facts: of one item.
        fields: those to write, in this order; empty means all in the order of their names.

    >>> facts_line({"genres": ["Racing", "Sports"], "about": "a game; fast", "year": "2011"}, ["year", "about"])
    'year: 2011; about: a game, fast'
    """
    known = {name: facts[name] for name in fields or sorted(facts) if name in facts}
    texts = {name: value if isinstance(value, str) else ", ".join(value) for name, value in known.items()}
    return "; ".join(
        f"{name.replace('_', ' ')}: {' '.join(text.replace(';', ',').split())}" for name, text in texts.items()
    )
