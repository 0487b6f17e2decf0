"""Students, teachers, degradations and training."""

from .torchvision_ops import declare_missing

declare_missing()
