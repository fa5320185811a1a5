"""`python -m rose_kit.cli`, for when the console script is not on the path."""

from rose_kit.cli import main

if __name__ == "__main__":
    main()
