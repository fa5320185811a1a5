"""How furniture, tools and toys are drawn."""

from __future__ import annotations

from data_scripts.scenes.look import Look, draws
from data_scripts.scenes.pen import Pen, shade

DARK = (28, 28, 32)
WHITE = (245, 245, 240)
STEEL = (125, 128, 134)


@draws("chair", aspect=0.7, palette="wood")
def _chair(p: Pen, k: Look) -> None:
    dark = shade(k.main, 0.65)
    p.rect(0.06, 0.0, 0.18, 1.0, dark)
    p.rect(0.5, 0.0, 0.6, 0.55, dark)
    for y in (0.04, 0.17, 0.3):
        p.rect(0.1, y, 0.56, y + 0.08, k.main)
    p.poly([(0.06, 0.52), (0.6, 0.48), (0.96, 0.56), (0.9, 0.66), (0.06, 0.66)], k.main)
    p.rect(0.84, 0.62, 0.95, 1.0, dark)
    p.rect(0.5, 0.64, 0.59, 0.9, shade(k.main, 0.5))
    p.line(0.15, 0.82, 0.88, 0.82, 0.045, dark)


@draws("lamp", aspect=0.5, palette="bright")
def _lamp(p: Pen, k: Look) -> None:
    p.rect(0.45, 0.3, 0.55, 0.95, STEEL)
    p.oval(0.5, 0.97, 0.32, 0.035, STEEL)
    p.poly([(0.28, 0.0), (0.72, 0.0), (1.0, 0.34), (0.0, 0.34)], k.main)
    p.poly([(0.42, 0.0), (0.58, 0.0), (0.66, 0.34), (0.34, 0.34)], shade(k.main, 1.45))
    p.rect(0.0, 0.31, 1.0, 0.36, shade(k.main, 0.7))
    p.line(0.75, 0.36, 0.75, 0.46, 0.03, DARK)


@draws("clock", aspect=1.0, palette="bright")
def _clock(p: Pen, k: Look) -> None:
    p.oval(0.5, 0.5, 0.5, 0.5, k.main)
    p.oval(0.5, 0.5, 0.4, 0.4, WHITE)
    for dx, dy in (
        (0.33, 0),
        (-0.33, 0),
        (0, 0.33),
        (0, -0.33),
        (0.23, 0.23),
        (-0.23, 0.23),
        (0.23, -0.23),
        (-0.23, -0.23),
    ):
        p.oval(0.5 + dx, 0.5 + dy, 0.035, 0.035, DARK)
    hx, hy = ((0.2, 0.05), (-0.15, 0.15), (-0.18, -0.1), (0.12, -0.18))[k.variant]
    p.line(0.5, 0.5, 0.5, 0.2, 0.05, DARK)
    p.line(0.5, 0.5, 0.5 + hx, 0.5 + hy, 0.07, DARK)
    p.oval(0.5, 0.5, 0.05, 0.05, (200, 40, 40))


@draws("television", aspect=1.35, palette="metal")
def _television(p: Pen, k: Look) -> None:
    p.rect(0.0, 0.0, 1.0, 0.78, DARK)
    p.rect(0.05, 0.05, 0.95, 0.72, (70, 130, 190))
    p.poly([(0.05, 0.72), (0.05, 0.5), (0.35, 0.4), (0.6, 0.55), (0.95, 0.45), (0.95, 0.72)], k.second)
    p.poly([(0.1, 0.08), (0.3, 0.08), (0.16, 0.4), (0.08, 0.4)], (150, 195, 230))
    p.oval(0.92, 0.75, 0.012, 0.015, (220, 40, 40))
    p.rect(0.44, 0.78, 0.56, 0.92, DARK)
    p.rect(0.24, 0.92, 0.76, 1.0, (55, 55, 60))


@draws("bottle", aspect=0.36, palette="glass")
def _bottle(p: Pen, k: Look) -> None:
    p.rect(0.36, 0.06, 0.64, 0.3, k.main)
    p.rect(0.3, 0.0, 0.7, 0.08, (200, 40, 45))
    p.poly([(0.36, 0.26), (0.64, 0.26), (0.96, 0.42), (0.96, 1.0), (0.04, 1.0), (0.04, 0.42)], k.main)
    p.rect(0.04, 0.54, 0.96, 0.8, (240, 232, 205))
    p.rect(0.2, 0.62, 0.8, 0.71, k.second)
    p.rect(0.14, 0.44, 0.26, 0.54, shade(k.main, 1.7))


@draws("cup", aspect=1.15, palette="paint")
def _cup(p: Pen, k: Look) -> None:
    p.ring(0.8, 0.52, 0.2, 0.26, 0.085, shade(k.main, 0.85))
    p.poly([(0.02, 0.1), (0.78, 0.1), (0.72, 0.92), (0.6, 1.0), (0.2, 1.0), (0.08, 0.92)], k.main)
    p.rect(0.06, 0.42, 0.75, 0.56, shade(k.second, 1.3))
    p.oval(0.4, 0.11, 0.39, 0.1, shade(k.main, 1.3))
    p.oval(0.4, 0.12, 0.33, 0.07, (95, 55, 30))


