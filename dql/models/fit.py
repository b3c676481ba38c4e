"""Whether a tokenizer fits a model's table of tokens: a folder may hold another model's, or one that grew since."""

import string

from dql.errors import ConfigError
from dql.models.tokenizer import Tokenizer

_EVERYDAY = string.ascii_letters + string.digits + string.punctuation


def check_fit(tokenizer: Tokenizer, rows: int) -> None:
    """Raise ConfigError where a model of `rows` tokens cannot read plain letters, or not begin or end a text."""
    if tokenizer.vocab_size <= rows:
        return
    vocabulary, ends = tokenizer.vocabulary, tokenizer.eos_ids
    ids, offsets = tokenizer.encode_data(list(_EVERYDAY))
    plain = dict(zip(ids[offsets[:-1]].tolist(), _EVERYDAY, strict=True)) if len(ids) == len(_EVERYDAY) else {}
    framing = [id for id in (tokenizer.bos_id, *vocabulary.prefix, *vocabulary.suffix) if id is not None]
    needed = [*ids.tolist(), *framing, *([min(ends)] if ends else [])]  # of several ends one is enough
    if (missing := max(needed)) >= rows:
        shown = plain.get(missing, vocabulary.pieces[missing])
        raise ConfigError(
            f"{shown!r} is token {missing} of {tokenizer.vocab_size:,}, and the model has {rows:,}: "
            "the tokenizer is another model's",
            hint="fetch the tokenizer from where the weights come from",
        )


def misfit(name: str, tokenizer: Tokenizer, rows: int) -> str | None:
    """What to tell about text that a model of `rows` tokens cannot read; None where it reads all.

    Control tokens without a row are common, and harm nothing: no text becomes them, and the model draws none.
    """
    if tokenizer.vocab_size <= rows:
        return None
    beyond = sorted((id, piece) for piece, id in tokenizer.vocabulary.data.get_vocab().items() if id >= rows)
    if not beyond:
        return None
    some = ", ".join(repr(tokenizer.decode_batch([[id]])[0]) for id, _ in beyond[:3])
    count = (
        f"{len(beyond):,} token{'s' if len(beyond) > 1 else ''} more than the model ({some}{', …' * (len(beyond) > 3)})"
    )
    return f"{name}: its tokenizer has {count}; a row whose text holds one has no answer"
