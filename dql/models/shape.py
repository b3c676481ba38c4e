"""What a model computes, as plain data: the one description that planner, engine and memory plan share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dql.errors import ConfigError
from dql.models import gguf_fields, hf_fields
from dql.models.gguf import TensorInfo
from dql.models.rope import RopeScaling

Activation = Literal["silu", "gelu_tanh", "gelu"]
Norm = Literal["rms", "layer"]
Pooling = Literal["none", "mean", "cls", "last"]

_MAX_LAYERS = 1_024
_MAX_WIDTH = 1 << 20
_MAX_VOCAB = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes and switches of one transformer.

    architecture: the family ('llama', 'qwen2', 'qwen3', 'mistral', 'gemma2', 'gemma3', 'smollm3', 'bert', …).
    Widths count values, `context_length` and `sliding_window` tokens; a layer sees keys in (t - sliding_window, t].
    Raises ConfigError when the sizes contradict each other.
    """

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    context_length: int

    generic: bool = False  # run by transformers' module of the family; the switches below do not tell all of it
    idle_parameters: int = 0  # weights of experts that a token does not visit; intermediate_size counts the others
    norm_eps: float = 1e-5
    norm: Norm = "rms"
    norm_offset: float = 0.0  # added to every RMS norm weight: 1 for Gemma safetensors, already inside GGUF weights
    sandwich_norms: bool = False  # norms after attention and MLP too, before the residual add (Gemma 2 and 3)
    qk_norm: bool = False  # RMS norm over each head of queries and keys, before the rotation
    activation: Activation = "silu"
    gated_mlp: bool = True
    attention_bias: bool = False  # of the query, key and value projections
    attention_output_bias: bool = False
    mlp_bias: bool = False
    tie_embeddings: bool = True

    rope_theta: float = 10_000.0
    rope_local_theta: float | None = None  # of the sliding layers, where they differ; these are never scaled
    rope_scaling: RopeScaling | None = None
    rope_interleaved: bool = False  # query and key rows stored for adjacent pairs (GGUF of the llama family)
    rotary_dim: int = 0  # leading values of each head that are rotated; 0: all of them
    no_rope_layers: frozenset[int] = frozenset()

    sliding_window: int | None = None
    sliding_layers: frozenset[int] = frozenset()
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    query_scale: float | None = None  # factor on q·k; None: head_dim ** -0.5
    embedding_scale: float = 1.0

    causal: bool = True
    learned_positions: bool = False  # position and token-type tables instead of rotary embeddings (BERT)
    pooling: Pooling = "none"  # of an encoder's last hidden states

    def __post_init__(self) -> None:
        sizes = {
            "num_layers": (self.num_layers, _MAX_LAYERS),
            "hidden_size": (self.hidden_size, _MAX_WIDTH),
            "num_heads": (self.num_heads, _MAX_WIDTH),
            "num_kv_heads": (self.num_kv_heads, _MAX_WIDTH),
            "head_dim": (self.head_dim, _MAX_WIDTH),
            "intermediate_size": (self.intermediate_size, _MAX_WIDTH),
            "vocab_size": (self.vocab_size, _MAX_VOCAB),
            "context_length": (self.context_length, 1 << 31),
        }
        for name, (value, limit) in sizes.items():
            if not 0 < value <= limit:
                raise ConfigError(f"the model's {name} is {value}; it must lie between 1 and {limit}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads")
        if self.rotary_dim > self.head_dim or self.rotary_dim % 2:
            raise ConfigError(f"the model rotates {self.rotary_dim} of {self.head_dim} values of a head")
        if self.sliding_layers and (self.sliding_window is None or self.sliding_window < 1):
            raise ConfigError("the model has sliding-window layers and no window size")

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> "ModelShape":
        """The shape that a GGUF header describes. Raises ConfigError or UnsupportedError naming the key to blame."""
        return cls(**gguf_fields.read(metadata, tensors))

    @classmethod
    def from_hf_config(cls, config: Mapping[str, object]) -> "ModelShape":
        """The shape that a Hugging Face config.json describes. Raises ConfigError or UnsupportedError."""
        return cls(**hf_fields.read(config))

    @property
    def attention_scale(self) -> float:
        """Factor on q·k before the softmax."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads (or all value heads) together."""
        return self.num_kv_heads * self.head_dim

    @property
    def matmul_parameters(self) -> int:
        """Weights that every token is multiplied with, without the LM head."""
        attention = self.hidden_size * (2 * self.query_size + 2 * self.kv_size)
        mlp = self.hidden_size * self.intermediate_size * (3 if self.gated_mlp else 2)
        return self.num_layers * (attention + mlp)

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers, those of experts that a token does not visit among them."""
        return self.matmul_parameters + self.idle_parameters

    @property
    def embedding_parameters(self) -> int:
        """Values of the token embedding; the LM head has as many where it is not tied to it."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All weights of the matrices; norms and biases are left out (under 0.1 %)."""
        heads = 1 if self.tie_embeddings or not self.causal else 2
        return self.layer_parameters + heads * self.embedding_parameters

    def kv_bytes_per_token(self, dtype_bytes: float) -> float:
        """Bytes of KV cache that one token takes over all layers, windows not counted off."""
        return 2 * self.num_layers * self.kv_size * dtype_bytes

    def is_sliding(self, layer: int) -> bool:
        """Whether this layer (0-based) sees only the last `sliding_window` tokens."""
        return layer in self.sliding_layers

    def has_rope(self, layer: int) -> bool:
        """Whether this layer (0-based) rotates its queries and keys."""
        return not self.learned_positions and layer not in self.no_rope_layers
