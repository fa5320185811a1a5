"""How vehicles and flying things are drawn."""

from __future__ import annotations

from data_scripts.scenes.look import Look, draws
from data_scripts.scenes.pen import Pen, shade

TYRE = (28, 28, 30)
GLASS = (150, 200, 225)
LIGHT = (255, 240, 150)
STEEL = (120, 125, 130)


def _wheel(p: Pen, x: float, y: float, rx: float, ry: float) -> None:
    p.oval(x, y, rx, ry, TYRE)
    p.oval(x, y, rx * 0.5, ry * 0.5, (190, 190, 195))


@draws("car", aspect=1.9)
def _car(p: Pen, k: Look) -> None:
    p.poly([(0.16, 0.45), (0.3, 0.1), (0.7, 0.1), (0.86, 0.45)], shade(k.main, 0.85))
    p.poly([(0.23, 0.43), (0.33, 0.17), (0.48, 0.17), (0.48, 0.43)], GLASS)
    p.poly([(0.52, 0.43), (0.52, 0.17), (0.67, 0.17), (0.78, 0.43)], GLASS)
    p.poly([(0.0, 0.78), (0.02, 0.48), (0.14, 0.42), (0.88, 0.42), (0.99, 0.52), (1.0, 0.78)], k.main)
    p.rect(0.0, 0.7, 1.0, 0.8, shade(k.main, 0.65))
    p.rect(0.94, 0.52, 1.0, 0.62, LIGHT)
    p.rect(0.0, 0.52, 0.05, 0.62, (210, 30, 30))
    p.rect(0.5, 0.5, 0.58, 0.53, shade(k.main, 0.5))
    _wheel(p, 0.22, 0.8, 0.11, 0.2)
    _wheel(p, 0.78, 0.8, 0.11, 0.2)


@draws("bus", aspect=2.1)
def _bus(p: Pen, k: Look) -> None:
    p.rect(0.0, 0.04, 1.0, 0.86, k.main)
    p.rect(0.0, 0.56, 1.0, 0.64, (245, 245, 240))
    p.rect(0.0, 0.8, 1.0, 0.88, shade(k.main, 0.6))
    for i in range(5):
        p.rect(0.05 + 0.16 * i, 0.14, 0.18 + 0.16 * i, 0.48, GLASS)
    p.rect(0.86, 0.14, 0.97, 0.8, shade(GLASS, 0.8))
    p.line(0.915, 0.14, 0.915, 0.8, 0.015, TYRE)
    _wheel(p, 0.2, 0.87, 0.075, 0.14)
    _wheel(p, 0.72, 0.87, 0.075, 0.14)


@draws("truck", aspect=1.9)
def _truck(p: Pen, k: Look) -> None:
    p.rect(0.0, 0.0, 0.64, 0.76, shade(k.second, 1.3))
    for i in range(4):
        p.line(0.08 + 0.16 * i, 0.03, 0.08 + 0.16 * i, 0.73, 0.025, shade(k.second, 1.0))
    p.poly([(0.67, 0.82), (0.67, 0.2), (0.86, 0.2), (0.98, 0.5), (1.0, 0.82)], k.main)
    p.poly([(0.74, 0.48), (0.74, 0.28), (0.84, 0.28), (0.92, 0.48)], GLASS)
    p.rect(0.0, 0.76, 1.0, 0.84, TYRE)
    p.rect(0.95, 0.6, 1.0, 0.68, LIGHT)
    for x in (0.14, 0.34, 0.83):
        _wheel(p, x, 0.84, 0.085, 0.16)


@draws("bicycle", aspect=1.55, palette="bright")
def _bicycle(p: Pen, k: Look) -> None:
    for x in (0.21, 0.79):
        p.ring(x, 0.68, 0.21, 0.32, 0.05, TYRE)
        for dx, dy in ((0.17, 0.0), (0.0, 0.27), (0.12, 0.19), (0.12, -0.19)):
            p.line(x - dx, 0.68 - dy, x + dx, 0.68 + dy, 0.014, STEEL)
    for x0, y0, x1, y1 in (
        (0.21, 0.68, 0.38, 0.3),
        (0.38, 0.3, 0.68, 0.28),
        (0.68, 0.28, 0.47, 0.7),
        (0.47, 0.7, 0.38, 0.3),
        (0.21, 0.68, 0.47, 0.7),
        (0.66, 0.15, 0.79, 0.68),
    ):
        p.line(x0, y0, x1, y1, 0.05, k.main)
    p.rect(0.28, 0.17, 0.46, 0.24, TYRE)
    p.line(0.38, 0.3, 0.37, 0.2, 0.04, STEEL)
    p.line(0.6, 0.12, 0.78, 0.1, 0.045, TYRE)


@draws("boat", aspect=0.95)
def _boat(p: Pen, k: Look) -> None:
    p.line(0.48, 0.02, 0.48, 0.76, 0.03, (90, 62, 40))
    p.poly([(0.51, 0.04), (0.98, 0.66), (0.51, 0.66)], (248, 246, 238))
    p.poly([(0.45, 0.12), (0.45, 0.66), (0.1, 0.66)], shade((248, 246, 238), 0.85))
    p.line(0.55, 0.4, 0.75, 0.4, 0.05, k.second)
    p.poly([(0.0, 0.72), (1.0, 0.72), (0.84, 1.0), (0.16, 1.0)], k.main)
    p.poly([(0.0, 0.72), (1.0, 0.72), (0.97, 0.78), (0.03, 0.78)], shade(k.main, 1.4))


