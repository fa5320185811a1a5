"""How the bundled encoder was made: scenes, captions, and a small CLIP trained on them from scratch.

`python -m data_scripts.bundled --out FOLDER` makes it again, or one of your own; README.md tells what it
reaches.
"""
