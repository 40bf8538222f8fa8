"""Binary kernels for NVIDIA GPUs: their sources, how they are compiled and which one suits which layer. No torch."""
