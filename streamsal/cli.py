"""The command line: what can be typed, and the exit code that comes of it. `commands` does what is asked.

Nothing heavy is imported before a command needs it, so that `streamsal --help` answers at once on a login node.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from . import __version__, commands
from .errors import StreamsalError
from .files import REASONS
from .progress import warn
from .signals import leave_on_signals

EXIT_CODES = """\
exit codes: 0 done; 1 some inputs failed or have holes, the rest finished; 2 usage; 3 incomplete; 4 missing weights;
65 input is no video or differs from the plan; 66 input missing; 69 no such device or out of memory;
70 a bug of ours, or in a model file of your own; 74 write error; 75 stopped early or held by another copy: run me
again; 130 Ctrl-C"""


def main(argv: Sequence[str] | None = None) -> int:
    _open_streams()
    try:
        return _exit_code(parser().parse_args(argv))
    finally:
        _empty_streams()


def _exit_code(arguments: argparse.Namespace) -> int:
    failure: BaseException
    try:
        with leave_on_signals():
            code = getattr(commands, arguments.command)(arguments)
            sys.stdout.flush()
            return code
    except StreamsalError as error:
        code, text, failure = error.exit_code, str(error), error
    except KeyboardInterrupt as error:
        code, text, failure = 130, "stopped by Ctrl-C; run the same command again to go on", error
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():  # `streamsal probe ... | head`
            return 0
        code, failure = 70, error
        text = f"{type(error).__name__}: {error} (a bug of ours: please report it with the traceback above)"
        if isinstance(error, OSError) and error.errno in REASONS and not error.filename:  # files say their names
            code, text = 74, f"cannot write to standard output: {REASONS[error.errno]}"
    if code == 70 or arguments.verbose:
        with contextlib.suppress(OSError):
            traceback.print_exception(failure)
    warn(text)
    return code


def _open_streams() -> None:
    """Those that were closed (`2>&-`) go nowhere; else a file of ours gets the number that libraries complain to."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for as long as the process lives)


