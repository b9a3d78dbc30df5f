"""Throughput, latency and faults over time: numbers for gnuplot, a script, and, where gnuplot is
installed, an SVG."""

import collections
import glob
import os
import shutil
import subprocess

SCRIPT = """\
set terminal svg size 1400,800 dynamic background rgb 'white'
set output 'plot.svg'
set multiplot layout 2,1
set grid
set key top right
set xrange [0:{end}]
{marks}
set ylabel 'operations a second'
plot 'plot.dat' using 1:2 with lines title 'ok', '' using 1:3 with lines title 'failed', \\
     '' using 1:4 with lines title 'unknown'
set ylabel 'milliseconds'
set xlabel 'seconds'
set logscale y
plot 'plot.dat' using 1:5 with lines title 'median', '' using 1:6 with lines title '99 %'
unset multiplot
"""


def _read(directory):
    """Ends, or starts of what never ended, by second: outcome and latency."""
    seconds = collections.defaultdict(lambda: ({"ok": 0, "fail": 0, "unknown": 0}, []))
    first = None
    for path in glob.glob(os.path.join(directory, "history-*.txt")):
        with open(path, encoding="ascii") as lines:
            for line in lines:
                words = line.split(" ", 5)
                if len(words) < 6 or words[0].startswith("#"):
                    continue
                start = int(words[0])
                end = start if words[1] == "-" else int(words[1])
                first = start if first is None else min(first, start)
                counts, latencies = seconds[end // 1000000000]
                counts[words[3]] += 1
                if words[3] == "ok":
                    latencies.append((end - start) / 1e6)
    return first, seconds


def _faults(directory, first):
    path = os.path.join(directory, "faults.txt")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").split(" ", 1) for line in lines]
    return [((int(when) - first) / 1e9, what) for when, what in pairs]


def _marks(faults):
    out = []
    for number, (when, what) in enumerate(faults):
        what = what.replace("'", "").replace("\\", "")
        out.append(f"set arrow from {when:.2f}, graph 0 to {when:.2f}, graph 1 nohead lc 'gray'")
        if len(faults) <= 60:
            height = 0.98 - 0.05 * (number % 8)
            out.append(f"set label '{what[:40]}' at {when:.2f}, graph {height:.2f} font ',8'")
    return "\n".join(out)


def draw(directory):
    first, seconds = _read(directory)
    if first is None:
        return
    base = first // 1000000000
    with open(os.path.join(directory, "plot.dat"), "w", encoding="ascii") as out:
        for second in range(base, max(seconds) + 1):
            counts, latencies = seconds[second]
            latencies.sort()
            half = latencies[len(latencies) // 2] if latencies else "?"
            most = latencies[len(latencies) * 99 // 100] if latencies else "?"
            out.write(f"{second - base} {counts['ok']} {counts['fail']} {counts['unknown']} "
                      f"{half} {most}\n")
    with open(os.path.join(directory, "plot.gnuplot"), "w", encoding="utf-8") as out:
        out.write(SCRIPT.format(end=max(seconds) - base + 1,
                                marks=_marks(_faults(directory, first))))
    if shutil.which("gnuplot"):
        subprocess.run(["gnuplot", "plot.gnuplot"], cwd=directory, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)
