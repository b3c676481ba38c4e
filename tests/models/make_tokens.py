"""Writes fixtures/*_tokens.json: texts and the ids that transformers' own reading of the same GGUF gives them.

python -m tests.models.make_tokens smollm2 path/to/SmolLM2-135M-Instruct.Q4_1.gguf
python -m tests.models.make_tokens gemma3 path/to/gemma-3-270m-q4_k_m.gguf
"""

import inspect
import json
import sys
import textwrap
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"
# Fractions and circled numbers are left out: transformers cuts words of this GGUF by GPT-2's pattern alone, where the
# model's own tokenizer.json and llama.cpp set every \p{N} apart.
ODD = (
    "",
    " ",
    "\n",
    "Hello",
    " Hello",
    "  two  spaces   three\t\ttabs\r\n\r\nlines\n\n\n\n\n",
    "it's we'll I'D THEY'RE don't",
    "1 12 123 1234567890 3.14159 1,000,000",
    "naïve café Ünïcödé ﬁne",
    "日本語のテキストと中文文本。한국어 텍스트",
    "emoji 😀 👩‍👩‍👧‍👦 🇩🇪 ✈️ done",
    "Здравствуй, мир! γειά σου κόσμε مرحبا بالعالم שלום",
    "a\x00b\x07c\x1b[31mred\x7f",
    "zero\u200bwidth\u2060joiner\ufeff combining e\u0301 n\u0303",
    "def f(x: int) -> str:\n    return f'{x!r:>10}' if x else \"\"\n",
    "<b>bold</b> &amp; <table><tr><td>x</td></tr></table>",
    "https://example.org/a?b=c&d=%20e#frag user@example.com",
    "!!!??? --- ... «quotes» “curly” ‘single’ — – …",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "x" * 300,
    "ab " * 200,
)


def texts() -> list[str]:
    """Odd strings, and real prose: first paragraphs of the standard library's docstrings."""
    functions = [*vars(textwrap).values(), *vars(inspect).values(), *vars(json).values()]
    prose = {inspect.getdoc(f) or "" for f in functions if inspect.isroutine(f) or inspect.isclass(f)}
    return [*ODD, *sorted(paragraph.partition("\n\n")[0] for paragraph in prose)]


def main(name: str, path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    rows = [[text, tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts()]
    lines = ",\n".join(json.dumps(row) for row in rows)
    (FIXTURES / f"{name}_tokens.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
