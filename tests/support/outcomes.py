"""A pruned network's figures, as `result.json` has them."""

PRUNED = {"score": 0.9, "data_bits": 100.0, "n_bytes": 50, "sparsity": 0.8, "n_parameters": 40, "n_macs": 70.0}
