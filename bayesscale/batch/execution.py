"""Where a batch is carried out: this process, local workers, a cluster, or one shard beside others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bayesscale.batch.attempt import Ended, Within, Work
from bayesscale.batch.place import Shard
from bayesscale.batch.scheduler import Next, dask_cluster, serial
from bayesscale.batch.store import Store


@dataclass(frozen=True)
class Execution:
    """Where chunks are carried out.

    `workers` local processes, or those of a Dask `scheduler`; this process where neither is given. With a `shard` only its
    part of the chunks is carried out, beside other shards, and nothing is merged.
    """

    workers: int = 0
    scheduler: str | None = None
    shard: Shard | None = None

    def schedule(self, work: Work, store: Store, take: Next, within: Within) -> Iterator[Ended]:
        """Carry out chunks there."""
        if self.workers or self.scheduler:
            return dask_cluster(work, store, take, address=self.scheduler, workers=self.workers)
        return serial(work, store, take, within)


@dataclass(frozen=True)
class Shared:
    """A shard that is done: how many chunks it has, all with results, and how many of the whole plan have none yet."""

    folder: Path
    shard: Shard
    done: int
    missing: int
