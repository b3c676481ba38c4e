"""What a call asks its model, compiled for that model: for counting before a run and for the run itself."""

from dql.models import Model
from dql.planner.physical import CallExec
from dql.prompts import CompiledPrompt, PromptSpec, TokenBatch, compile_multi_label, compile_prompt

_WITHOUT_CONTENT = ("N/A", "[MASK]", "")  # what Zhao et al. 2021 ask instead of a row's text


def prompts(call: CallExec, model: Model) -> tuple[CompiledPrompt, ...]:
    """What the call asks the model: one prompt per row, or one per label where several may hold; none to count."""
    if call.op == "count_tokens":
        return ()
    spec = PromptSpec(
        task=call.op,
        template=call.template,
        bare=call.bare,
        labels=call.labels.names,
        descriptions=call.labels.descriptions,
        system=call.system,
        instruction=call.instruction,
        examples=call.examples,
        low=call.low,
        high=call.high,
    )
    return compile_multi_label(model, spec) if call.multi else (compile_prompt(model, spec),)


def without_content(prompt: CompiledPrompt) -> TokenBatch:
    """What is asked instead of rows, to learn how much the model likes each label whatever the text."""
    return prompt.encode([_WITHOUT_CONTENT] * prompt.spec.num_holes)
