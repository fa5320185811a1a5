"""`python -m rose_kit`: the same as `rose-kit`."""

from rose_kit.cli import main

main()
