"""CPU time per request over the number of clients, all peers, as an SVG that needs no other file.

Both axes are logarithmic: the peers lie a factor of five apart, the clients of two thousand. Colours are told apart by those
who see few of them (Okabe and Ito), and each line has its name at its end.
"""

import math
from statistics import median
from xml.sax.saxutils import escape

from peers import OURS, PEERS
from work import WORK

COLOURS = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#666666"]
WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 120, 56, 56
LABEL_GAP = 15  # pixels between two names at the right


def lines_of(rows):
    """By peer, the points (clients, CPU us) of the rows that differ in nothing but their clients."""
    plain = [work for work in WORK if work.name.startswith("get-65-c") and work.name in rows]
    lines = {}
    for peer in PEERS:
        points = [(work.clients, median(one["cpu"] for one in rows[work.name]["figures"][peer.name]))
                  for work in plain if peer.name in rows[work.name]["figures"]]
        if points:
            lines[peer.name] = points
    return lines


def write(path, rows):
    """Says so, and writes nothing, if fewer than two numbers of clients were measured."""
    lines = lines_of(rows)
    clients = sorted({x for points in lines.values() for x, _ in points})
    if len(clients) < 2:
        print(f"no plot: {path} needs at least two of the rows get-65-c*")
        return
    with open(path, "w") as file:
        file.write(draw(lines, clients))


def draw(lines, clients):
    values = [y for points in lines.values() for _, y in points]
    steps = [n * 10**power for power in range(0, 4) for n in (1, 2, 5)]
    low = max([step for step in steps if step <= min(values)] or [steps[0]])
    high = min([step for step in steps if step >= max(values)] or [steps[-1]])

    def x(number):
        share = math.log(number / clients[0]) / math.log(clients[-1] / clients[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value):
        share = math.log(value / low) / math.log(high / low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#222">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           text(LEFT, 24, "CPU time of the proxy per request, GET 65 bytes (lower is better)", "start", size=16, weight="bold"),
           text(LEFT, 43, "microseconds, one worker on one core, medians; both axes logarithmic", "start", colour="#555")]
    marks = [step for step in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000) if low <= step <= high]
    for mark in marks:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="#ddd"/>')
        out.append(text(LEFT - 8, y(mark) + 4, f"{mark} us", "end"))
    for number in clients:
        out.append(f'<line x1="{x(number):.1f}" x2="{x(number):.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 5}" '
                   'stroke="#222"/>')
        out.append(text(x(number), HEIGHT - BOTTOM + 20, str(number), "middle"))
    out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="#222"/>')
    out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "clients (HTTP/1.1 connections, each with one request at a time)",
                    "middle"))
    places = spread({name: y(points[-1][1]) for name, points in lines.items()})
    colours = dict(zip((peer.name for peer in PEERS), COLOURS))
    # Ours last, above the others.
    for name, points in sorted(lines.items(), key=lambda line: line[0] == OURS):
        colour, thick = colours[name], 3.5 if name == OURS else 1.8
        path = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick}" stroke-linejoin="round"/>')
        out += [f'<circle cx="{x(number):.1f}" cy="{y(value):.1f}" r="{thick + 1:.1f}" fill="{colour}"/>'
                for number, value in points]
        end = points[-1]
        out.append(f'<line x1="{x(end[0]):.1f}" y1="{y(end[1]):.1f}" x2="{WIDTH - RIGHT + 18}" y2="{places[name]:.1f}" '
                   f'stroke="{colour}" stroke-width="0.8"/>')
        out.append(text(WIDTH - RIGHT + 22, places[name] + 4, name, "start", colour=colour,
                        weight="bold" if name == OURS else "normal"))
    return "\n".join(out + ["</svg>", ""])


def spread(wanted):
    """Moves names down until none covers another, then all up again if the last would fall below the axis."""
    placed, last = {}, -LABEL_GAP
    for name in sorted(wanted, key=wanted.get):
        last = max(wanted[name], last + LABEL_GAP)
        placed[name] = last
    over = max(0, last - (HEIGHT - BOTTOM))
    return {name: place - over for name, place in placed.items()}


def text(x, y, words, anchor, size=13, weight="normal", colour="#222"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
            f'fill="{colour}">{escape(words)}</text>')
