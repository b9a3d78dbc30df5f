#!/usr/bin/env python3
"""What every benchmark shares: interleaved rounds, a table for people, a file for programs.

A benchmark is a small script:

    import report

    bench = report.Report("mpmc")
    got = report.interleave({
        "ours": lambda: report.run_program([bench.program("bench_mpmc")], cpus=[0, 1]),
        "peer": lambda: report.run_program([bench.program("bench_peer_queue")], cpus=[0, 1]),
    }, rounds=5)
    bench.compare("1 producer, 1 consumer", "ns/item", "less", got, "spsc", bar=1.0,
                  peer_name="peer queue")
    raise SystemExit(bench.finish())

finish() prints the table and writes build/bench/NAME.json, an array of

    {"case", "unit", "better", "ours", "peer", "peer_name", "ratio", "spread", "bar", "pass"}

ours and peer are medians of rounds; ratio is above 1 where ours is better; spread is the larger of
both sides' (largest - smallest) / median; bar is a ratio, or a figure in the case's unit for one
without a peer to compare with (see Report.add). A peer that is missing has null for peer, ratio and,
where its bar is a ratio, pass: it is shown, never skipped.

Run by itself, it sums up all of build/bench/*.json in build/bench/report.md.
"""

import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEYS = ("case", "unit", "better", "ours", "peer", "peer_name", "ratio", "spread", "bar", "pass")

# ---- Collecting ----


class Missing(Exception):
    """A subject that cannot be measured here, say because it is not installed."""


def run_program(argv, cpus=None, timeout_s=600, env=None):
    """Run a program that prints one "NAME VALUE" a line; return {name: value}.

    NAME has no spaces; lines that begin with "#" are skipped. cpus pins it. A program that is not
    there raises Missing, one that fails or prints anything else RuntimeError.
    """

    def pin():
        os.sched_setaffinity(0, cpus)

    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=timeout_s, text=True, check=False,
                              env=env, preexec_fn=pin if cpus else None)
    except FileNotFoundError as error:
        raise Missing(f"{argv[0]}: not found") from error
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]}: exit status {done.returncode}")
    values = {}
    for line in done.stdout.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, value = line.split()
            values[name] = float(value)
        except ValueError as error:
            raise RuntimeError(f"{argv[0]}: not 'NAME VALUE': {line!r}") from error
    return values


def interleave(subjects, rounds=5, warmup=1):
    """Measure subjects in turn, round by round, so that a disturbance meets all alike.

    subjects: {name: function}, a function returning a number or a {case: number}. Every other round
    goes backwards. Returns {name: [result of each round]}; of a subject that raised Missing, None.
    """
    results = {name: [] for name in subjects}
    for turn in range(warmup + rounds):
        names = list(subjects)
        for name in names if turn % 2 == 0 else reversed(names):
            if results[name] is None:
                continue
            try:
                value = subjects[name]()
            except Missing as missing:
                print(f"# {name} is missing: {missing}", file=sys.stderr)
                results[name] = None
                continue
            if turn >= warmup:
                results[name].append(value)
    return results


def series(results, subject, case=None):
    """The numbers of a subject, of one of its cases if it has several; None if it is missing."""
    rounds = results.get(subject)
    if rounds is None:
        return None
    return [value[case] for value in rounds] if case is not None else list(rounds)


# ---- Judging ----


def spread_of(values):
    middle = statistics.median(values)
    return (max(values) - min(values)) / abs(middle) if middle else 0.0


def make_row(case, unit, better, ours, peer=None, peer_name=None, bar=None, bar_is_absolute=False):
    """One row, from the numbers of all rounds. peer is None if it is missing."""
    if better not in ("more", "less"):
        raise ValueError(f"better is 'more' or 'less', not {better!r}")
    if not ours or (peer is not None and not peer):
        raise ValueError(f"{case}: no rounds")
    own = statistics.median(ours)
    other = statistics.median(peer) if peer is not None else None
    ratio = None
    if other is not None:
        above, below = (own, other) if better == "more" else (other, own)
        ratio = above / below if below else None
    passed = None
    if bar is not None and bar_is_absolute:
        passed = own >= bar if better == "more" else own <= bar
    elif bar is not None and ratio is not None:
        passed = ratio >= bar
    return {"case": case, "unit": unit, "better": better, "ours": own, "peer": other,
            "peer_name": peer_name, "ratio": ratio,
            "spread": max(spread_of(values) for values in (ours, peer) if values is not None),
            "bar": bar, "pass": passed}


