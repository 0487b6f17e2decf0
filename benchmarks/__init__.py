"""Speed and quality measurements, and the protocol they share."""
