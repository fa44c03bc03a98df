#!/usr/bin/env python3
"""Figures as text and JSON: a table for each row, one summary of ratios, and the gates.

    benches/versus/report.py figures.json [more.json ...] [--plot cpu-over-clients.svg]

prints what `run` printed, from its `--json` files. Ratios are medians of the ratios round by round: what two proxies have met
at nearly the same time. Measures nothing.
"""

import argparse
import dataclasses
import json
import os
from statistics import median

import plot
from peers import OURS, PEERS
from work import GATES, WORK

COLUMNS = [peer.name for peer in PEERS]


@dataclasses.dataclass
class Result:
    command: str
    machine: dict
    versions: dict
    date: str
    rows: dict = dataclasses.field(default_factory=dict)

    def head(self):
        about = self.machine
        kind = "virtual machine" if about["virtual"] else "machine"
        lines = [f"{self.date}, {kind} with {about['cores']} cores ({about['cpu']}), {about['memory_mib'] // 1024} GiB, "
                 f"{about['system']}, Linux {about['kernel']}"]
        return "\n".join([*lines, ", ".join(self.versions.values())])

    def save(self, path):
        """Replaces the rows that were measured now, keeps the others."""
        rows = Result.load(path).rows if os.path.exists(path) else {}
        with open(path, "w") as file:
            json.dump({**dataclasses.asdict(self), "rows": {**rows, **self.rows}}, file, indent=1)
            file.write("\n")

    @staticmethod
    def load(path):
        with open(path) as file:
            return Result(**json.load(file))


def errors(rounds):
    """By kind, over all rounds."""
    total = {}
    for one in rounds:
        for kind, count in one["errors"].items():
            total[kind] = total.get(kind, 0) + count
    return total


def our_errors(rows):
    return any(errors(rounds) for row in rows.values() for label, rounds in row["figures"].items() if label.startswith(OURS))


def ratio(row, ours, theirs, figure="cpu"):
    """Median of round-by-round ratios, or None if one of the two was not measured."""
    figures = row["figures"]
    if ours not in figures or theirs not in figures:
        return None
    pairs = zip(figures[ours], figures[theirs])
    return median(our[figure] / their[figure] for our, their in pairs if their[figure])


def row(name, row):
    """Prints one row's table: medians, and min-max of the CPU time."""
    width = max([len(label) for label in row["figures"]] + [11])
    print(f"  {'':<{width}}  {'CPU us/request':>14}  {'min-max':>13}  {'ours/theirs':>11}  {'requests/s':>10}  {'p50 ms':>8}"
          f"  {'p99 ms':>8}  {'p99.9 ms':>8}  {'busy':>5}  {'upstream':>8}  {'PSS MiB':>7}")
    for label, rounds in row["figures"].items():
        def middle(figure):
            return median(one[figure] for one in rounds)
        cpu = [one["cpu"] for one in rounds]
        spread = f"{min(cpu):.1f}-{max(cpu):.1f}"
        relative = ratio(row, OURS, label)
        relative = "" if relative is None or label == OURS else f"{relative:.2f}"
        print(f"  {label:<{width}}  {median(cpu):>14.2f}  {spread:>13}  {relative:>11}  {middle('rate'):>10.0f}"
              f"  {middle('p50') / 1000:>8.2f}  {middle('p99') / 1000:>8.2f}  {middle('p999') / 1000:>8.2f}  {middle('busy'):>5.0%}"
              f"  {middle('upstream'):>8.0f}  {middle('pss') / 2**20:>7.1f}")
    for label, rounds in row["figures"].items():
        for kind, count in errors(rounds).items():
            print(f"  !! {label}: {count} errors ({kind}) beside {sum(one['requests'] for one in rounds)} good answers")


def summary(rows):
    """One line for each row: our CPU time, and ours over theirs for each peer; then the gates."""
    ordered = [work.name for work in WORK if work.name in rows]
    peers = COLUMNS[1:]
    lines = ["", "CPU time per request: ours in us, then ours / theirs (below 1.00 we need less; ! = with errors, see above)", "",
             f"{'':<18}{'trunkline':>11}" + "".join(f"{peer:>13}" for peer in peers)]
    for name in ordered:
        figures = rows[name]["figures"]
        mark = {label: "!" if errors(rounds) else "" for label, rounds in figures.items()}
        ours = f"{median(one['cpu'] for one in figures[OURS]):.1f}{mark[OURS]}" if OURS in figures else "-"
        cells = []
        for peer in peers:
            value = ratio(rows[name], OURS, peer)
            if value is not None:
                cells.append(f"{value:.2f}{mark[peer]}")
            elif peer in figures:
                # Nothing of ours to compare with: theirs, in us.
                cells.append(f"({median(one['cpu'] for one in figures[peer]):.1f}){mark[peer]}")
            else:
                cells.append("-")
        lines.append(f"{name:<18}{ours:>11}" + "".join(f"{cell:>13}" for cell in cells))
    left_out = [f"  {name}: {label}: {reason.splitlines()[0]}" for name in ordered
                for label, reason in rows[name]["skipped"].items()]
    lines += ["", "left out:", *left_out] if left_out else []
    failed = [f"  {name}: {label}: {errors(rounds)}" for name in ordered
              for label, rounds in rows[name]["figures"].items() if errors(rounds)]
    lines += ["", "ERRORS:", *failed] if failed else []
    return "\n".join(lines + gates(rows))


def gates(rows):
    """What the project demands of itself, for the rows that were measured."""
    lines = []
    for gate in GATES:
        found = held_against(rows[gate.row], gate) if gate.row in rows else None
        if found is None:
            continue
        value, of = found
        verdict = "goal" if value <= gate.goal else "pass" if value <= gate.bound else "ABOVE"
        lines.append(f"{gate.row:<18}{of:<44}{value:>7.2f}{gate.bound:>7.2f}{gate.goal:>7.2f}  {verdict}")
    return ["", f"{'gates':<62}{'found':>7}{'gate':>7}{'goal':>7}", *lines] if lines else []


def held_against(row, gate):
    """The figure and what it is of, or None if it was not measured."""
    if gate.figure == "silent_kib":
        value = row["silent_kib"].get(OURS)
        return None if value is None else (value, "KiB of process memory for a silent client")
    theirs = gate.theirs
    if theirs.startswith("best"):
        rivals = [peer.name for peer in PEERS if peer.name != OURS and theirs in ("best", f"best-{peer.speaks}")]
        middle = {label: median(one[gate.figure] for one in rounds) for label, rounds in row["figures"].items()
                  if label in rivals and not errors(rounds)}
        if OURS not in row["figures"] or not middle:
            return None
        best = min(middle, key=middle.get)
        of = "the best peer's" if theirs == "best" else "the best that multiplexes"
        return median(one[gate.figure] for one in row["figures"][OURS]) / middle[best], f"{gate.figure} / {of} ({best})"
    value = ratio(row, OURS, theirs, gate.figure)
    return None if value is None else (value, f"{gate.figure} / {theirs}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", help="of `run --json`; of a row in two of them the later counts")
    parser.add_argument("--plot", metavar="FILE", help="an SVG of CPU per request over clients")
    options = parser.parse_args()
    results = [Result.load(path) for path in options.files]
    rows = {name: figures for result in results for name, figures in result.rows.items()}
    print(results[-1].head())
    for work in WORK:
        if work.name in rows:
            print(f"\n{work.name}: {rows[work.name]['what']}")
            row(work.name, rows[work.name])
    print(summary(rows))
    if options.plot:
        plot.write(options.plot, rows)


if __name__ == "__main__":
    main()
