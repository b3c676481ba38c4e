"""The built-in models where this user keeps them. The small one is fetched if it is missing; the others are large."""

import pytest

from dql.config import Config
from dql.models import Model
from dql.models.registry import Registry

SMALL = "smollm2"


def real_model(name: str) -> Model:
    """For tests marked `model`; skips the test where a large model is not here."""
    registry = Registry(Config.load().models_dir)
    if name != SMALL and not registry.installed(name):
        pytest.skip(f"{name} is not on this machine: dql models pull {name}")
    return registry.pull(name)
