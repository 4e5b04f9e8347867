from .adapter import TrainTest
from .standard import Dataset, Split, blobs, cifar10, digits, mnist

__all__ = ["Dataset", "Split", "TrainTest", "blobs", "cifar10", "digits", "mnist"]
