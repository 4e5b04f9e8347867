from .noisy_weights import Gaussian, Mixture, NoisyWeights, bits_back, expected_data_bits, residual_bits
from .prequential_code import Learner, PrequentialCode, SentBlock, doubling, prequential, probe, timesteps

__all__ = [
    "Gaussian",
    "Learner",
    "Mixture",
    "NoisyWeights",
    "PrequentialCode",
    "SentBlock",
    "bits_back",
    "doubling",
    "expected_data_bits",
    "prequential",
    "probe",
    "residual_bits",
    "timesteps",
]
