"""The fake model of the whole test suite: a seeded two-layer Llama with a byte-level vocabulary, written as real GGUF.

Its answers mean nothing; its files, tokenizer, chat template and arithmetic are those of any small Llama checkpoint.
"""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = tuple("the and ing text yes no Yes No user assistant system answer question label one of to is".split())  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class TinySizes:
    """Sizes of the fake model; the vocabulary is 256 bytes, control tokens and merges of some common words."""

    hidden: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 64
    context: int = 512
    seed: int = 0
    tie_embeddings: bool = True


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in byte order (GPT-2's bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens (control ones first) and merges such that every prefix of the common words is a token."""
    tokens, merges = [*CONTROL, *byte_alphabet()], []
    for word in _WORDS:
        for spelled in (word, "Ġ" + word):
            for end in range(2, len(spelled) + 1):
                if spelled[:end] not in tokens:
                    tokens.append(spelled[:end])
                    merges.append(f"{spelled[: end - 1]} {spelled[end - 1]}")
    return tokens, merges


def tiny_model(folder: Path, sizes: TinySizes | None = None, *, chat: bool = True, name: str = "tiny.gguf") -> Path:
    """Write the fake model into `folder` and return the file. The same sizes always give the same bytes."""
    sizes = sizes or TinySizes()
    path = folder / name
    writer = gguf.GGUFWriter(path, "llama")
    tokens, merges = vocabulary()
    _write_header(writer, sizes, len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in CONTROL else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    if chat:
        writer.add_chat_template(CHAT_TEMPLATE)
    for tensor_name, values in weights(sizes, len(tokens)).items():
        writer.add_tensor(tensor_name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def weights(sizes: TinySizes, vocab_size: int) -> dict[str, Weights]:
    """fp32 tensors by GGUF name, row-major; scaled so that activations keep their size from layer to layer."""
    draw = np.random.default_rng(sizes.seed)
    head_dim = sizes.hidden // sizes.heads

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Weights:
        values: Weights = (draw.standard_normal((rows, columns)) * gain * columns**-0.5).astype(np.float32)
        return values

    def norm() -> Weights:
        values: Weights = (1 + 0.1 * draw.standard_normal(sizes.hidden)).astype(np.float32)
        return values

    # A wide embedding keeps the logits of the tied head apart, so that near ties do not make tests flicker.
    tensors = {"token_embd.weight": matrix(vocab_size, sizes.hidden, 8.0)}
    for layer in range(sizes.layers):
        at = f"blk.{layer}."
        tensors[at + "attn_norm.weight"] = norm()
        tensors[at + "attn_q.weight"] = matrix(sizes.hidden, sizes.hidden, 2.0)
        tensors[at + "attn_k.weight"] = matrix(sizes.kv_heads * head_dim, sizes.hidden, 2.0)
        tensors[at + "attn_v.weight"] = matrix(sizes.kv_heads * head_dim, sizes.hidden, 2.0)
        tensors[at + "attn_output.weight"] = matrix(sizes.hidden, sizes.hidden, 2.0)
        tensors[at + "ffn_norm.weight"] = norm()
        tensors[at + "ffn_gate.weight"] = matrix(sizes.intermediate, sizes.hidden, 2.0)
        tensors[at + "ffn_up.weight"] = matrix(sizes.intermediate, sizes.hidden, 2.0)
        tensors[at + "ffn_down.weight"] = matrix(sizes.hidden, sizes.intermediate, 2.0)
    tensors["output_norm.weight"] = norm()
    if not sizes.tie_embeddings:
        tensors["output.weight"] = matrix(vocab_size, sizes.hidden, 8.0)
    return tensors


def _write_header(writer: gguf.GGUFWriter, sizes: TinySizes, vocab_size: int) -> None:
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_block_count(sizes.layers)
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(sizes.hidden)
    writer.add_feed_forward_length(sizes.intermediate)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(sizes.hidden // sizes.heads)
    writer.add_vocab_size(vocab_size)
