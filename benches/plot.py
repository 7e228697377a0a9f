#!/usr/bin/env python3
"""Plots the curves of `run.sh crowd`: turns a second from 1 to 128 processes, ours and the peer's.

    plot.py CURVES >curves.svg

CURVES has a line for each point, as crowd.c writes it: processes, turns a second of ours and of the
peer, processor milliseconds a turn of both, the names of both; tabs between.
"""

import sys
from collections import defaultdict
from html import escape
from math import log2

WIDTH, HEIGHT, LEFT, BOTTOM = 360, 220, 48, 36
COLOURS = "#2563eb", "#9ca3af"


def panel(names, points, x0):
    """One pair of curves as SVG, its left edge at `x0`."""
    points = sorted(points)
    most = max(max(ours, peer) for _, ours, peer in points)
    last = max(log2(points[-1][0]), 1)

    def x(count):
        return x0 + LEFT + log2(count) / last * (WIDTH - LEFT - 20)

    def y(rate):
        return 30 + (1 - rate / most) * (HEIGHT - 30 - BOTTOM)

    out = []
    for side, colour in enumerate(COLOURS):
        line = " ".join(f"{x(p[0]):.1f},{y(p[1 + side]):.1f}" for p in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        title = f'<tspan fill="{colour}">{escape(names[side])}</tspan>'
        out.append(f'<text x="{x0 + LEFT + side * 150}" y="18">{title}</text>')
    for count, *_ in points:
        out.append(f'<text x="{x(count):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{count}</text>')
    for rate in (0, most / 2, most):
        out.append(f'<text x="{x0 + LEFT - 6}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate:.0f}</text>')
        ends = f'x1="{x0 + LEFT}" x2="{x0 + WIDTH - 20}" y1="{y(rate):.1f}" y2="{y(rate):.1f}"'
        out.append(f'<line {ends} stroke="#e5e7eb"/>')
    out.append(f'<text x="{x0 + WIDTH / 2}" y="{HEIGHT - 3}" text-anchor="middle">processes</text>')
    return out


def main():
    curves = defaultdict(list)
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            count, ours, peer, _, _, *names = line.rstrip("\n").split("\t")
            curves[tuple(names)].append((int(count), float(ours), float(peer)))
    size = f'width="{WIDTH * len(curves)}" height="{HEIGHT}"'
    print(f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">')
    print('<rect width="100%" height="100%" fill="white"/>')
    for place, (names, points) in enumerate(curves.items()):
        print("\n".join(panel(names, points, place * WIDTH)))
    print("</svg>")


if __name__ == "__main__":
    main()
