"""How living things are drawn: people, animals, plants."""

from __future__ import annotations

from data_scripts.scenes.look import Look, draws
from data_scripts.scenes.pen import Pen, shade

DARK = (25, 22, 25)
WHITE = (245, 245, 240)
_SKIN = ((236, 188, 150), (198, 140, 100), (140, 92, 62), (92, 60, 42))


@draws("person", aspect=0.45)
def _person(p: Pen, k: Look) -> None:
    skin, hair = _SKIN[k.variant], shade(k.second, 0.45)
    p.rect(0.28, 0.55, 0.47, 0.96, k.second)
    p.rect(0.53, 0.55, 0.72, 0.96, shade(k.second, 0.85))
    p.rect(0.22, 0.94, 0.47, 1.0, DARK)
    p.rect(0.53, 0.94, 0.78, 1.0, DARK)
    p.poly([(0.2, 0.25), (0.8, 0.25), (0.74, 0.6), (0.26, 0.6)], k.main)
    p.line(0.2, 0.28, 0.06, 0.56, 0.13, shade(k.main, 0.85))
    p.line(0.8, 0.28, 0.94, 0.56, 0.13, shade(k.main, 0.85))
    p.oval(0.06, 0.58, 0.07, 0.03, skin)
    p.oval(0.94, 0.58, 0.07, 0.03, skin)
    p.rect(0.42, 0.18, 0.58, 0.27, skin)
    p.oval(0.5, 0.11, 0.2, 0.1, skin)
    p.poly(
        [(0.28, 0.12), (0.3, 0.02), (0.5, -0.02), (0.7, 0.02), (0.72, 0.12), (0.6, 0.05), (0.4, 0.05)], hair
    )


@draws("dog", aspect=1.3, palette="coat")
def _dog(p: Pen, k: Look) -> None:
    dark = shade(k.main, 0.7)
    p.line(0.1, 0.42, 0.0, 0.12, 0.06, dark)
    for x in (0.14, 0.26, 0.58, 0.7):
        p.rect(x, 0.6, x + 0.09, 1.0, dark if x in (0.14, 0.58) else k.main)
    p.oval(0.43, 0.52, 0.36, 0.2, k.main)
    p.poly([(0.62, 0.45), (0.7, 0.18), (0.88, 0.3), (0.76, 0.6)], k.main)
    p.oval(0.79, 0.24, 0.15, 0.17, k.main)
    p.oval(0.92, 0.3, 0.1, 0.08, shade(k.main, 1.2))
    p.oval(0.99, 0.27, 0.03, 0.04, DARK)
    p.oval(0.68, 0.28, 0.06, 0.17, dark)
    p.oval(0.83, 0.19, 0.02, 0.03, DARK)
    if k.variant % 2:
        p.oval(0.38, 0.5, 0.14, 0.12, shade(k.main, 1.5))


@draws("cat", aspect=0.8, palette="fur")
def _cat(p: Pen, k: Look) -> None:
    dark = shade(k.main, 0.6)
    p.ring(0.82, 0.72, 0.18, 0.22, 0.07, k.main)
    p.oval(0.5, 0.72, 0.3, 0.29, k.main)
    p.poly([(0.2, 0.3), (0.2, 0.0), (0.45, 0.15)], k.main)
    p.poly([(0.8, 0.3), (0.8, 0.0), (0.55, 0.15)], k.main)
    p.poly([(0.25, 0.18), (0.24, 0.07), (0.35, 0.14)], (225, 150, 150))
    p.poly([(0.75, 0.18), (0.76, 0.07), (0.65, 0.14)], (225, 150, 150))
    p.oval(0.5, 0.31, 0.33, 0.22, k.main)
    for x in (0.36, 0.64):
        p.oval(x, 0.28, 0.07, 0.06, (170, 215, 90))
        p.oval(x, 0.28, 0.025, 0.055, DARK)
    p.poly([(0.45, 0.36), (0.55, 0.36), (0.5, 0.41)], (225, 120, 120))
    for y in (0.6, 0.7, 0.8):
        p.line(0.24, y, 0.4, y + 0.03, 0.035, dark)
        p.line(0.76, y, 0.6, y + 0.03, 0.035, dark)
    p.oval(0.38, 0.97, 0.1, 0.04, shade(k.main, 1.2))
    p.oval(0.62, 0.97, 0.1, 0.04, shade(k.main, 1.2))


