"""Server loops: who waits for bytes, and which thread runs a call."""
