"""The built-in models where this user keeps them, fetched if they are missing."""

from dql.config import Config
from dql.models import Model
from dql.models.registry import Registry


def real_model(name: str) -> Model:
    """For tests marked `model`."""
    return Registry(Config.load().models_dir).pull(name)