@draws("sheep", aspect=1.25, palette="wool")
def _sheep(p: Pen, k: Look) -> None:
    for x in (0.22, 0.36, 0.58, 0.7):
        p.rect(x, 0.65, x + 0.07, 1.0, DARK)
    wool = [
        (0.2, 0.45),
        (0.35, 0.3),
        (0.52, 0.27),
        (0.68, 0.35),
        (0.25, 0.62),
        (0.45, 0.66),
        (0.65, 0.6),
        (0.45, 0.46),
    ]
    for i, (x, y) in enumerate(wool):
        p.oval(x, y, 0.17, 0.18, shade(k.main, 0.86 if i % 2 else 1.0))
    for x, y in ((0.3, 0.4), (0.5, 0.38), (0.38, 0.56), (0.58, 0.52), (0.22, 0.52)):
        p.ring(x, y, 0.05, 0.06, 0.02, shade(k.main, 0.72))
    p.oval(0.86, 0.42, 0.12, 0.18, (45, 40, 42))
    p.oval(0.76, 0.36, 0.09, 0.05, (45, 40, 42))
    p.oval(0.89, 0.37, 0.025, 0.03, WHITE)


@draws("bird", aspect=1.6, palette="bird")
def _bird(p: Pen, k: Look) -> None:
    dark = shade(k.main, 0.65)
    lift = (0.05, 0.2, 0.0, 0.12)[k.variant]
    p.poly([(0.5, 0.55), (0.3, lift), (0.05, lift + 0.1), (0.35, 0.62)], dark)
    p.poly([(0.0, 0.75), (0.2, 0.55), (0.24, 0.75)], dark)
    p.oval(0.47, 0.66, 0.3, 0.2, k.main)
    p.oval(0.78, 0.5, 0.13, 0.17, k.main)
    p.poly([(0.88, 0.45), (1.03, 0.55), (0.88, 0.6)], (245, 170, 30))
    p.poly([(0.4, 0.55), (0.62, 0.6), (0.75, lift), (0.5, lift + 0.05)], shade(k.main, 0.8))
    p.oval(0.81, 0.46, 0.025, 0.04, DARK)


@draws("fish", aspect=1.7, palette="fish")
def _fish(p: Pen, k: Look) -> None:
    p.poly([(0.22, 0.5), (0.0, 0.15), (0.06, 0.5), (0.0, 0.88)], shade(k.main, 0.8))
    p.poly([(0.4, 0.25), (0.55, 0.0), (0.72, 0.28)], shade(k.main, 0.8))
    p.oval(0.57, 0.52, 0.4, 0.34, k.main)
    for x in (0.35, 0.5, 0.65):
        p.line(x, 0.26 if x == 0.5 else 0.3, x - 0.04, 0.76, 0.055, WHITE)
    p.oval(0.84, 0.44, 0.06, 0.1, WHITE)
    p.oval(0.86, 0.44, 0.025, 0.05, DARK)
    p.poly([(0.5, 0.75), (0.6, 1.0), (0.68, 0.75)], shade(k.main, 0.8))


