from .frontier_plot import frontier
from .sensitivity_map import sensitivity
from .stages import accuracy_by_active, accuracy_by_sparsity, description_bars
from .tensors import mask_maps, weight_histograms

__all__ = [
    "accuracy_by_active",
    "accuracy_by_sparsity",
    "description_bars",
    "frontier",
    "mask_maps",
    "sensitivity",
    "weight_histograms",
]
