from .frontier import frontier
from .stages import bits_by_tensor, description_bars, stage_curve
from .tensors import mask_maps, sensitivity, weight_histograms

__all__ = [
    "bits_by_tensor",
    "description_bars",
    "frontier",
    "mask_maps",
    "sensitivity",
    "stage_curve",
    "weight_histograms",
]
