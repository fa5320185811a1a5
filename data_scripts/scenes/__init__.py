"""The procedural world: pixel-annotated scenes, drawn on demand and never stored."""

from data_scripts.scenes.captions import caption
from data_scripts.scenes.classes import CLASSES, NOVEL, SEEN, SEEN_NAMES, SEEN_THINGS, STUFF, THINGS
from data_scripts.scenes.domains import DOMAINS
from data_scripts.scenes.look import Look
from data_scripts.scenes.scene import Placed, Scene, SceneDataset, draw_scene
from data_scripts.scenes.splits import support_and_query
from data_scripts.scenes.stuff import LAYOUTS

__all__ = [
    "CLASSES",
    "DOMAINS",
    "LAYOUTS",
    "NOVEL",
    "SEEN",
    "SEEN_NAMES",
    "SEEN_THINGS",
    "STUFF",
    "THINGS",
    "Look",
    "Placed",
    "Scene",
    "SceneDataset",
    "caption",
    "draw_scene",
    "support_and_query",
]
