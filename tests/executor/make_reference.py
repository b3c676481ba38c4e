"""Writes fixtures/smollm2.npz and fixtures/gemma3-270m.npz: what transformers answers in fp32, for test_reference.py.

    python -m tests.executor.make_reference [smollm2] [gemma3-270m]

The rows are docstrings of Python's standard library. Prompts are stored as token ids, so that the fixtures depend
neither on the Python version nor on a tokenizer.
"""

import ast
import random
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import Transformers
from tests.models.real import real_model

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True, slots=True)
class Reference:
    """How a model is asked: control text before and after `characters` of each row, and after each label.

    scored: rows that labels are scored for, every fifth from the shortest on.
    """

    rows: int
    scored: int
    characters: int
    new_tokens: int
    head: str
    tail: str
    end: str
    labels: tuple[str, ...] = ("yes", "no", "not sure")


REFERENCES: Mapping[str, Reference] = {
    "smollm2": Reference(
        rows=200,
        scored=40,
        characters=300,
        new_tokens=16,
        head="<|im_start|>user\nSay in one sentence what this Python code is for.\n",
        tail="<|im_end|>\n<|im_start|>assistant\n",
        end="<|im_end|>",
    ),
    "gemma3-270m": Reference(
        rows=100, scored=10, characters=80, new_tokens=6, head="<bos>Python function: ", tail="\nSummary:", end="<eos>"
    ),
}


def docstrings(rows: int, characters: int) -> list[str]:
    """Docstrings of functions and classes, the same ones on every run of the same Python."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                found.append(f"{node.name}: {text[:characters]}")
    random.Random(0).shuffle(found)
    return found[:rows]


def main() -> None:
    """Run transformers on all rows, prompts of similar length together so that little is padded."""
    for name in sys.argv[1:] or REFERENCES:
        write(name, REFERENCES[name])


def write(name: str, reference: Reference) -> None:
    """Write one fixture."""
    model = real_model(name)
    tokenizer = model.tokenizer
    head, tail = tokenizer.encode_control(reference.head), tokenizer.encode_control(reference.tail)
    flat, offsets = tokenizer.encode_data(docstrings(reference.rows, reference.characters))
    prompts = sorted((np.concatenate((head, part, tail)) for part in np.split(flat, offsets[1:-1])), key=len)
    labels = [tokenizer.encode_control(label + reference.end) for label in reference.labels]
    peer = Transformers(model)
    tokens = np.stack(peer.generate_ids(prompts, reference.new_tokens))
    scores = np.stack(peer.score(prompts[::5][: reference.scored], [label.tolist() for label in labels]))
    np.savez_compressed(
        FIXTURES / f"{name}.npz",
        prompts=np.concatenate(prompts).astype(np.int32),
        prompt_lengths=np.array([len(prompt) for prompt in prompts], np.int32),
        tokens=tokens.astype(np.int32),
        labels=np.concatenate(labels).astype(np.int32),
        label_lengths=np.array([len(label) for label in labels], np.int32),
        scores=scores.astype(np.float32),
    )


if __name__ == "__main__":
    main()
