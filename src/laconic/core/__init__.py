"""What knows nothing of networks: files, kernels, buffers, processes, text."""