def _empty_streams() -> None:
    """What they refuse goes nowhere: Python would fail with it once more at its end, and leave with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _nobody_reads() -> bool:
    """Whether the other end of the pipe that is standard output has been closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are told whether they are asked for or not
    return bool(poll.poll(0))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="streamsal",
        description="A model's answer for every frame of a long video, without cutting the video into pieces.",
        epilog=EXIT_CODES + "\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"streamsal {__version__}")
    subcommands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, about: str, example: str, *parents: Any) -> Any:
        made = subcommands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[_common(), *parents],
        )
        made.set_defaults(command=name)
        return made

    demo = command("demo", "make a sample clip, run it as 3 tasks, compare, render", "streamsal demo -o demo")
    demo.add_argument("-o", "--output", default="demo", metavar="DIR", help="folder to write to (default: demo)")

    probe = command("probe", "what is in a video, counted and not believed", "streamsal probe talk.mp4 --verify")
    probe.add_argument("videos", nargs="+", metavar="VIDEO", help="file, directory, glob or @LIST.txt")
    probe.add_argument("--json", action="store_true", help="one JSON document per video")
    probe.add_argument(
        "--verify", action="store_true", help="prove index, entry points and shards against the pictures"
    )
    probe.add_argument("--stream", type=int, metavar="N", help="video stream to use (default: the best one)")

    models = command("models", "the models, or all about one", "streamsal models sigmotion")
    models.add_argument("name", nargs="?", metavar="NAME", help="a model's name or a model file")
    models.add_argument("--json", action="store_true")
    _add_commercial_only(models)
    group = models.add_argument_group("how soon the memory of unisal forgets where it began")
    group.add_argument("--calibrate", metavar="VIDEO", help="measure it on a video")
    group.add_argument("--weights", metavar="FILE|synthetic", help=WEIGHTS_HELP)
    group.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the model")
    group.add_argument("--device", default="auto", metavar=DEVICES)
    _add_weights(command("weights", "checkpoints that models need: get them here, prove them", WEIGHTS_EXAMPLE))

    run = command(
        "run", "everything on this machine: plan, infer, merge, render", RUN_EXAMPLE, _what(preset=False), _how()
    )
    run.add_argument("videos", nargs="+", metavar="VIDEO|DIR|GLOB", help="videos, directories, globs or @LIST.txt")
    run.add_argument(
        "--tasks", type=_positive, metavar="N", help="cut the work into N tasks (default: 1, or 4 per GPU)"
    )
    run.add_argument("--no-render", action="store_true", help="stop after the merge")
    _add_fixations(run)
    _add_style(run)

    embed = command("embed", "vectors of clips, for files and folders of videos", EMBED_EXAMPLE, _what("x3d_s"), _how())
    embed.add_argument("videos", nargs="+", metavar="VIDEO|DIR|RUN", help="as for run, or a run of a clip model")
    embed.add_argument("--tasks", type=_positive, metavar="N", help="cut the work into N tasks (default: as for run)")
    embed.set_defaults(plan_defaults=vars(_what("x3d_s").parse_args([])))
    _add_vectors(embed)

    plan = command("plan", "cut the work into tasks, without computing", PLAN_EXAMPLE, _what())
    plan.add_argument("videos", nargs="+", metavar="VIDEO|DIR|GLOB", help="videos, directories, globs or @LIST.txt")
    plan.add_argument("--tasks", type=_positive, metavar="N", help="number of tasks (default: 1)")

    infer = command("infer", "compute one task of a plan, or go on with it", INFER_EXAMPLE, _what(), _how())
    infer.add_argument("inputs", nargs="*", metavar="RUN|VIDEO", help="run directory, or videos to plan first")
    infer.add_argument(
        "--task-id", metavar="K|any", help="task to compute (default: the scheduler's, else all in turn)"
    )
    infer.add_argument("--num-tasks", type=_positive, metavar="N", help="number of tasks, where there is no plan yet")
    infer.add_argument("--task-base", type=int, default=0, choices=(0, 1), help="number of the first task in the array")
    infer.add_argument("--stage", action="store_true", help=STAGE_HELP)
    infer.set_defaults(plan_defaults=vars(_what().parse_args([])))

    bench = command("bench", "how fast a model is on this machine, stage by stage", BENCH_EXAMPLE, _how())
    bench.add_argument("video", nargs="?", metavar="VIDEO", help="default: a clip drawn at every size")
    _add_bench(bench)

    submit = command(
        "submit", "a run or trainings on a cluster: Slurm, or Kubernetes", SUBMIT_EXAMPLE, _what(submit=True)
    )
    submit.add_argument("inputs", nargs="*", metavar="RUN|VIDEO|CONFIG.toml", help=SUBMIT_HELP)
    submit.add_argument("--tasks", type=_positive, metavar="N", help="cut the work into N tasks (default: by time)")
    submit.set_defaults(plan_defaults=vars(_what().parse_args([])), cluster="slurm")
    _add_submission(submit)

    status = command("status", "how far a run is", "streamsal status talk.streamsal")
    _add_run(status)
    status.add_argument("--json", action="store_true")
    status.add_argument("--watch", action="store_true", help="look again every few seconds until the run is complete")
    status.add_argument("--slurm", action="store_true", help="and what squeue says of each task")

    merge = command("merge", "one file per video over all tasks", "streamsal merge talk.streamsal")
    _add_run(merge)
    merge.add_argument("--materialise", action="store_true", help="copy the maps: one self-contained file per video")
    merge.add_argument("--verify", action="store_true", help="read every map and check its checksum")
    merge.add_argument("--wait", action="store_true", help="until all tasks are done; say how far they are")
    merge.add_argument("--device", default="auto", metavar=DEVICES)
    _add_fixations(merge)

    render = command("render", "the maps on top of the film, with its sound; or on one page", RENDER_EXAMPLE)
    _add_run(render)
    render.add_argument("-o", "--output", metavar="FILE", help="to write (default: RUN/<video>.<style>.mp4 or .png)")
    render.add_argument("--video", metavar="NAME", help="which video of the run (default: all)")
    _add_range(render)
    group = render.add_argument_group("what to show")
    group.add_argument("--compare", metavar="RUN2", help="this run's log density minus that of another, in bits")
    group.add_argument(
        "--gaze-density", metavar="SIGMA", help="the density of the gaze instead of the model's: 35px, or 1deg"
    )
    _add_gaze(render, required=False)
    _add_style(render)

    export = command("export", "maps and tables for other programs", "streamsal export talk.streamsal --format npy")
    _add_run(export)
    export.add_argument("-o", "--output", metavar="PATH", help="where to (default: RUN/export)")
    export.add_argument("--format", default="npy", choices=("npy", "npz", "png", "csv", "pysaliency", "bids"))
    export.add_argument("--video", metavar="NAME", help="which video of the run (default: all)")
    export.add_argument("--native", action="store_true", help="at the stored resolution, not at the video's")
    _add_positions(export)

    evaluate = command("evaluate", "how well the maps predict recorded gaze", EVALUATE_EXAMPLE)
    _add_run(evaluate)
    _add_evaluation(evaluate)

    report = command("report", "one HTML page of runs: film, timeline, contact sheet, facts, methods", REPORT_EXAMPLE)
    _add_report(report)

    stats = command("stats", "tables of what maps are like, areas of interest, cuts", STATS_EXAMPLE)
    _add_run(stats)
    _add_stats(stats)

    train = command("train", "a classifier of actions in tiny videos, from labeled clips", TRAIN_EXAMPLE)
    what = train.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "config", nargs="?", metavar="CONFIG.toml", help="what to train on and how, or a grid of such settings"
    )
    what.add_argument("--example", metavar="DIR", help="write clips and settings to try it with, and end")
    train.add_argument("-o", "--output", metavar="DIR", help="folder to write to (default: CONFIG.training)")
    _add_training(train)

    test = command("test", "what a trained classifier is worth on clips that it has not seen", TEST_EXAMPLE)
    test.add_argument("trained", metavar="TRAINED", help="folder of a training, or a classifier's file")
    test.add_argument("-o", "--output", metavar="DIR", help="folder to write to (default: TRAINED/test)")
    _add_test(test)
    return top


