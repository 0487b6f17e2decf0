"""The errors burnish raises on purpose. Each message says what was given, what was expected and what to do."""


class BurnishError(Exception):
    """Base of all; the command line prints it as one line and exits with `exit_status`."""

    exit_status = 2


class InputError(BurnishError):
    """A picture, folder, option or file the user gave cannot be used."""


class BundleError(BurnishError):
    """A bundle is damaged, unsafe, of another format version, or lacks what was asked for."""


class BackendError(BurnishError):
    """A program cannot be run on this machine."""


class DeviceError(BurnishError):
    """A device is not there, not ready, or failed while it worked."""


class GateFailed(BurnishError):
    """A quality or speed gate was measured and not met."""

    exit_status = 1
