"""Builds transformers' module of a family from a checkpoint's safetensors, and runs nothing of the checkpoint's own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging

from dql.errors import ConfigError, DqlError, UnsupportedError
from dql.executor.models.generic import ATTENTION, GenericDecoder, register_attention
from dql.executor.models.generic_check import check_equal, observe
from dql.executor.models.linear import Layout
from dql.executor.options import LoadFormat
from dql.executor.quantize import DenseLayout
from dql.executor.weights import check_at_hand
from dql.models.model import Model
from dql.models.vocabulary_json import read_json

# Keys of a config.json that choose code or files instead of describing the model.
_IGNORED = frozenset({"auto_map", "fusion_config", "transformers_weights", "dtype", "torch_dtype", "_name_or_path"})


def load_generic(model: Model, load_format: LoadFormat, layout: Layout) -> GenericDecoder:
    """The model in fp32. Raises ConfigError, or UnsupportedError naming the family and what dql cannot run of it."""
    register_attention()
    with _quiet(), torch.no_grad():
        config = _config(model)
        kind = _module_class(model, config)
        module = _built(kind, config, model, load_format)
        shape = observe(module, model.shape)
        check_equal(module, GenericDecoder(module, shape, DenseLayout(torch.device("cpu"))))
        if layout.device.type != "cpu":
            module.to(layout.device)
        return GenericDecoder(module, replace(shape, context_length=model.shape.context_length), layout)


def _config(model: Model) -> Any:
    path = model.path if model.format == "config" else model.path / "config.json"
    values = {name: value for name, value in read_json(path, required=True).items() if _describes(name)}
    family = model.shape.architecture
    if family not in CONFIG_MAPPING:
        raise UnsupportedError(
            f"models of family {family!r} are unknown to transformers {transformers.__version__}",
            hint="a newer transformers may know them",
        )
    try:
        return CONFIG_MAPPING[family].from_dict(values)
    except Exception as error:  # each family's class checks its values in its own way
        raise ConfigError(f"{path}: transformers cannot use it: {_reason(error)}") from error


def _describes(name: str) -> bool:
    return name not in _IGNORED and not name.endswith("_implementation")


def _module_class(model: Model, config: Any) -> Any:
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None or not kind._supports_attention_backend:
        raise UnsupportedError(
            f"models of family {model.shape.architecture!r} cannot run with dql's attention in "
            f"transformers {transformers.__version__}"
        )
    return kind


def _built(kind: Any, config: Any, model: Model, load_format: LoadFormat) -> Any:
    try:
        module = _random(kind, config) if load_format == "dummy" else _from_files(kind, config, model)
    except DqlError:
        raise
    except Exception as error:  # the family's own code, on sizes that nobody has checked
        raise ConfigError(f"{model.path}: transformers cannot build the model: {_reason(error)}") from error
    return module.eval()


def _from_files(kind: Any, config: Any, model: Model) -> Any:
    """Tensors are read one by one, straight from the files whose headers have been checked."""
    check_at_hand(model)
    with ExitStack() as open_files:
        slices: dict[str, Any] = {}
        for path in model.files:
            file = open_files.enter_context(safe_open(path, framework="pt"))
            slices |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        module, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=slices,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            output_loading_info=True,
        )
    if info["missing_keys"]:
        missing = min(info["missing_keys"])
        raise ConfigError(f"the checkpoint lacks the tensor {missing!r}", hint="download the model again")
    return module


def _random(kind: Any, config: Any) -> Any:
    """The module as transformers initialises it, the same on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config._attn_implementation = ATTENTION
        return kind(config).to(torch.float32)


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress and reports of loading are dql's to show."""
    log: Any = logging  # its switches have no types
    shown, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if shown:
            log.enable_progress_bar()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]