WEIGHTS_WHERE = """

environment:
  STREAMSAL_HOME     where files are kept (default: ~/.cache/streamsal); torch.hub's cache is looked at, too
  STREAMSAL_MIRROR   http address that stands for the official hosts, the paths on it being theirs
  STREAMSAL_OFFLINE  1: fetch nothing, and say so"""
WEIGHTS_EXAMPLE = "streamsal weights fetch deepgaze_iie"
RUN_EXAMPLE = "streamsal run talk.mp4"
EMBED_EXAMPLE = "streamsal embed talks/ --model slowfast_r50_8x8 --stride 0.5s --format npy -o talks.streamsal"
PLAN_EXAMPLE = "streamsal plan talk.mp4 --tasks 16 -o talk.streamsal"
INFER_EXAMPLE = "streamsal infer talk.streamsal --task-id $SLURM_ARRAY_TASK_ID"
SUBMIT_EXAMPLE = "streamsal submit talk.mp4 --gpu geforce_rtx_3090 --time 1:00:00 --throttle 8 --render"
RENDER_EXAMPLE = "streamsal render talk.streamsal -o talk_overlay.mp4 --style side"
STATS_EXAMPLE = "streamsal stats talk.streamsal --aoi faces.json --cuts"
EVALUATE_EXAMPLE = "streamsal evaluate talk.streamsal --gaze fixations.csv"
REPORT_EXAMPLE = "streamsal report talk.streamsal other_model.streamsal -o talk.html"
TRAIN_EXAMPLE = "streamsal train tiny.toml -o tiny.training"
TEST_EXAMPLE = "streamsal test tiny.training --clips all --threshold tuned"
BENCH_EXAMPLE = "streamsal bench --sizes 720p,1080p --batch 4,8 --dtype fp16,bf16 --json a100.json"
STYLES = ("overlay", "side", "heatmap", "contour", "labels", "contact")
PLACES = ("slurm", "local", "k8s")
DEVICES = "auto|cpu|cuda|cuda:N|mps"
STYLE_HELP = "default: labels for a run of a classifier, else overlay; contact: pictures of all shots on a page, a .png"
MODEL_HELP = "default: deepgaze_iie, for embed x3d_s"
WEIGHTS_HELP = "a checkpoint (default: the official one), or stand-ins for tests and benchmarks"
SUBMIT_HELP = "run directory, or videos to plan first, or what `streamsal train` takes"
STAGE_HELP = "copy a video to this machine's own disk ($TMPDIR) before reading it, if it takes less than half of it"
GAZE_HELP = "where people looked: a file or folder of recorded gaze"
RUN_HELP = "run directory (default: $STREAMSAL_RUN, else the only *.streamsal here)"


