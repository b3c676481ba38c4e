"""Which models may guess ahead for which: `USING large DRAFT small`."""

from dql.errors import UnsupportedError
from dql.models.model import Model


def check_draft(model: Model, draft: Model) -> None:
    """Raises UnsupportedError where the draft's tokens are not the model's."""
    if draft.shape.causal and _written(draft) == _written(model):
        return
    raise UnsupportedError(
        f"{draft.name} cannot draft for {model.name}: their vocabularies differ",
        hint="a draft is a smaller model of the same family, such as Qwen3 0.6B for Qwen3 8B; or leave DRAFT out",
    )


def _written(model: Model) -> list[str]:
    """Tokens by id as they are written, without the gaps that vocabularies are filled up with."""
    pieces = model.tokenizer.vocabulary.pieces
    end = next((count for count in range(len(pieces), 0, -1) if pieces[count - 1]), 0)
    return pieces[:end]
