"""How the bundled encoder was made: scenes, captions, and a small CLIP trained on them from scratch.

`python -m data_scripts.bundled clear --out FOLDER` makes it again, or one of your own; `vague` makes a text
tower for vague language over it. README.md tells what they reach.
"""
