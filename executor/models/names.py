"""What each checkpoint format calls a model's tensors; the role names on the left are dql's own."""

from collections.abc import Mapping
from dataclasses import dataclass

from dql.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class NameTable:
    """Role → tensor name: those that occur once, and those of a layer after `layer_prefix` with the layer's number."""

    model: Mapping[str, str]
    layer: Mapping[str, str]
    layer_prefix: str

    def name(self, role: str, layer: int | None) -> str | None:
        """The tensor's name; None where the format has no name for the role."""
        if layer is None:
            return self.model.get(role)
        return self.layer_prefix.format(layer) + self.layer[role] if role in self.layer else None


_GGUF_MODEL: Mapping[str, str] = {
    "embedding": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
    "rope_divisors": "rope_freqs.weight",
}
_GGUF_LAYER: Mapping[str, str] = {
    "attention_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "o_bias": "attn_output.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "attention_out_norm": "post_attention_norm.weight",
    "mlp_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "gate_bias": "ffn_gate.bias",
    "up_bias": "ffn_up.bias",
    "down_bias": "ffn_down.bias",
    "mlp_out_norm": "post_ffw_norm.weight",
}

_HF_MODEL: Mapping[str, str] = {
    "embedding": "embed_tokens.weight",
    "final_norm": "norm.weight",
    "head": "lm_head.weight",
}
_HF_LAYER: Mapping[str, str] = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "o_bias": "self_attn.o_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "gate_bias": "mlp.gate_proj.bias",
    "up_bias": "mlp.up_proj.bias",
    "down_bias": "mlp.down_proj.bias",
}
# Gemma 2 and 3 norm before and after each half of a layer, and move one name.
_HF_SANDWICH: Mapping[str, str] = {
    "attention_out_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "mlp_out_norm": "post_feedforward_layernorm.weight",
}


_GGUF_BERT_MODEL: Mapping[str, str] = {
    "embedding": "token_embd.weight",
    "positions": "position_embd.weight",
    "token_types": "token_types.weight",
    "embedding_norm": "token_embd_norm.weight",
    "embedding_norm_bias": "token_embd_norm.bias",
}
_GGUF_BERT_LAYER: Mapping[str, str] = {
    **{role: name for role, name in _GGUF_LAYER.items() if not role.endswith("norm")},
    "attention_out_norm": "attn_output_norm.weight",
    "attention_out_norm_bias": "attn_output_norm.bias",
    "mlp_out_norm": "layer_output_norm.weight",
    "mlp_out_norm_bias": "layer_output_norm.bias",
}
_HF_BERT_MODEL: Mapping[str, str] = {
    "embedding": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "token_types": "embeddings.token_type_embeddings.weight",
    "embedding_norm": "embeddings.LayerNorm.weight",
    "embedding_norm_bias": "embeddings.LayerNorm.bias",
}
_HF_BERT_LAYER: Mapping[str, str] = {
    "q": "attention.self.query.weight",
    "k": "attention.self.key.weight",
    "v": "attention.self.value.weight",
    "o": "attention.output.dense.weight",
    "q_bias": "attention.self.query.bias",
    "k_bias": "attention.self.key.bias",
    "v_bias": "attention.self.value.bias",
    "o_bias": "attention.output.dense.bias",
    "attention_out_norm": "attention.output.LayerNorm.weight",
    "attention_out_norm_bias": "attention.output.LayerNorm.bias",
    "up": "intermediate.dense.weight",
    "up_bias": "intermediate.dense.bias",
    "down": "output.dense.weight",
    "down_bias": "output.dense.bias",
    "mlp_out_norm": "output.LayerNorm.weight",
    "mlp_out_norm_bias": "output.LayerNorm.bias",
}


GGUF = NameTable(_GGUF_MODEL, _GGUF_LAYER, "blk.{}.")
GGUF_BERT = NameTable(_GGUF_BERT_MODEL, _GGUF_BERT_LAYER, "blk.{}.")


def hf_embedding(shape: ModelShape) -> str:
    """How the name of the token embedding ends; what stands before it is the prefix of all names."""
    return (_HF_MODEL if shape.causal else _HF_BERT_MODEL)["embedding"]


def hf_names(shape: ModelShape, prefix: str) -> NameTable:
    """Names under `prefix` ('model.', 'language_model.model.', 'bert.', …); a decoder's head stands outside it."""
    if not shape.causal:
        model = {role: prefix + name for role, name in _HF_BERT_MODEL.items()}
        return NameTable(model, _HF_BERT_LAYER, prefix + "encoder.layer.{}.")
    model = {role: name if role == "head" else prefix + name for role, name in _HF_MODEL.items()}
    layer = {**_HF_LAYER, **_HF_SANDWICH} if shape.sandwich_norms else _HF_LAYER
    return NameTable(model, layer, prefix + "layers.{}.")


def role_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """The shape every role's tensor must have in a model of this shape."""
    hidden, inner, heads = shape.hidden_size, shape.intermediate_size, (shape.head_dim,)
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (shape.vocab_size, hidden),
        "head": (shape.vocab_size, hidden),
        "final_norm": (hidden,),
        "rope_divisors": ((shape.rotary_dim or shape.head_dim) // 2,),
        "q": (shape.query_size, hidden),
        "k": (shape.kv_size, hidden),
        "v": (shape.kv_size, hidden),
        "o": (hidden, shape.query_size),
        "gate": (inner, hidden),
        "up": (inner, hidden),
        "down": (hidden, inner),
        "q_norm": heads,
        "k_norm": heads,
    }
    shapes |= {f"{role}_bias": shapes[role][:1] for role in ("q", "k", "v", "o", "gate", "up", "down")}
    norms = ("attention_norm", "attention_out_norm", "mlp_norm", "mlp_out_norm", "embedding_norm")
    shapes |= dict.fromkeys(norms, (hidden,)) | {f"{norm}_bias": (hidden,) for norm in norms}
    shapes |= {"positions": (shape.context_length, hidden), "token_types": (2, hidden)}
    return shapes
