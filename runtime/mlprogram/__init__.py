"""Core ML's ML programs: the saved package read from disk and its operations executed with torch."""
