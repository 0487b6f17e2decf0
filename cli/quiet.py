"""What libraries write to the terminal while they load is not for those who asked for a picture."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Generator


def silence_advice() -> None:
    """What libraries advise their callers' authors, in the whole process; errors are heard.

    torchao looks for kernels of other machines and says of each that it does not load.
    """
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # What Pillow thinks of a file's metadata: the picture is read or refused all the same.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@contextlib.contextmanager
def libraries_silenced() -> Generator[None]:
    """Nothing that this process writes to standard error is seen, native code's words neither; errors raised pass.

    Of the command line alone: the standard error of a program that imports burnish is not ours. What a library says before
    it aborts the process is not heard either.
    """
    if sys.stderr is None:  # closed by whoever started us
        yield
        return
    sys.stderr.flush()
    heard = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(heard, 2)
        os.close(heard)
