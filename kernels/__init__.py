"""Tensors in, tensors out: each op's Triton kernel and CPU path side by side.

An op runs its Triton kernel on CUDA tensors and its `_cpu` function on CPU tensors; under TRITON_INTERPRET=1 the
Triton kernels run on CPU tensors too, through Triton's interpreter, which is how they are tested without a GPU.
"""
