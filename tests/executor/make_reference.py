"""Writes fixtures/smollm2.npz: what transformers answers in fp32, for test_reference.py.

    python -m tests.executor.make_reference

The 200 rows are docstrings of Python's standard library. Prompts are stored as token ids, so that the fixture depends
neither on the Python version nor on a tokenizer.
"""

import ast
import random
import sysconfig
from pathlib import Path

import numpy as np

from benchmarks.peers import Transformers
from tests.models.real import real_model

FIXTURE = Path(__file__).parent / "fixtures" / "smollm2.npz"
ROWS, NEW_TOKENS, CHARACTERS = 200, 16, 300
LABELS = ("yes", "no", "not sure")


def docstrings() -> list[str]:
    """Docstrings of functions and classes, the same ones on every run of the same Python."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                found.append(f"{node.name}: {text[:CHARACTERS]}")
    random.Random(0).shuffle(found)
    return found[:ROWS]


def main() -> None:
    """Run transformers on all rows, prompts of similar length together so that little is padded."""
    model = real_model("smollm2")
    tokenizer = model.tokenizer
    head = tokenizer.encode_control("<|im_start|>user\nSay in one sentence what this Python code is for.\n")
    tail = tokenizer.encode_control("<|im_end|>\n<|im_start|>assistant\n")
    flat, offsets = tokenizer.encode_data(docstrings())
    prompts = sorted((np.concatenate((head, part, tail)) for part in np.split(flat, offsets[1:-1])), key=len)
    labels = [tokenizer.encode_control(f"{label}<|im_end|>") for label in LABELS]
    peer = Transformers(model)
    tokens = np.stack(peer.generate(prompts, NEW_TOKENS))
    scores = np.stack(peer.score(prompts[::5], [label.tolist() for label in labels]))
    np.savez_compressed(
        FIXTURE,
        prompts=np.concatenate(prompts).astype(np.int32),
        prompt_lengths=np.array([len(prompt) for prompt in prompts], np.int32),
        tokens=tokens.astype(np.int32),
        labels=np.concatenate(labels).astype(np.int32),
        label_lengths=np.array([len(label) for label in labels], np.int32),
        scores=scores.astype(np.float32),
    )


if __name__ == "__main__":
    main()
