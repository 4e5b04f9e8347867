from .grid import Grid, KeepGrid, Quantizer, Rounder
from .hardware import Codebook, FixedBits
from .rate import Curvature, RateLoss, data_bits, layer_error, price_at, squared_error
from .rounded import CodebookValues, Dequantizer, PerRowScale, PerTensorScale, Rounded

__all__ = [
    "Codebook",
    "CodebookValues",
    "Curvature",
    "Dequantizer",
    "FixedBits",
    "Grid",
    "KeepGrid",
    "PerRowScale",
    "PerTensorScale",
    "Quantizer",
    "RateLoss",
    "Rounded",
    "Rounder",
    "data_bits",
    "layer_error",
    "price_at",
    "squared_error",
]
