"""Seconds of an engine's steps on given hardware: one formula for closed forms and for simulated schedules alike."""

from dataclasses import dataclass, field

import numpy as np

from dql.models.shape import ModelShape
from dql.planner.hardware import BYTES_PER_VALUE, Drawing, Floats, Hardware, Operators
from dql.planner.physical import Placement

_ACTIVATION_BYTES = {"fp32": 4.0}  # 16-bit elsewhere
_ELEMENTWISE = 14.0  # passes over a layer's hidden state by norms, rotation, residuals and the like


def zero() -> Floats:
    return np.zeros(1)


@dataclass(frozen=True, slots=True)
class Steps:
    """Work of many steps, one entry each (all arrays broadcast together).

    tokens: packed into the step. outputs: tokens whose last hidden state is wanted. head_rows: rows through the whole
    LM head; label_rows: rows through `labels` of it. Pairs of a token and a key it attends to, by where the key lies:
    own_pairs in rows of `run` tokens, shared_pairs in dense runs, decode_keys in the lanes of decoding rows.
    decoding: rows that decode. started: rows whose prompts end. calls: of attention over prompts, one for rows of about
    the same length. drawing: what the head is asked for, in all of them.
    """

    tokens: Floats
    outputs: Floats
    head_rows: Floats
    label_values: Floats = field(default_factory=zero)
    own_pairs: Floats = field(default_factory=zero)
    run: Floats = field(default_factory=lambda: np.ones(1))
    shared_pairs: Floats = field(default_factory=zero)
    decode_keys: Floats = field(default_factory=zero)
    decoding: Floats = field(default_factory=zero)
    started: Floats = field(default_factory=zero)
    calls: Floats = field(default_factory=zero)
    drawing: Drawing = "best"


@dataclass(frozen=True, slots=True)
class StepModel:
    """One model in one placement on one kind of hardware."""

    hardware: Hardware
    shape: ModelShape
    placement: Placement

    def seconds(self, steps: Steps) -> Floats:
        """Seconds of each step. In a pipeline the step is cut in as many parts as there are stages, which work side by
        side: it takes as long as one part through all of them.
        """
        hardware, layers = self.hardware, self.shape.num_layers
        parts = np.minimum(self.placement.pipeline_parallel, np.maximum(steps.tokens, 1))
        rows = hardware.row_seconds * steps.decoding + hardware.start_seconds * steps.started
        host = hardware.step_seconds + np.where(steps.own_pairs > 0, hardware.launch_seconds * layers, 0.0) + rows
        device = hardware.layer_seconds * layers + self._layers(steps, parts) + self._head(steps, parts)
        found: Floats = host + device - hardware.overlap * np.minimum(host, device)
        return found * self._slower(steps) if self.placement.deterministic and self.hardware.kind == "cpu" else found

    def _slower(self, steps: Steps) -> Floats:
        """What `deterministic = true` makes of a step's seconds, by what its tokens are for."""
        slower, tokens = self.hardware.deterministic, np.maximum(steps.tokens, 1)
        decoding, shared = steps.decoding / tokens, steps.shared_pairs / tokens
        prompts = slower.prompts(steps.tokens) + slower.shared * shared
        found: Floats = decoding * slower.decoding(steps.decoding) + (1 - decoding) * prompts
        return found

    def _layers(self, steps: Steps, parts: Floats) -> Floats:
        shape, shards = self.shape, self.placement.tensor_parallel
        tokens = steps.tokens / parts
        tail = _tail_share(shape)  # of the last layer, which runs for outputs alone
        seconds = (shape.num_layers - tail) * self._layer(tokens) + tail * self._layer(steps.outputs / parts)
        seconds = seconds + shape.num_layers * (self._attention(steps) / parts / shards)
        if self.hardware.kind != "cpu" and self.hardware.source != "measured":  # a measured layer has these in it
            size = tokens * shape.hidden_size * self._activation_bytes
            seconds = seconds + shape.num_layers * size * _ELEMENTWISE / self.hardware.bandwidth / 0.8
        if shards > 1:
            size = tokens * shape.hidden_size * self._activation_bytes
            seconds = seconds + 2 * shape.num_layers * self.hardware.all_reduce(size)
        return seconds

    def _layer(self, tokens: Floats) -> Floats:
        """Seconds of a layer's matrices over so many tokens."""
        parameters = self.shape.matmul_parameters / self.shape.num_layers / self.placement.tensor_parallel
        found: Floats = np.where(
            tokens > 0, self._product(parameters, tokens, self.placement.weights) / self._operators.linear(tokens), 0.0
        )
        return found

    def _attention(self, steps: Steps) -> Floats:
        """Seconds of one layer."""
        operators, pair = self._operators, 4.0 * self.shape.query_size
        key_bytes = 2 * self.shape.kv_size * BYTES_PER_VALUE[self.placement.kv_cache]
        peak = self.hardware.peak["fp32" if self.hardware.kind == "cpu" else "bf16"]  # whatever the weights are in
        own = steps.own_pairs * pair / peak / operators.own_attention(steps.run)
        shared = steps.shared_pairs * pair / peak / operators.shared_attention(steps.tokens)
        light = np.maximum(steps.decode_keys * key_bytes / self.hardware.bandwidth, steps.decode_keys * pair / peak)
        own = own + self.hardware.call_seconds * steps.calls
        found: Floats = own + shared + light / operators.decode_attention(steps.decode_keys)
        return found

    def _head(self, steps: Steps, parts: Floats) -> Floats:
        parameters = self.shape.embedding_parameters / self.placement.tensor_parallel
        rows = steps.head_rows / parts
        precision = self._head_precision
        operators = self.hardware.operators_for(precision, self.shape)
        whole = (
            self._product(parameters, rows, precision) / operators.head(rows) * operators.drawing(steps.drawing, rows)
        )
        flops = steps.label_values * self.shape.hidden_size * 2
        labels = flops / self.hardware.peak[precision] / operators.linear(steps.outputs)
        found: Floats = np.where(rows > 0, whole, 0.0) + labels
        return found

    def _product(self, parameters: float, rows: Floats, precision: str) -> Floats:
        """Seconds of matrices with so many parameters over `rows` rows, at the speed of light."""
        read = parameters * BYTES_PER_VALUE[precision] / self.hardware.bandwidth
        found: Floats = np.maximum(2 * parameters * rows / self.hardware.peak[precision], read)
        return found

    @property
    def _operators(self) -> Operators:
        return self.hardware.operators_for(self.placement.weights, self.shape)

    @property
    def _head_precision(self) -> str:
        """The head stays in fp32 on the CPU, in at least 16 bits elsewhere."""
        if self.hardware.kind == "cpu":
            return "fp32"
        return self.placement.weights if BYTES_PER_VALUE[self.placement.weights] >= 2 else "bf16"

    @property
    def _activation_bytes(self) -> float:
        return _ACTIVATION_BYTES.get(self.placement.weights, 2.0)


def _tail_share(shape: ModelShape) -> float:
    """The share of a layer that comes after its queries, keys and values."""
    first = shape.hidden_size * (shape.query_size + 2 * shape.kv_size)
    return 1 - first / (shape.matmul_parameters / shape.num_layers)
