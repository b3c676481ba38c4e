"""Which model a benchmark runs: one by name or path, or a shape whose weights are not at hand."""

import argparse
from pathlib import Path
from typing import get_args

from dql.config import Config
from dql.executor.options import LoadFormat
from dql.models import Model, open_model
from dql.models.registry import Registry


def add_model_options(parser: argparse.ArgumentParser, default: str = "smollm2") -> None:
    """The flags --model, --config and --load-format."""
    parser.add_argument("--model", default=default, help="a model by name, path or hf:org/repo")
    parser.add_argument("--config", type=Path, help="a config.json instead of a model; loads random weights")
    parser.add_argument(
        "--load-format", choices=get_args(LoadFormat), default="auto", help="dummy: random weights of the model's shape"
    )


def chosen_model(options: argparse.Namespace) -> Model:
    """The model that these flags name, its headers read. --config sets load_format to dummy."""
    if options.config is None:
        return Registry(Config.load().models_dir).resolve(options.model)
    options.load_format = "dummy"
    return open_model(options.config, name=options.config.stem, uri=str(options.config))
