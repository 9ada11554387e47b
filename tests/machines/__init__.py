"""Virtual machines with other kernels than the one that runs: what netwatch can do there, seen and not presumed."""
