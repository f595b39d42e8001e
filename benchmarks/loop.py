"""The training loop alone: against plain PyTorch, the cost of groups, and two workers against one.

python -m benchmarks.loop [plain|groups|workers] [--preset P] [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse

from benchmarks.report import console, machine, print_rates, print_ratio
from benchmarks.sides import Side, compare, ratio

SMALL = ("generator.width=32", "discriminator.width=32")


def plain(preset: str, overrides: tuple[str, ...], seconds: float, repeats: int) -> None:
    """distgan's loop against the loop that a PyTorch user would write, on one thread and on two."""
    alone = (*overrides, "scale.groups=1")
    sides = {}
    for threads in (1, 2):
        sides[f"distgan, {threads} thread(s)"] = Side(preset, alone, threads=threads)
        sides[f"plain PyTorch, {threads} thread(s)"] = Side(preset, alone, threads=threads, plain=True)
    rates = compare(sides, seconds, repeats)
    print_rates(f"{preset} {' '.join(alone)}", rates)
    for threads in (1, 2):
        value = ratio(rates, f"distgan, {threads} thread(s)", f"plain PyTorch, {threads} thread(s)")
        print_ratio(f"distgan / plain PyTorch, {threads} thread(s)", value, 1.15)


def groups(preset: str, overrides: tuple[str, ...], seconds: float, repeats: int) -> None:
    """Four groups on one worker against one group."""
    sides = {f"G = {count}": Side(preset, (*overrides, f"scale.groups={count}")) for count in (1, 4)}
    rates = compare(sides, seconds, repeats)
    print_rates(f"{preset} {' '.join(overrides)}", rates)
    print_ratio("G = 4 / G = 1, one worker of one thread", ratio(rates, "G = 4", "G = 1"))


def workers(preset: str, overrides: tuple[str, ...], seconds: float, repeats: int) -> None:
    """Two workers of one thread against one worker of one thread, and against one of two."""
    two = (*overrides, "scale.groups=2")
    sides = {
        "1 worker, 1 thread": Side(preset, two),
        "2 workers, 1 thread each": Side(preset, two, workers=2),
        "1 worker, 2 threads": Side(preset, two, threads=2),
    }
    rates = compare(sides, seconds, repeats)
    print_rates(f"{preset} {' '.join(two)}, gloo", rates)
    print_ratio("2 workers / 1 worker", ratio(rates, "2 workers, 1 thread each", "1 worker, 1 thread"), 1.85)
    value = ratio(rates, "2 workers, 1 thread each", "1 worker, 2 threads")
    print_ratio("2 workers of 1 thread / 1 worker of 2 threads", value, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plain", "groups", "workers"))
    parser.add_argument("--preset", default="dcgan-bricks")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", default=SMALL)
    arguments = parser.parse_intermixed_args()
    measure = {"plain": plain, "groups": groups, "workers": workers}[arguments.what]
    console.print(machine())
    measure(arguments.preset, tuple(arguments.overrides), arguments.seconds, arguments.repeats)


if __name__ == "__main__":
    main()
