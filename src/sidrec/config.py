"""Typed configuration: one declaration a hyper-parameter, all mistakes reported at once.

A `Config` is a frozen pydantic model; the docstring under a field is its description. A field that
holds "one of a family" (`tokenizer`, `recommender`, …) is a `slot`: its `kind` names the class in
the registry, whose own `Config` checks the rest. Seeds, devices, paths and logging are not here:
they are `RunSettings`, so that a method's digest does not change with the machine.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from sidrec.errors import ConfigError, nearest
from sidrec.progress import Progress, Silent
from sidrec.registry import load_class
from sidrec.team import ALONE, Team

__all__ = [
    "Config",
    "Part",
    "RunSettings",
    "build",
    "kind_of",
    "load_yaml",
    "merge",
    "parse",
    "part_class",
    "refuse_unread",
    "slot",
    "with_overrides",
]

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, docstrings are descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


AnyConfig: TypeAlias = type[Config]


class Part:
    """Something a recipe can name: constructed from its `Config` or from the same fields by name.

    Subclasses define a nested `Config` and do nothing else in the constructor.
    """

    Config: ClassVar[AnyConfig]

    def __init__(self, config: BaseModel | None = None, /, **fields: Any) -> None:
        if config is not None and fields:
            raise TypeError("pass a Config or fields, not both")
        if config is not None and not isinstance(config, type(self).Config):
            raise TypeError(f"{type(self).__name__} takes its own Config, not {type(config).__qualname__}")
        self.config: Any = parse(type(self).Config, fields) if config is None else config


@dataclass(frozen=True)
class RunSettings:
    """What a run decides and a method must not: seed, device, progress display, scratch folder, processes."""

    seed: int = 0
    device: str = "auto"
    """`auto` takes CUDA if there is any, else the CPU."""
    progress: Progress = field(default_factory=Silent)
    scratch: Path | None = None
    """Folder for files that let a killed run resume, left to its owner. With None a stage uses one inside the run and
    removes it after success; outside of stages nothing is kept."""
    team: Team = ALONE
    """This process among those that share the work."""

    def torch_device(self) -> str:
        """The device name to use, with `auto` resolved.

        Raises:
            ConfigError: this machine or this torch has no such device.
        """
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"device: '{self.device}' cannot be used: {reason}", next="use auto or cpu") from error
        return self.device


def slot(family: str) -> BeforeValidator:
    """Annotation metadata for a field that holds one kind of a family, or None where the field allows that.

    Use as `tokenizer: Annotated[SerializeAsAny[Config], slot("tokenizer")]`.
    """

    def choose(value: object) -> object:
        if isinstance(value, Config) or value is None:
            return value
        value = _as_slot(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a mapping with 'kind' or the name of a {family}")
        if "kind" not in value:
            raise ValueError(f"'kind' is missing: which {family}?")
        try:
            part = part_class(family, str(value["kind"]))
        except ConfigError as error:
            raise ValueError(str(error)) from error
        try:
            return part.Config.model_validate(dict(value))
        except ValidationError as error:
            raise _SlotError(part.Config, error) from error

    return BeforeValidator(choose)


def part_class(family: str, kind: str) -> type[Part]:
    """The class that `kind` names in a family.

    Raises:
        ConfigError: the kind is not known, cannot be imported, or is nothing that a recipe can name.
    """
    found = load_class(family, kind)
    if not (isinstance(found, type) and issubclass(found, Part) and hasattr(found, "Config")):
        raise ConfigError(f"{family} '{kind}' is no class derived from Part with a Config of its own")
    return found


def kind_of(config: BaseModel) -> str:
    """The kind that a slot's configuration names."""
    return str(vars(config)["kind"])


def build(family: str, config: BaseModel) -> Any:
    """The part of a family that a slot's configuration describes.

    Raises:
        ConfigError: its kind is not known.
    """
    return part_class(family, kind_of(config))(config)


def parse(cls: type[ConfigT], data: Mapping[str, Any], where: str = "") -> ConfigT:
    """Validate `data`; on failure report every problem with its key path.

    Raises:
        ConfigError: one line a problem, unknown keys with the nearest known one.
    """
    try:
        return cls.model_validate(dict(data))
    except ValidationError as error:
        problems = list(_problems(error, cls, ()))
        raise ConfigError(problems, where=where, next="see all fields with 'sidrec recipes show NAME'") from None


