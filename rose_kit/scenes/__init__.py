"""The procedural world: pixel-annotated scenes, drawn on demand and never stored."""

from rose_kit.scenes.captions import caption
from rose_kit.scenes.classes import CLASSES, NOVEL, SEEN, SEEN_THINGS, STUFF, THINGS
from rose_kit.scenes.domains import DOMAINS
from rose_kit.scenes.look import Look
from rose_kit.scenes.scene import Placed, Scene, SceneDataset, draw_scene
from rose_kit.scenes.stuff import LAYOUTS

__all__ = [
    "CLASSES",
    "DOMAINS",
    "LAYOUTS",
    "NOVEL",
    "SEEN",
    "SEEN_THINGS",
    "STUFF",
    "THINGS",
    "Look",
    "Placed",
    "Scene",
    "SceneDataset",
    "caption",
    "draw_scene",
]