def _add_weights(weights: argparse.ArgumentParser) -> None:
    """`streamsal weights ACTION`. Options of all commands may stand before or behind the action."""
    weights.description = f"{weights.description}{WEIGHTS_WHERE}"
    actions = weights.add_subparsers(required=True, metavar="ACTION", dest="action")

    def action(name: str, about: str) -> argparse.ArgumentParser:
        made = actions.add_parser(
            name, help=about, description=about[0].upper() + about[1:] + ".", parents=[_common(argparse.SUPPRESS)]
        )
        made.set_defaults(json=False)
        return made

    fetch = action("fetch", "download what a model needs, or one file of it; without NAME, list what there is")
    fetch.add_argument("name", nargs="?", metavar="NAME", help="a model's name, or one of a file")
    _add_commercial_only(fetch)
    imported = action("import", "copy a file that was downloaded elsewhere into the cache")
    imported.add_argument("name", metavar="NAME")
    imported.add_argument("file", metavar="FILE")
    pair = action("import-pair", "make a classifier of the two files that training wrote in the program of 2022")
    pair.description = f"{pair.description} Kind, blocks and classes are told by the files; the rest is as given here."
    pair.add_argument("i3d", metavar="I3D.pt", help="weights of I3D, in the layout for 112 pixels or for 224")
    pair.add_argument("resizer", nargs="?", metavar="RESIZER.pt", help="weights of its resizer (default: bilinear)")
    pair.add_argument("-o", "--output", required=True, metavar="CLASSIFIER.pt")
    pair.add_argument("--classes", metavar="FILE", help="their names, one per line (default: numbers)")
    pair.add_argument("--frames", type=_positive, default=32, metavar="N", help="of one clip (default: 32)")
    pair.add_argument("--side-in", type=_positive, default=56, metavar="PX", help="the resizer gets (default: 56)")
    pair.add_argument("--side", type=_positive, default=112, metavar="PX", help="I3D gets (default: 112)")
    pair.add_argument("--read", type=int, metavar="TAP", help="where a transformer reads, if shapes do not tell")
    pair.add_argument("--apply", type=int, metavar="TAP", help="where a transformer warps")
    pair.add_argument(
        "--natural", action="store_true", help="trained on frames in order, in RGB, warped one by one; else as then"
    )
    exported = action("export-pair", "write a classifier as those two files: PREFIX_i3d.pt and PREFIX_resizer.pt")
    exported.add_argument("file", metavar="CLASSIFIER.pt")
    exported.add_argument("-o", "--output", required=True, metavar="PREFIX")
    verify = action("verify", "read the files and compare their checksums with those of their first use")
    verify.add_argument("name", nargs="?", metavar="NAME", help="default: all that are here")
    path = action("path", "print where the file lies; without NAME, list all")
    path.add_argument("name", nargs="?", metavar="NAME")
    path.add_argument("--json", action="store_true")
    selftest = action("selftest", "compare our numbers with those of the authors' package, where it is installed")
    selftest.add_argument("name", metavar="NAME", help="a model's name")
    selftest.add_argument("pictures", nargs="*", metavar="PICTURE", help="images or videos (default: one drawn here)")
    selftest.add_argument("--weights", metavar="FILE|synthetic", help=WEIGHTS_HELP)
    selftest.add_argument(
        "--dtype", action="append", default=[], choices=("fp32", "fp16", "bf16"), help="repeat for several"
    )
    selftest.add_argument("--device", default="auto", metavar=DEVICES)
    selftest.add_argument("-o", "--output", metavar="FILE.json", help="write all of it as JSON, to attach to an issue")