def refuse_unread(config: Config, choice: str, readers: Mapping[str, Collection[str]]) -> None:
    """For validators: refuse fields that were set in vain, because the chosen kind does not read them.

    A field with its default value is never refused: files of saved configurations hold all fields, and the kind may be
    changed on the command line.

    Args:
        config: to be checked.
        choice: the field that chooses.
        readers: fields that each choice reads, of those that not all choices read.

    Raises:
        ValueError: there is such a field; the message names all of them.
    """
    chosen, vain = str(getattr(config, choice)), list[str]()
    for name in dict.fromkeys(name for names in readers.values() for name in names):
        if name not in readers[chosen] and getattr(config, name) != type(config).model_fields[name].default:
            kinds = " or ".join(kind for kind, names in readers.items() if name in names)
            vain.append(f"{name} is for {choice} {kinds}, not for {chosen}")
    if vain:
        raise ValueError("; ".join(vain))


def _problems(error: ValidationError, cls: type[BaseModel], prefix: tuple[str, ...]) -> Iterable[str]:
    for item in error.errors():
        location = tuple(str(part) for part in item["loc"])
        path = (*prefix, *location)
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, _SlotError):
            yield from _problems(inner.error, inner.cls, path)
            continue
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key; {nearest(location[-1], _fields(cls, location[:-1]))}"
        elif item["type"] not in ("value_error", "missing"):
            message = f"{message[0].lower()}{message[1:]}, got {item['input']!r}"
        yield f"{'.'.join(path) or '(top)'}: {message}"


class _SlotError(ValueError):
    """Carries the mistakes inside a slot, with the config class that found them."""

    def __init__(self, cls: type[BaseModel], error: ValidationError) -> None:
        super().__init__(str(error))
        self.cls, self.error = cls, error


def _fields(cls: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """Field names of the model that lies at `path` under `cls`."""
    for name in path:
        annotation = cls.model_fields[name].annotation
        choices = (annotation, *get_args(annotation))  # an optional model is a union with None
        models = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)]
        if not models:
            return []
        cls = models[0]
    return list(cls.model_fields)


class _Yaml12Loader(yaml.SafeLoader):
    """Safe loader with YAML 1.2 booleans (`no` stays text) and floats such as `1e-4`; no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def load_yaml(text: str, where: str = "") -> Any:
    """Parse YAML text with the rules of YAML 1.2.

    >>> load_yaml("{a: 1e-4, b: no}")
    {'a': 0.0001, 'b': 'no'}

    Raises:
        ConfigError: the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Yaml12Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=where) from error


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; a slot whose `kind` changes is replaced whole.

    A slot may be written as its kind alone on either side.

    >>> merge({"a": {"kind": "x", "n": 1}, "b": 2}, {"a": {"n": 3}})
    {'a': {'kind': 'x', 'n': 3}, 'b': 2}
    >>> merge({"a": "x"}, {"a": {"n": 3}}), merge({"a": {"kind": "x", "n": 3}}, {"a": "y"})
    ({'a': {'kind': 'x', 'n': 3}}, {'a': {'kind': 'y'}})
    """
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        if isinstance(value, Mapping):
            old = _as_slot(old)
        elif isinstance(old, Mapping) and "kind" in old:
            value = _as_slot(value)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and _same_kind(old, value):
            out[key] = merge(old, value)
        else:
            out[key] = value
    return out


def _as_slot(value: object) -> object:
    """`rqvae` stands for `{kind: rqvae}`."""
    return {"kind": value} if isinstance(value, str) else value


def _same_kind(old: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    return change.get("kind", old.get("kind")) == old.get("kind")


def with_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`data` with `key.path=value` settings applied; values are read as YAML.

    What names a part is applied before the settings of the part, whatever the order of the command line.

    >>> with_overrides({"training": {"lr": 1}}, ["training.max_steps=20"])
    {'training': {'lr': 1, 'max_steps': 20}}

    Raises:
        ConfigError: an override has no `=` or no key.
    """
    out, overrides = dict(data), list(overrides)
    bad = [text for text in overrides if "=" not in text or text.startswith("=")]
    if bad:
        raise ConfigError([f"'{text}' is not of the form key.path=value" for text in bad])
    for text in sorted(overrides, key=_depth):
        path, _, value = text.partition("=")
        change: Any = load_yaml(value, where=text)
        for key in reversed(path.split(".")):
            change = {key: change}
        out = merge(out, change)
    return out


def _depth(override: str) -> int:
    """How deep a setting reaches; `tokenizer.kind` names the whole part, as `tokenizer` does."""
    keys = override.partition("=")[0].split(".")
    return len(keys) - (keys[-1] == "kind")
