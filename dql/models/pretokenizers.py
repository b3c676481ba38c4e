"""How byte-level BPE vocabularies cut text into words, by the name that GGUF files give it (tokenizer.ggml.pre).

The patterns are those of the models' own tokenizer.json files; llama.cpp lists which name means which
(src/llama-vocab.cpp).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

from dql.errors import UnsupportedError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class WordCut:
    """pattern: one word; None is GPT-2's. A word that is a token as a whole skips the merges where so trained."""

    pattern: str | None = None
    single_digits: bool = False
    whole_words: bool = False
    compose: bool = False  # Unicode NFC first

    @property
    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.compose else None

    @property
    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.pattern is None)
        steps: list[pre_tokenizers.PreTokenizer] = [byte_level]
        if self.pattern is not None:
            steps.insert(0, pre_tokenizers.Split(Regex(self.pattern), behavior="isolated"))
        if self.single_digits:
            steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
        return pre_tokenizers.Sequence(steps)


_GPT2 = WordCut()
_DIGITS = WordCut(single_digits=True)
_WORD_CUTS: Mapping[str, WordCut] = {
    "gpt-2": _GPT2,
    "gpt2": _GPT2,
    "phi-2": _GPT2,
    "olmo": _GPT2,
    "mpt": _GPT2,
    "exaone4": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "codeshell": _DIGITS,
    "exaone": _DIGITS,
    "llama-bpe": WordCut(_LLAMA3, whole_words=True),
    "llama3": WordCut(_LLAMA3, whole_words=True),
    "llama-v3": WordCut(_LLAMA3, whole_words=True),
    "smaug-bpe": WordCut(_LLAMA3),
    "dbrx": WordCut(_LLAMA3),
    "qwen2": WordCut(_QWEN2, compose=True),
    "deepseek-r1-qwen": WordCut(_QWEN2, compose=True),
    "stablelm2": WordCut(_QWEN2),
    "tekken": WordCut(_TEKKEN, whole_words=True),
}


def word_cut(name: str) -> WordCut:
    """The cut of that name. Raises UnsupportedError: with a wrong cut a model would answer, only worse."""
    if name not in _WORD_CUTS:
        raise UnsupportedError(
            f"the GGUF file cuts words by rule {name!r}, which dql does not know",
            hint="known: " + ", ".join(sorted(_WORD_CUTS)) + "; the model's safetensors carry their own rule",
        )
    return _WORD_CUTS[name]
