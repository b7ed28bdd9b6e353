"""The Triton kernels, each with a twin in minivl/ops."""
