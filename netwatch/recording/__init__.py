"""Recordings: what came out of the kernel, in the order in which it came, as frames in a file."""
