"""The processes of one run: who plays what, and how they wait for each other."""

import atexit
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object

from equilign.errors import ConfigError, EquilignError


@dataclass(frozen=True)
class Team:
    """This process among those of the run.

    Attributes:
        rank: of this process, from 0; 0 is the main one.
        size: number of processes.
        accelerator: how they talk; None for a single process.
    """

    rank: int = 0
    size: int = 1
    accelerator: Accelerator | None = None

    @classmethod
    def of(cls, accelerator: Accelerator) -> "Team":
        """The team that ``accelerator`` belongs to.

        Raises:
            ConfigError: a launcher started several processes, and they do not know each other.
        """
        if accelerator.num_processes > 1:
            _leave_at_exit()
        else:
            _check_alone()
        return cls(accelerator.process_index, accelerator.num_processes, accelerator)

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1 and self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def together(self, work: Callable[[], None]) -> None:
        """Run ``work``; when it fails on one process, all of them stop instead of waiting for it.

        Raises:
            EquilignError: it failed elsewhere; says where and how. A failure of this process is
                raised as it is.
        """
        if self.size == 1:
            work()
            return
        mine: Exception | None = None
        try:
            work()
        except Exception as error:  # told to the others, then raised
            mine = error
        told = None if mine is None else f"{type(mine).__name__}: {mine}"
        failures = gather_object([(self.rank, told)])
        if mine is not None:
            raise mine
        for rank, message in failures:
            if message is not None:
                raise EquilignError(f"process {rank} stopped: {message}")


SECONDS_TO_LET_GO = 0.3
"""Of the group's threads at the end of a process."""


def _check_alone() -> None:
    """Processes that each think themselves alone would write over each other's files."""
    started = os.environ.get("WORLD_SIZE", "1")
    if started.isdigit() and int(started) > 1:
        raise ConfigError(
            f"a launcher started {started} processes, but this one finds no device to join the "
            "others with. Without GPUs set use_cpu: true (--use_cpu true); with GPUs, see that "
            "torch finds them"
        )


@cache
def _leave_at_exit() -> None:
    """Once: the process leaves its group before it ends, and gives the group's threads a moment.

    A thread of Gloo drops the tensors of the last collective after the caller has gone on. It needs
    the interpreter for that; if it asks only while the interpreter ends, it aborts the process,
    after all work was done: 6 of 74 ends on a busy machine.
    """
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(SECONDS_TO_LET_GO)  # the interpreter is free meanwhile
