from .stages import accuracy_by_active, accuracy_by_sparsity, description_bars, frontier
from .tensors import mask_maps, sensitivity, weight_histograms

__all__ = [
    "accuracy_by_active",
    "accuracy_by_sparsity",
    "description_bars",
    "frontier",
    "mask_maps",
    "sensitivity",
    "weight_histograms",
]
