"""Prompts: what an operator says to a model, compiled once and filled with rows many times."""

from dql.prompts.batch import RowFailure, TokenBatch
from dql.prompts.compiled import CompiledPrompt, compile_multi_label, compile_prompt
from dql.prompts.spec import PromptSpec, Task

__all__ = [
    "CompiledPrompt",
    "PromptSpec",
    "RowFailure",
    "Task",
    "TokenBatch",
    "compile_multi_label",
    "compile_prompt",
]
