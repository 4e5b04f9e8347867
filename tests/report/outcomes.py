"""A pruned network's figures, as `result.json` has them."""

PRUNED = {
    "accuracy": 0.9,
    "data_bits": 100.0,
    "file_bytes": 50,
    "sparsity": 0.8,
    "parameters": 40,
    "multiply_adds": 70.0,
}