def _common(default: object = False) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("-v", "--verbose", action="store_true", default=default, help="tracebacks with errors")
    made.add_argument("-q", "--quiet", action="store_true", default=default, help="no progress")
    made.add_argument("--log-json", action="store_true", default=default, help="progress as JSON lines on stderr")
    return made


class _Backend(argparse.Action):
    """`submit --backend` is said of the model (own, reference) and of the tasks (slurm, local, k8s)."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, "cluster" if values in PLACES else "backend", values)


def _what(model: str = "deepgaze_iie", *, submit: bool = False, preset: bool = True) -> argparse.ArgumentParser:
    """Options that change the numbers: they belong to the plan. `preset` off: where that name is the encoder's."""
    made = argparse.ArgumentParser(add_help=False)
    group = made.add_argument_group("what to compute")
    group.add_argument("--model", default=model, metavar="NAME|FILE.py", help=MODEL_HELP)
    group.add_argument("--weights", metavar="FILE|synthetic", help=WEIGHTS_HELP)
    bias = group.add_mutually_exclusive_group()
    bias.add_argument("--center-bias", metavar="NAME|FILE.npy", help="mit1003, ledov, uniform, gaussian or your own")
    bias.add_argument("--no-center-bias", action="store_true", help="leave the model's center prior out")
    if submit:
        about = "reference: the authors' own package; local: the same tasks on this machine; k8s: write manifests"
        group.add_argument("--backend", action=_Backend, choices=("own", "reference", *PLACES), help=about)
    else:
        group.add_argument("--backend", choices=("own", "reference"), help="reference: the authors' own package")
    _add_commercial_only(group)
    group.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the model")
    group.add_argument("--as-density", action="store_true", help="make densities of saliency maps, by a stated rule")
    _add_positions(group)
    group.add_argument("--long-side", type=_positive, metavar="PX", help="make frames smaller for the model")
    group.add_argument("--px-per-degree", type=float, metavar="X", help="the video's scale; fits it to the model's")
    group.add_argument("--batch-size", default="auto", type=_auto_or_positive, metavar="auto|N")
    group.add_argument("--dtype", default="auto", choices=("auto", "fp32", "tf32", "fp16", "bf16"))
    group.add_argument("--store-dtype", default="float16", choices=("float16", "uint16", "float32"))
    group.add_argument("--stream", type=int, metavar="N", help="video stream to use (default: the best one)")
    group.add_argument("-o", "--output", metavar="RUN", help="run directory (default: <video>.streamsal)")
    group = made.add_argument_group("clips, for models that give a vector for each")
    group.add_argument("--stride", metavar="SECONDS|N", help="from clip to clip: 0.5s, or frames (default: 0.5s)")
    group.add_argument("--sampling", choices=("pyslowfast", "strided"), help="frames of a window (default: as tested)")
    group.add_argument("--tail", choices=("shift", "clamp", "drop"), help="the end that no whole window reaches")
    group.add_argument("--pool", metavar="saliency:RUN", help="a second vector, of places as that run weighs them")
    if preset:
        group.add_argument(
            "--preset",
            dest="clip_preset",
            choices=("latent-vectors-service",),
            help="clips as of that service (legacy)",
        )
    made.set_defaults(clip_preset=None)
    return made


def _how() -> argparse.ArgumentParser:
    """Options that change the speed, not the numbers."""
    made = argparse.ArgumentParser(add_help=False)
    group = made.add_argument_group("how to compute it")
    group.add_argument("--device", default="auto", metavar=DEVICES)
    group.add_argument(
        "--decode-workers", type=_positive, metavar="N", help="decoders in parallel (default: by the cores)"
    )
    return made


