from .adapter import TrainTest
from .files import DataError, DownloadError
from .standard import Dataset, Split, blobs, cifar10, digits, mnist

__all__ = [
    "DataError",
    "Dataset",
    "DownloadError",
    "Split",
    "TrainTest",
    "blobs",
    "cifar10",
    "digits",
    "mnist",
]
