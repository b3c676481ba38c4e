"""Models as the rest of dql sees them: where weights lie, what shape they have, how text becomes token ids.

`dql.models.registry` finds and fetches them; it is imported by name, because the engine runs without its libraries.
"""

from dql.models.model import Model, open_model
from dql.models.shape import ModelShape
from dql.models.tokenizer import Tokenizer

__all__ = ["Model", "ModelShape", "Tokenizer", "open_model"]