def _add_bench(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("what to measure")
    group.add_argument("--model", default="deepgaze_iie", metavar="NAME|FILE.py", help=MODEL_HELP)
    group.add_argument("--weights", metavar="FILE|synthetic", help=WEIGHTS_HELP)
    group.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the model")
    group.add_argument("--sizes", metavar="LIST", help="default: 720p,1080p on a GPU, 540p on a CPU; or VIDEO's")
    group.add_argument("--batch", type=_batches, default=(), metavar="LIST", help="default: 1,4,8 on a GPU, 1 on a CPU")
    group.add_argument("--dtype", type=_dtypes, default=("auto",), metavar="auto,fp32,tf32,fp16,bf16")
    group.add_argument(
        "--frames", type=_positive, metavar="N", help="of the video (default: 256 on a GPU, 64 on a CPU)"
    )
    group.add_argument("--seconds", type=float, default=5, metavar="S", help="for each stage (default: 5)")
    group.add_argument("--json", metavar="FILE", help="the last line, which is one JSON document, into a file as well")


def _add_report(made: argparse.ArgumentParser) -> None:
    made.add_argument("runs", nargs="*", metavar="RUN", help="runs; those of the same videos are compared")
    made.add_argument("-o", "--output", metavar="FILE.html", help="default: RUN/report.html, of several report.html")
    made.add_argument(
        "--embed", action="store_true", help="a small film with the maps in the page itself, to be mailed"
    )
    made.add_argument("--aoi", metavar="FILE", help="areas of interest, .json or .csv: the probability in each")
    made.add_argument("--video", metavar="NAME", help="which video of the run (default: all)")
    _add_gaze(made, required=False)


def _add_stats(made: argparse.ArgumentParser) -> None:
    made.add_argument("-o", "--output", metavar="DIR", help="where to (default: RUN/stats)")
    made.add_argument("--aoi", metavar="FILE", help="areas of interest, .json or .csv: the probability in each")
    made.add_argument("--cuts", action="store_true", help="where the film is cut, seen in its pictures")
    made.add_argument("--video", metavar="NAME", help="which video of the run (default: all)")
    made.add_argument("--native", action="store_true", help="at the stored resolution, not at the video's")
    _add_range(made)
    _add_gaze(made, required=False)


def _add_training(made: argparse.ArgumentParser) -> None:
    made.add_argument("--resume", default="auto", metavar="auto|no|FILE", help="auto: go on from DIR/last.pt, if there")
    made.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="a setting other than in the file"
    )
    made.add_argument("--device", default="auto", metavar=DEVICES)
    group = made.add_argument_group("of a grid, a file with axes in [grid]")
    group.add_argument("--index", type=_seed, metavar="K", help="cell to train (default: the scheduler's, else all)")
    group.add_argument("--list", action="store_true", help="print the cells, and end")
    group.add_argument("--summary", action="store_true", help="print what each cell has reached, and end")
    group.add_argument("--wait", action="store_true", help="with --summary: until all cells are done")
    group.add_argument("--json", action="store_true", help="of --summary, instead of a table")


def _add_test(made: argparse.ArgumentParser) -> None:
    made.add_argument("--manifest", metavar="FILE", help="labeled clips (default: data.test of the training)")
    group = made.add_argument_group("how clips are judged (default: as validation was)")
    group.add_argument("--clips", type=_all_or_positive, metavar="N|all", help="looked at in each video")
    group.add_argument("--pool", choices=("max", "mean"), help="what the scores of one video's clips become")
    group.add_argument("--threshold", type=_threshold, metavar="X|tuned", help="probability from which a class is seen")
    group.add_argument("--batch", type=_positive, metavar="N", help="clips that go through the network together")
    group.add_argument("--device", default="auto", metavar=DEVICES)
    group = made.add_argument_group("what to write, besides predictions and scores")
    group.add_argument("--npy", action="store_true", help="the four files of the program of 2022 that this replaces")
    group.add_argument("--answer", action="store_true", help="answer.txt, as the TinyAction challenge wants it")
    group.add_argument("--no-plots", action="store_true", help="no pictures")
    group.add_argument("--json", action="store_true", help="print the scores as JSON instead of a table")


