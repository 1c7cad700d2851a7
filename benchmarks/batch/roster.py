"""The table of peers."""

from __future__ import annotations

from benchmarks.batch import peers, pymc_peers
from benchmarks.batch.peers import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("numpyro MCMC loop", (), peers.numpyro_loop, compiles_every_time=True),
        Peer("numpyro hand-jitted", (), peers.numpyro_jitted, lockstep=True),
        Peer("blackjax hand-jitted", ("blackjax",), peers.blackjax_jitted, lockstep=True),
        Peer("nutpie diagonal", ("nutpie", "pymc", "numba"), pymc_peers.nutpie_diagonal),
        Peer("nutpie low-rank", ("nutpie", "pymc", "numba"), pymc_peers.nutpie_low_rank),
        Peer(
            "nutpie diagonal edge", ("nutpie", "pymc", "numba"), pymc_peers.nutpie_diagonal_edge, workloads=("power",)
        ),
        Peer(
            "nutpie low-rank edge", ("nutpie", "pymc", "numba"), pymc_peers.nutpie_low_rank_edge, workloads=("power",)
        ),
        Peer("PyMC default", ("pymc",), pymc_peers.pymc_default, compiles_every_time=True),
    )
}
