"""Result tables as text, in every output mode; data never reaches the terminal as control codes."""

from dql.render.modes import MODES, mode_named, render

__all__ = ["MODES", "mode_named", "render"]