def _add_evaluation(made: argparse.ArgumentParser) -> None:
    _add_gaze(made, required=True)
    group = made.add_argument_group("how to score")
    group.add_argument("--protocol", default="exact", choices=("exact", "mit"), help="mit: as the MATLAB code, by name")
    group.add_argument(
        "--baseline", default="auto", metavar="NAME|FILE.npy", help="center-bias of the other videos (default), uniform"
    )
    group.add_argument("--shuffle", default="other-videos", choices=("other-videos", "dataset", "same-video"))
    group.add_argument("--frames", metavar="FILE.csv", help="score only these: columns video, frame and perhaps mask")
    group.add_argument("--frames-rate", type=_rate, metavar="HZ", help="at which they count (default: the video's own)")
    group.add_argument("--blur", type=_rate, metavar="PX", help="sigma of fixation maps (default: 1 degree)")
    group.add_argument("--fit-density", action="store_true", help="make densities of saliency maps, fitted to gaze")
    group.add_argument("--fit-on", metavar="FILE", help="fitted to this gaze, or a fit.json of another evaluation")
    group.add_argument("--device", default="auto", metavar=DEVICES)
    group.add_argument("-o", "--output", metavar="DIR", help="where to (default: RUN/evaluation)")
    group.add_argument("--json", action="store_true", help="print summary.json instead of a table")


def _add_gaze(made: argparse.ArgumentParser, *, required: bool) -> None:
    group = made.add_argument_group("recorded gaze")
    group.add_argument("--gaze", required=required, action="append", metavar="FILE", help=GAZE_HELP)
    group.add_argument(
        "--gaze-format", default="auto", metavar="NAME", help="table, bids, dhf1k, fixation-maps or pysaliency"
    )
    group.add_argument("--columns", metavar="MAP", help="of a table, as t=Time,x=GazeX,y=GazeY,time_unit=ms")
    group.add_argument("--gaze-start", type=float, metavar="SECONDS", help="the tracker's time of the first frame")
    group.add_argument("--gaze-rate", type=_rate, metavar="HZ", help="of fixation pictures")


def _add_vectors(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("what to write, into RUN/vectors")
    group.add_argument("--format", default="h5", choices=("h5", "npy", "csd", "latent-vectors-service"))
    group.add_argument(
        "--aggregate", default="clip", metavar="clip|interval:SECONDS|interval:FILE.csv|video", help="default: clip"
    )
    group.add_argument("--statistic", action="append", default=[], choices=("max", "std"), help="beside the mean")
    group.add_argument("--array", default="features", metavar="NAME", help="what a csd holds (default: features)")
    group.add_argument("--list-frames", action="store_true", help="print the times and frames of every clip, and end")


def _add_submission(made: argparse.ArgumentParser) -> None:
    """Resources are None where nothing is said: `--resume` then takes those of the last submission."""
    group = made.add_argument_group("what each task gets")
    group.add_argument(
        "--gpu", metavar="TYPE", help="as `sinfo -o %%G`, or a node's nvidia.com/gpu.product; any (default), none"
    )
    group.add_argument("--time", metavar="H:MM:SS", help="limit; who needs longer is requeued (default: 2:00:00)")
    group.add_argument("--partition", metavar="NAME")
    group.add_argument("--account", metavar="NAME")
    group.add_argument("--cpus", type=_positive, metavar="N", help="cores (default: 4)")
    group.add_argument("--mem", metavar="SIZE", help="memory (default: 16G)")
    group.add_argument("--device", metavar=DEVICES)
    group.add_argument("--stage", action="store_true", default=None, help=STAGE_HELP)
    group.add_argument(
        "--sbatch",
        dest="extra",
        action="append",
        metavar="OPTION",
        help="another option of sbatch, as --sbatch=--qos=long",
    )
    group = made.add_argument_group("how to submit")
    group.add_argument("--throttle", type=_positive, metavar="K", help="at most K tasks at a time")
    group.add_argument(
        "--seconds-per-task", type=_positive, default=600, metavar="S", help="aim of the default of --tasks (600)"
    )
    group.add_argument("--render", action="store_true", default=None, help="make the film as well")
    group.add_argument("--style", choices=STYLES, help=STYLE_HELP)
    group.add_argument(
        "--resume", action="store_true", help="only the tasks that are not done, with the same resources"
    )
    group.add_argument("--force", action="store_true", help="even if the run was submitted before, or is in the queue")
    group.add_argument("--dry-run", action="store_true", help="plan, write and print the scripts; submit nothing")
    group = made.add_argument_group("on Kubernetes")
    group.add_argument("--image", metavar="NAME", help="a container image with streamsal in it, see Dockerfile")
    group.add_argument("--claim", metavar="PVC", help="the persistent volume claim that holds everything")
    group.add_argument("--mount", default="/data", metavar="DIR", help="where it is, here and in pods (default: /data)")
    group.add_argument("--namespace", metavar="NAME")


def _add_commercial_only(group: Any) -> None:
    group.add_argument("--commercial-only", action="store_true", help="refuse what is not licensed for commercial use")


def _add_range(group: Any) -> None:
    group.add_argument(
        "--start", default="0", metavar="POS", help="first frame (120), seconds (4.8s) or time (0:01:02.5)"
    )
    group.add_argument("--end", metavar="POS", help="frame or time behind the last one")


def _add_positions(group: Any) -> None:
    _add_range(group)
    group.add_argument("--every", type=_positive, default=1, metavar="N", help="only every Nth frame")


def _add_run(made: argparse.ArgumentParser) -> None:
    made.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)


