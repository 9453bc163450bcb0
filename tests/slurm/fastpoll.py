"""Snakemake with short pauses between two looks at the status of SLURM jobs.

The plugin's pause grows by 10 s with each look, up to 180 s, and has no setting for it.
For tests only: `python tests/slurm/fastpoll.py <Snakemake's arguments>`.
"""

import asyncio
import sys
from typing import Any

from snakemake_interface_executor_plugins.executors import remote

LONGEST_PAUSE = 1.0


async def sleep(executor: Any) -> None:
    """In place of `RemoteExecutor.sleep`."""
    pause = executor.next_seconds_between_status_checks
    await asyncio.sleep(LONGEST_PAUSE if pause is None else min(pause, LONGEST_PAUSE))


remote.RemoteExecutor.sleep = sleep

if __name__ == "__main__":
    from snakemake.cli import main

    # The resident predictor looks for an ancestor of this name, its owner.
    sys.argv[0] = "snakemake"
    main()
