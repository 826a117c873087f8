"""Every error a user can meet, sorted by what the user does next.

StreamsalError                70  a bug, ours or in a model file of the user's own
├── UsageError                 2  change the command
├── IncompleteRun              3  run the named tasks, then this again
├── MissingWeights             4  fetch or import the weights, as the message says
├── BadInput                  65  the input is no video, or not the one that was planned
│   ├── VideoError                no (readable) video in this file
│   └── PlanMismatch              video, model or settings differ from the plan
├── MissingInput              66  name a file that exists
├── DeviceError               69  no such device, or out of memory at batch size 1
├── WriteError                74  make room or repair permissions, then run again
└── Stopped                   75  stopped early: run again, it resumes
    ├── Held                      another copy works on the same thing: leave it to that one
    └── Interrupted          130  Ctrl-C

The message is one sentence: what happened, in which file and frame, what to do. Wrong arguments from Python callers are
plain ValueError or TypeError.
"""

from __future__ import annotations


class StreamsalError(Exception):
    """Base of all; `exit_code` is what the command line leaves with."""

    exit_code = 70


class UsageError(StreamsalError):
    exit_code = 2


class IncompleteRun(StreamsalError):
    exit_code = 3


class MissingWeights(StreamsalError):
    exit_code = 4


class BadInput(StreamsalError):
    exit_code = 65


class VideoError(BadInput):
    pass


class PlanMismatch(BadInput):
    pass


class MissingInput(StreamsalError):
    exit_code = 66


class DeviceError(StreamsalError):
    exit_code = 69


class WriteError(StreamsalError):
    exit_code = 74


class Stopped(StreamsalError):
    exit_code = 75


class Held(Stopped):
    """`unsure`: the holder has been watched for too short a time to tell whether it is alive."""

    def __init__(self, message: str, *, unsure: bool = False) -> None:
        super().__init__(message)
        self.unsure = unsure


class Interrupted(Stopped):
    exit_code = 130
