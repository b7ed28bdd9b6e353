"""Modules with weights, from the norm to the hybrid block, under the released model's parameter names."""
