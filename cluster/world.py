"""How the ranks of a gang find each other: a place to meet, owned by the first of them."""

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore

Place = tuple[str, int]  # host and port


@dataclass(frozen=True, eq=False)
class World:
    """One process among `ranks` that work as one; `store` is where they meet.

    `patience` is the longest, in seconds, that any of them waits for another.
    """

    rank: int
    ranks: int
    store: "TCPStore"
    patience: float

    @classmethod
    def found(cls, host: str, ranks: int, patience: float) -> "World":
        """As rank 0: open the meeting place, at a port that nobody else has."""
        # Left to itself, the store would listen on every interface of the machine.
        listening = socket.create_server((host, 0), backlog=ranks)
        port = listening.getsockname()[1]
        store = _store(host, port, ranks, patience, listening.detach())
        return cls(0, ranks, store, patience)

    @classmethod
    def join(cls, place: Place, rank: int, ranks: int, patience: float) -> "World":
        """As any other rank: go to the place that rank 0 has opened."""
        return cls(rank, ranks, _store(*place, ranks, patience), patience)

    @property
    def place(self) -> Place:
        """Where the others find it."""
        return self.store.host, self.store.port


def _store(
    host: str, port: int, ranks: int, patience: float, listening: int | None = None
) -> "TCPStore":
    # Not at the top: it takes seconds to import, and most gangs have one rank.
    from torch.distributed import TCPStore

    return TCPStore(
        host,
        port,
        ranks,
        is_master=listening is not None,
        wait_for_workers=False,
        timeout=timedelta(seconds=patience),
        master_listen_fd=listening,
    )
