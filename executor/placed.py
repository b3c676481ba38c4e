"""From a plan's placement to the engine that runs it: which device, in which precisions, with how much memory."""

import gc

import torch

from dql.errors import UnsupportedError
from dql.executor.memory import available_memory, plan_memory
from dql.executor.options import EngineOptions
from dql.models.shape import ModelShape
from dql.planner.contract import Contract
from dql.planner.devices import off_gpu
from dql.planner.physical import Placement
from dql.planner.shortlist import USUAL


def options_for(shape: ModelShape, placement: Placement, sharing: int = 1) -> EngineOptions:
    """How a model of this shape is loaded; `sharing`: engines of the run that divide a GPU's memory among them.

    A model that no GPU kernel runs, and that was not known when the query was planned, is loaded on the CPU in fp32.
    """
    if placement.device == "cpu":
        return EngineOptions(weights=placement.weights, kv_cache=placement.kv_cache)
    if off_gpu([shape], Contract()) is not None:
        return EngineOptions()
    rows, tokens = USUAL[placement.device]  # at least, for the queries after this one
    return EngineOptions(
        device=placement.device,
        weights=placement.weights,
        kv_cache=placement.kv_cache,
        max_rows=max(placement.max_rows, rows),
        step_tokens=max(placement.step_tokens, tokens),
        kv_share=1 / sharing,
    )


def roomy(shape: ModelShape, options: EngineOptions, free: int) -> bool:
    """Whether `free` bytes hold the model and, where it is a decoder, keys of a full step."""
    plan = plan_memory(shape, options, free)
    fits = plan.weights + plan.kv + plan.activations <= free
    return fits and (not shape.causal or plan.slots >= options.step_tokens)


def free_memory(device: str) -> int:
    """Bytes of the device's memory that nothing holds. Raises UnsupportedError, see `free_cuda`."""
    return available_memory() if device == "cpu" else free_cuda()


def free_cuda() -> int:
    """Bytes of the GPU's memory that nothing holds, those counted in that torch kept of engines gone by.

    Raises UnsupportedError where the driver shows a GPU that torch cannot use.
    """
    if not torch.cuda.is_available():
        raise UnsupportedError(
            f"torch {torch.__version__} cannot use this machine's GPU, perhaps because its driver is too old",
            hint="update the driver, or run on the CPU: CUDA_VISIBLE_DEVICES= dql …",
        )
    gc.collect()  # graphs and their pools refer to each other
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])
