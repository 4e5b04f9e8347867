from .batch_norm import fuse_batch_norms, reestimate_batch_norm_
from .channels import find_channels
from .cut import Bypass
from .heads import find_heads
from .macs import count_macs
from .plan import Coupling, Group, Part, Plan, dead_channels
from .residual_blocks import find_residual_blocks
from .shrink import shrink_

__all__ = [
    "Bypass",
    "Coupling",
    "Group",
    "Part",
    "Plan",
    "count_macs",
    "dead_channels",
    "find_channels",
    "find_heads",
    "find_residual_blocks",
    "fuse_batch_norms",
    "reestimate_batch_norm_",
    "shrink_",
]
