"""Result tables as text, in every output mode; data never reaches the terminal as control codes."""

from dql.render.modes import MODES, mode_named, render
from dql.render.sheet import Layout

__all__ = ["MODES", "Layout", "mode_named", "render"]
