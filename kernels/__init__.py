"""Tensors in, tensors out: each op's Triton kernel and CPU path side by side."""