def _add_fixations(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("where the viewer has looked so far (deepgaze_iii)")
    group.add_argument(
        "--fixations",
        metavar="SOURCE",
        help="central (default), none, generated, generated:argmax, or FILE.csv of recorded gaze",
    )
    group.add_argument(
        "--scanpaths", type=_positive, metavar="N", help="with generated: average over N of them (default: 1)"
    )
    group.add_argument("--seed", type=_seed, metavar="N", help="with generated: which scanpaths (default: 0)")


def _add_style(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("how the film looks")
    group.add_argument("--style", choices=STYLES, help=STYLE_HELP)
    group.add_argument("--colormap", metavar="NAME", help="default: inferno, for a comparison blue_orange")
    group.add_argument(
        "--scale", default="video", choices=("video", "frame"), help="one scale for the film, or per frame"
    )
    group.add_argument("--between", default="interpolate", choices=("interpolate", "hold", "none"), help="with --every")
    group.add_argument("--legend", action="store_true", help="burn in the value scale")
    group.add_argument("--frame-number", action="store_true", help="burn in the number of every frame")
    group.add_argument("--timestamp", action="store_true", help="burn in the time of every frame")
    group.add_argument("--codec", default="auto", metavar="auto|h264|hevc|av1|h264_nvenc...")
    group.add_argument("--crf", type=int, metavar="N", help="quality, smaller is better (default: 18 for h264)")
    group.add_argument("--preset", metavar="NAME", help="the encoder's speed preset (default: medium for h264)")
    group.add_argument(
        "--jobs", type=_positive, default=1, metavar="N", help="processes that encode segments side by side"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 up")
    return int(text)


def _batches(text: str) -> tuple[int, ...]:
    return tuple(map(_positive, text.split(",")))


def _dtypes(text: str) -> tuple[str, ...]:
    for name in text.split(","):
        if name not in ("auto", "fp32", "fp16", "bf16", "tf32"):
            raise argparse.ArgumentTypeError(f"{name!r} is none of auto, fp32, fp16, bf16, tf32")
    return tuple(text.split(","))


def _all_or_positive(text: str) -> int | str:
    return text if text == "all" else _positive(text)


def _threshold(text: str) -> float | str:
    if text == "tuned":
        return text
    if not 0 <= (value := _rate(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no probability: it has to be between 0 and 1, or tuned")
    return value


def _auto_or_positive(text: str) -> int | str:
    return text if text == "auto" else _positive(text)
