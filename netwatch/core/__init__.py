"""The pure core: no I/O, no clock, no awaiting; time comes in as an argument."""
