"""The runtime: read a bundle, run its programs, restore pictures within a budget. Needs numpy, not torch."""

from .bundle import Bundle
from .controller import Policy, Stop
from .errors import BackendError, BundleError, BurnishError, GateFailed, InputError
from .pictures import Picture
from .restoration import Event, Restoration, Step, Update
from .restorer import Restorer
from .stream import Stream

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "BurnishError",
    "Event",
    "GateFailed",
    "InputError",
    "Picture",
    "Policy",
    "Restoration",
    "Restorer",
    "Step",
    "Stop",
    "Stream",
    "Update",
]
