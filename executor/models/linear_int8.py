"""int8 matrices on a CPU with VNNI: a scale per output of the weight, and one per row of x that is found as it runs.

y[m, n] = x_scales[m] · scales[n] · Σ_k codes[m, k] · weight[n, k]. oneDNN multiplies unsigned activations by signed
weights; codes are stored 128 higher than they are, and what that adds to every sum, 128 · Σ_k weight[n, k], is taken
off as part of the product's bias. A row's scale is a factor on its sums, so that no row's outlier costs another row
precision.
"""

import torch

from dql.executor.models.linear import Activation, DenseLinear, GateActivation, activated

_LARGEST, _ZERO = 127, 128


class Int8Linear:
    """x fp32 in, fp32 out."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.outputs: int = weight.shape[0]
        self._scales = weight.abs().amax(1).clamp_min_(1e-12).div_(_LARGEST)
        codes = torch.round(weight / self._scales[:, None]).to(torch.int8)
        self._offset = codes.sum(1).mul_(-_ZERO).float().mul_(self._scales)
        self._zeros = torch.zeros(self.outputs, dtype=torch.int32)
        self._weight: torch.Tensor = torch.ops.onednn.qlinear_prepack(codes, None)
        self._bias = bias

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        return activated(self.product(*quantized(x)), activation)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self(x).add_(residual)

    def product(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """The product of rows that are `quantized` already: [rows, outputs] float32."""
        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, 0, self._weight, self._scales, self._zeros, self._offset, 1.0, 0, torch.float32, "none", [], ""
        )
        return y.mul_(scales) if self._bias is None else torch.addcmul(self._bias, y, scales, out=y)


class Int8Gated:
    """x fp32 in, quantised once for both products; fp32 out."""

    def __init__(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> None:
        first, second = (None, None) if bias is None else bias.chunk(2)
        self._gate, self._up = Int8Linear(gate, first), Int8Linear(up, second)
        self._activation: GateActivation = activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        codes = quantized(x)
        return activated(self._gate.product(*codes), self._activation).mul_(self._up.product(*codes))


def quantized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, inputs] float32 → uint8 codes [rows, inputs] around 128, scales [rows, 1] float32.

    Passes that torch vectorises: its conversion to uint8 and its maximum norm are many times slower.
    """
    scales = x.abs().amax(1, keepdim=True).clamp_min_(1e-12).div_(_LARGEST)
    return torch.div(x, scales).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(_ZERO), scales


def int8_works() -> bool:
    """Whether this torch build offers the product and gets it right where sums of pairs overflow 16 bits."""
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    weight = torch.full((16, 64), 0.5)
    weight[::2, 1::2] = -0.5
    x = torch.cat((torch.ones(1, 64), torch.linspace(-1, 1, 128).view(2, 64)))
    try:
        y = Int8Linear(weight)(x)
    except (RuntimeError, NotImplementedError):
        return False
    return torch.allclose(y, DenseLinear(weight)(x), atol=0.1)
