from .checkpoints import Checkpoint, open_checkpoint, read_checkpoint

__all__ = ["Checkpoint", "open_checkpoint", "read_checkpoint"]
