"""Typed look-ups in a Hugging Face config.json."""

from collections.abc import Mapping

from dql.errors import ConfigError

# What older families call the fields that newer ones agree on.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_len"),
}
_SHOWN = 60  # characters of a value in a message


class Keys:
    """Typed look-ups in a config; without a default a missing key is an error."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = values

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{name} in config.json is {_short(value)}, not a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"{name} in config.json is {_short(value)}, not a number")
        return float(value)

    def optional(self, name: str) -> float | None:
        return None if self.values.get(name) is None else self.number(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise ConfigError(f"{name} in config.json is {_short(value)}, not text")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{name} in config.json is {_short(value)}, not true or false")
        return value

    def mapping(self, name: str) -> Mapping[str, object]:
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} in config.json is {_short(value)}, not an object")
        return value

    def _value(self, name: str, default: object) -> object:
        names = (name, *_ALIASES.get(name, ()))
        value = next((found for key in names if (found := self.values.get(key)) is not None), default)
        if value is None:
            raise ConfigError(f"config.json lacks {name}")
        return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
