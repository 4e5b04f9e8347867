from .checkpoints import Checkpoint, CheckpointError, open_checkpoint, read_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "open_checkpoint",
    "read_checkpoint",
]
