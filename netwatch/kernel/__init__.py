"""Everything that touches the kernel: BCC, ctypes and bpf(2) are imported here and nowhere else."""
