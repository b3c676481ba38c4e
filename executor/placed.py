"""From a plan's placement to the engine that runs it: which device, in which precisions, with how much memory."""

import gc

import torch

from dql.errors import UnsupportedError
from dql.executor.options import EngineOptions
from dql.models.shape import ModelShape
from dql.planner.contract import Contract
from dql.planner.devices import off_gpu
from dql.planner.physical import Placement


def options_for(shape: ModelShape, placement: Placement, sharing: int = 1) -> EngineOptions:
    """How a model of this shape is loaded; `sharing`: engines of the run that divide a GPU's memory among them.

    A model that no GPU kernel runs, and that was not known when the query was planned, is loaded on the CPU in fp32.
    """
    if placement.device == "cpu":
        return EngineOptions(weights=placement.weights, kv_cache=placement.kv_cache)
    if off_gpu([shape], Contract()) is not None:
        return EngineOptions()
    return EngineOptions(
        device=placement.device,
        weights=placement.weights,
        kv_cache=placement.kv_cache,
        max_rows=placement.max_rows,
        step_tokens=placement.step_tokens,
        kv_share=1 / sharing,
    )


def check_cuda() -> None:
    """Raises UnsupportedError where the driver shows a GPU that torch cannot use."""
    if not torch.cuda.is_available():
        raise UnsupportedError(
            f"torch {torch.__version__} cannot use this machine's GPU, perhaps because its driver is too old",
            hint="update the driver, or run on the CPU: CUDA_VISIBLE_DEVICES= dql …",
        )


def free_cuda() -> None:
    """Give back the GPU memory of engines that nothing refers to any more."""
    gc.collect()  # graphs and their pools refer to each other
    torch.cuda.empty_cache()
