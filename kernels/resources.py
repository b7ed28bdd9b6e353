"""What the shipped configurations take on cards that need not be there: shared memory, registers, spills.

    python -m kernels.resources            every configuration, compiled for sm_80, sm_89, sm_90 and sm_120

Triton compiles for any target without a GPU, and its own cuobjdump reads the machine code. A block may use 101,376
bytes of shared memory on sm_89 and sm_120 (RTX 4090, 5090), 166,912 on sm_80 and 232,448 on sm_90.
"""