# ---- Showing ----


def number(value):
    """Four digits that count, with k, M, G for large ones."""
    if value is None:
        return "-"
    for limit, divisor, suffix in ((1e10, 1e9, " G"), (1e7, 1e6, " M"), (1e4, 1e3, " k")):
        if abs(value) >= limit:
            return number(value / divisor) + suffix
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def cells(row):
    verdict = {True: "yes", False: "NO", None: "-"}[row["pass"]]
    peer = "missing" if row["peer"] is None and row["peer_name"] else number(row["peer"])
    return (row["case"], row["unit"], number(row["ours"]), peer, row["peer_name"] or "-",
            f"{row['ratio']:.2f}" if row["ratio"] is not None else "-", f"{row['spread']:.0%}",
            f"{row['bar']:g}" if row["bar"] is not None else "-", verdict)


HEAD = ("case", "unit", "ours", "peer", "of", "ratio", "spread", "bar", "pass")
RIGHT = {2, 3, 5, 6, 7}  # Columns of numbers.


def table(rows):
    """The rows as lines of text, which are also a Markdown table."""
    grid = [HEAD] + [cells(row) for row in rows]
    widths = [max(len(line[i]) for line in grid) for i in range(len(HEAD))]

    def line(texts):
        return "| " + " | ".join(text.rjust(width) if i in RIGHT else text.ljust(width)
                                 for i, (text, width) in enumerate(zip(texts, widths))) + " |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if i in RIGHT else "-")
                          for i, width in enumerate(widths)) + "|"
    return [line(grid[0]), rule] + [line(texts) for texts in grid[1:]]


def write_whole(path, text):
    """Replace a file at once, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


class Report:
    """The rows of one benchmark. directory: where NAME.json goes, build/bench if None."""

    def __init__(self, name, directory=None):
        self.name = name
        self.directory = pathlib.Path(directory) if directory else ROOT / "build" / "bench"
        self.rows = []

    @staticmethod
    def program(name):
        """A program of the bench folder: BOP_BENCH_DIR if set, else the release build's."""
        return str(pathlib.Path(os.environ.get("BOP_BENCH_DIR", ROOT / "build/release/bench")) / name)

    def add(self, case, unit, better, ours, **options):
        """Add a row from lists of numbers; see make_row() for the options."""
        self.rows.append(make_row(case, unit, better, ours, **options))

    def compare(self, case, unit, better, results, key=None, ours="ours", peer="peer", **options):
        """Add a row from what interleave() gave. key picks from subjects with several cases."""
        own = series(results, ours, key)
        if own is None:
            raise RuntimeError(f"{case}: our own side is missing")
        self.add(case, unit, better, own, peer=series(results, peer, key), **options)

    def finish(self):
        """Print and write. Returns the exit status: 1 if a bar was missed, else 0."""
        print(f"\n{self.name}\n")
        print("\n".join(table(self.rows)))
        write_whole(self.directory / f"{self.name}.json", json.dumps(self.rows, indent=1) + "\n")
        return 1 if any(row["pass"] is False for row in self.rows) else 0


# ---- All together ----


def machine():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"


def sum_up(directory):
    """Write report.md from all NAME.json. Returns the number of missed bars."""
    directory = pathlib.Path(directory)
    lines = ["# Benchmarks", "", f"On {machine()}. A ratio above 1 is in our favour; \"-\" under "
             "pass means that there is no bar, or no peer to hold it against.", ""]
    missed = 0
    for path in sorted(directory.glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        missed += sum(row["pass"] is False for row in rows)
        lines += [f"## {path.stem}", ""] + table(rows) + [""]
    write_whole(directory / "report.md", "\n".join(lines))
    return missed


def main():
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "bench"
    missed = sum_up(directory)
    print(f"{directory / 'report.md'}: {missed} bars missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