@draws("airplane", aspect=2.1, palette="white")
def _airplane(p: Pen, k: Look) -> None:
    p.poly([(0.02, 0.12), (0.12, 0.12), (0.26, 0.5), (0.1, 0.55)], k.second)
    p.poly([(0.45, 0.48), (0.32, 0.08), (0.42, 0.08), (0.64, 0.48)], shade(k.main, 0.75))
    p.poly([(0.04, 0.48), (0.84, 0.42), (0.95, 0.5), (1.0, 0.58), (0.92, 0.66), (0.2, 0.68)], k.main)
    p.line(0.12, 0.61, 0.97, 0.59, 0.04, k.second)
    for i in range(7):
        p.oval(0.26 + 0.08 * i, 0.51, 0.018, 0.035, (60, 90, 130))
    p.poly([(0.42, 0.6), (0.2, 1.0), (0.32, 1.0), (0.64, 0.62)], shade(k.main, 0.8))
    p.poly([(0.9, 0.47), (0.96, 0.52), (0.88, 0.53)], (60, 90, 130))


@draws("balloon", aspect=0.72, palette="bright")
def _balloon(p: Pen, k: Look) -> None:
    p.oval(0.5, 0.36, 0.5, 0.36, k.main)
    p.poly([(0.06, 0.5), (0.94, 0.5), (0.62, 0.78), (0.38, 0.78)], k.main)
    for x, r in ((0.5, 0.11), (0.22, 0.07), (0.78, 0.07)):
        p.oval(x, 0.38, r, 0.34 if r > 0.1 else 0.27, shade(k.second, 1.3))
    p.line(0.4, 0.78, 0.42, 0.88, 0.03, (80, 60, 40))
    p.line(0.6, 0.78, 0.58, 0.88, 0.03, (80, 60, 40))
    p.rect(0.36, 0.86, 0.64, 1.0, (150, 100, 55))
    p.line(0.36, 0.93, 0.64, 0.93, 0.025, (100, 65, 35))


@draws("kite", aspect=0.7, palette="bright")
def _kite(p: Pen, k: Look) -> None:
    p.poly([(0.5, 0.0), (1.0, 0.3), (0.5, 0.7)], k.main)
    p.poly([(0.5, 0.0), (0.0, 0.3), (0.5, 0.7)], shade(k.second, 1.3))
    p.line(0.5, 0.0, 0.5, 0.7, 0.035, TYRE)
    p.line(0.0, 0.3, 1.0, 0.3, 0.035, TYRE)
    p.line(0.5, 0.7, 0.62, 0.84, 0.03, TYRE)
    p.line(0.62, 0.84, 0.45, 1.0, 0.03, TYRE)
    for x, y in ((0.58, 0.8), (0.52, 0.94)):
        p.poly(
            [(x - 0.14, y - 0.04), (x + 0.14, y + 0.04), (x + 0.14, y - 0.04), (x - 0.14, y + 0.04)], k.main
        )


@draws("drone", aspect=1.9, palette="metal")
def _drone(p: Pen, k: Look) -> None:
    dark = shade(k.main, 0.45)
    for x in (0.08, 0.3, 0.7, 0.92):
        p.line(x, 0.3, 0.5, 0.55, 0.06, dark)
        p.oval(x, 0.2, 0.17, 0.07, (205, 210, 215))
        p.rect(x - 0.025, 0.18, x + 0.025, 0.36, dark)
    p.oval(0.5, 0.56, 0.2, 0.2, k.main)
    p.oval(0.5, 0.68, 0.09, 0.14, dark)
    p.oval(0.5, 0.7, 0.045, 0.08, (220, 60, 60))
    p.line(0.36, 0.66, 0.26, 1.0, 0.04, dark)
    p.line(0.64, 0.66, 0.74, 1.0, 0.04, dark)


@draws("rocket", aspect=0.5, palette="white")
def _rocket(p: Pen, k: Look) -> None:
    p.poly([(0.24, 0.62), (0.0, 0.95), (0.28, 0.86)], k.second)
    p.poly([(0.76, 0.62), (1.0, 0.95), (0.72, 0.86)], k.second)
    p.poly([(0.36, 0.88), (0.5, 1.02), (0.64, 0.88)], (255, 160, 40))
    p.poly([(0.24, 0.28), (0.76, 0.28), (0.74, 0.88), (0.26, 0.88)], k.main)
    p.poly([(0.24, 0.28), (0.38, 0.1), (0.5, 0.0), (0.62, 0.1), (0.76, 0.28)], k.second)
    p.oval(0.5, 0.42, 0.15, 0.07, STEEL)
    p.oval(0.5, 0.42, 0.1, 0.045, (90, 170, 220))
    p.rect(0.25, 0.6, 0.75, 0.65, k.second)


@draws("scooter", aspect=0.85, palette="bright")
def _scooter(p: Pen, k: Look) -> None:
    p.line(0.78, 0.1, 0.86, 0.86, 0.07, STEEL)
    p.line(0.6, 0.1, 0.96, 0.08, 0.07, TYRE)
    p.poly([(0.1, 0.76), (0.72, 0.76), (0.8, 0.6), (0.88, 0.66), (0.8, 0.85), (0.1, 0.85)], k.main)
    _wheel(p, 0.14, 0.89, 0.12, 0.11)
    _wheel(p, 0.87, 0.89, 0.12, 0.11)