@draws("umbrella", aspect=1.05, palette="bright")
def _umbrella(p: Pen, k: Look) -> None:
    p.line(0.5, 0.05, 0.5, 0.98, 0.045, (110, 75, 45))
    top = [(0.0, 0.46), (0.06, 0.27), (0.22, 0.11), (0.5, 0.03), (0.78, 0.11), (0.94, 0.27), (1.0, 0.46)]
    p.poly(top, k.main)
    p.poly([(0.5, 0.03), (0.33, 0.46), (0.14, 0.46), (0.22, 0.11)], shade(k.second, 1.35))
    p.poly([(0.5, 0.03), (0.67, 0.46), (0.86, 0.46), (0.78, 0.11)], shade(k.second, 1.35))
    for x in (0.07, 0.24, 0.41, 0.59, 0.76, 0.93):
        p.oval(x, 0.46, 0.085, 0.035, shade(k.main, 0.65))


@draws("ball", aspect=1.0, palette="bright")
def _ball(p: Pen, k: Look) -> None:
    p.oval(0.5, 0.5, 0.5, 0.5, WHITE)
    p.poly([(0.5, 0.5), (0.0, 0.5), (0.07, 0.25), (0.25, 0.07)], k.main)
    p.poly([(0.5, 0.5), (0.75, 0.07), (0.93, 0.25), (1.0, 0.5)], shade(k.second, 1.2))
    p.poly([(0.5, 0.5), (0.93, 0.75), (0.75, 0.93), (0.5, 1.0)], k.main)
    p.poly([(0.5, 0.5), (0.25, 0.93), (0.07, 0.75)], (250, 210, 50))
    p.oval(0.5, 0.5, 0.09, 0.09, WHITE)
    p.ring(0.5, 0.5, 0.5, 0.5, 0.035, (150, 150, 150))


@draws("tent", aspect=1.5, palette="bright")
def _tent(p: Pen, k: Look) -> None:
    p.poly([(0.36, 0.0), (0.66, 0.0), (1.0, 1.0), (0.72, 1.0)], shade(k.main, 0.7))
    p.poly([(0.36, 0.0), (0.0, 1.0), (0.72, 1.0)], k.main)
    p.poly([(0.36, 0.25), (0.22, 1.0), (0.5, 1.0)], (45, 38, 40))
    p.poly([(0.36, 0.25), (0.5, 1.0), (0.6, 1.0)], shade(k.main, 1.35))
    p.line(0.36, 0.0, 0.66, 0.0, 0.03, DARK)
    p.line(0.36, 0.02, 0.36, 0.25, 0.02, DARK)


@draws("robot", aspect=0.7, palette="metal")
def _robot(p: Pen, k: Look) -> None:
    dark = shade(k.main, 0.6)
    p.line(0.5, 0.0, 0.5, 0.12, 0.04, dark)
    p.oval(0.5, 0.02, 0.06, 0.03, k.second)
    p.rect(0.24, 0.09, 0.76, 0.36, k.main)
    for x in (0.38, 0.62):
        p.oval(x, 0.2, 0.1, 0.055, (20, 40, 60))
        p.oval(x, 0.2, 0.055, 0.032, (60, 230, 240))
    p.rect(0.36, 0.29, 0.64, 0.32, (20, 40, 60))
    p.rect(0.14, 0.39, 0.86, 0.76, k.main)
    p.rect(0.28, 0.45, 0.72, 0.66, k.second)
    for i, x in enumerate((0.37, 0.5, 0.63)):
        p.oval(x, 0.52, 0.045, 0.03, ((240, 70, 60), (250, 210, 60), (90, 220, 100))[(i + k.variant) % 3])
    p.rect(0.0, 0.4, 0.11, 0.7, dark)
    p.rect(0.89, 0.4, 1.0, 0.7, dark)
    p.rect(0.24, 0.78, 0.42, 1.0, dark)
    p.rect(0.58, 0.78, 0.76, 1.0, dark)


@draws("windmill", aspect=0.8, palette="white")
def _windmill(p: Pen, k: Look) -> None:
    p.poly([(0.46, 0.32), (0.54, 0.32), (0.6, 1.0), (0.4, 1.0)], k.main)
    turn = k.variant * 0.1
    for dx, dy in ((0.0 + turn, -0.3), (0.42 - turn, 0.2 - turn / 2), (-0.42 + turn / 2, 0.2 + turn / 2)):
        p.line(0.5, 0.32, 0.5 + dx, 0.32 + dy, 0.075, shade(k.main, 0.9))
        p.line(0.5 + dx * 0.8, 0.32 + dy * 0.8, 0.5 + dx, 0.32 + dy, 0.08, (215, 50, 50))
    p.oval(0.5, 0.32, 0.07, 0.055, (90, 95, 100))
