"""What each command does: arguments in, a call of the stage that does the work, results on stdout, an exit code out.

Progress and logs go to stderr. Each function imports what it needs when it runs.
"""

from .catalog import weights
from .cluster import status, submit
from .compute import embed, infer, merge, plan, run
from .inspect import bench, demo, models, probe
from .learn import test, train
from .show import evaluate, export, render, report, stats

# fmt: off
__all__ = [
    "bench", "demo", "embed", "evaluate", "export", "infer", "merge", "models", "plan", "probe", "render", "report",
    "run", "stats", "status", "submit", "test", "train", "weights",
]
# fmt: on
