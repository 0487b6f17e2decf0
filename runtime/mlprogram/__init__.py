"""Core ML's ML programs: the saved package read from disk and its operations executed with torch."""

import logging

# coremltools, whose protobuf messages are read here, warns while it is imported of what only macOS has.
logging.getLogger("coremltools").setLevel(logging.ERROR)