@draws("tree", aspect=0.75, palette="leaf")
def _tree(p: Pen, k: Look) -> None:
    p.poly([(0.42, 0.5), (0.58, 0.5), (0.63, 1.0), (0.37, 1.0)], (104, 70, 42))
    p.line(0.5, 0.7, 0.3, 0.5, 0.06, (104, 70, 42))
    blobs = [(0.28, 0.42), (0.7, 0.4), (0.5, 0.5), (0.36, 0.22), (0.64, 0.2), (0.5, 0.12), (0.5, 0.32)]
    for i, (x, y) in enumerate(blobs):
        p.oval(x, y, 0.26, 0.17, shade(k.main, 0.75 + 0.08 * i))
    for x, y in ((0.35, 0.25), (0.6, 0.15), (0.55, 0.38), (0.25, 0.4), (0.72, 0.36), (0.45, 0.1)):
        p.oval(x, y, 0.04, 0.025, (200, 40, 45) if k.variant == 0 else shade(k.main, 1.5))


@draws("flower", aspect=0.6, palette="petal")
def _flower(p: Pen, k: Look) -> None:
    p.line(0.5, 0.4, 0.5, 1.0, 0.08, (50, 130, 50))
    p.oval(0.28, 0.78, 0.2, 0.07, (70, 160, 65))
    p.oval(0.72, 0.7, 0.2, 0.07, (70, 160, 65))
    for dx, dy in ((0.0, -0.17), (0.26, -0.05), (0.17, 0.14), (-0.17, 0.14), (-0.26, -0.05)):
        p.oval(0.5 + dx, 0.26 + dy, 0.21, 0.125, shade(k.main, 1.0 if dy < 0 else 0.85))
    p.oval(0.5, 0.26, 0.15, 0.09, (250, 205, 50))
    p.oval(0.5, 0.26, 0.07, 0.045, (190, 120, 30))


@draws("cactus", aspect=0.75, palette="cactus")
def _cactus(p: Pen, k: Look) -> None:
    for x, top, low in ((0.14, 0.3, 0.62), (0.86, 0.2, 0.5)):
        p.rect(x - 0.09, top, x + 0.09, low, k.main)
        p.oval(x, top, 0.09, 0.06, k.main)
        p.rect(min(x, 0.5) - 0.05, low - 0.06, max(x, 0.5) + 0.05, low + 0.06, shade(k.main, 0.85))
    p.rect(0.35, 0.12, 0.65, 1.0, k.main)
    p.oval(0.5, 0.12, 0.15, 0.1, k.main)
    for x in (0.42, 0.5, 0.58, 0.14, 0.86):
        p.line(
            x, 0.12 if 0.3 < x < 0.7 else 0.32, x, 0.96 if 0.3 < x < 0.7 else 0.5, 0.022, shade(k.main, 0.6)
        )
    for x, y in ((0.38, 0.3), (0.62, 0.45), (0.38, 0.6), (0.62, 0.75), (0.46, 0.2), (0.54, 0.55)):
        p.line(x - 0.05, y, x + 0.05, y - 0.03, 0.02, WHITE)
    if k.variant < 2:
        p.oval(0.5, 0.04, 0.1, 0.05, (235, 80, 150))


@draws("mushroom", aspect=0.95, palette="cap")
def _mushroom(p: Pen, k: Look) -> None:
    p.poly([(0.36, 0.45), (0.64, 0.45), (0.7, 1.0), (0.3, 1.0)], (240, 228, 205))
    p.line(0.42, 0.6, 0.4, 0.95, 0.03, (205, 190, 165))
    p.poly(
        [(0.0, 0.5), (0.05, 0.28), (0.22, 0.08), (0.5, 0.0), (0.78, 0.08), (0.95, 0.28), (1.0, 0.5)], k.main
    )
    p.oval(0.5, 0.5, 0.5, 0.07, shade(k.main, 0.7))
    for x, y, r in (
        (0.25, 0.28, 0.08),
        (0.52, 0.15, 0.08),
        (0.75, 0.3, 0.09),
        (0.5, 0.38, 0.06),
        (0.12, 0.42, 0.05),
    ):
        p.oval(x, y, r, r * 0.85, WHITE)
