"""The compiled engine: Numba kernels on one machine."""
