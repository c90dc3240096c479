"""The cluster of a run, with its models and folders, open for as long as they are asked."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cluster.gang import Gang
from cluster.session import session
from cluster.storage import Store
from jobs.config import RunFile
from jobs.harvest import folders, require_shared
from jobs.progress import Reporter
from jobs.texts import Texts
from jobs.waves import Crew, crew


@contextmanager
def opened(
    run: RunFile, texts: Texts, store: Store, reporter: Reporter
) -> Iterator[tuple[Crew, tuple[Gang, Gang]]]:
    """Join or start Ray, place the models, and start the folders; all go on the way out.

    Raises:
        StorageError: a folder does not see the store.
        And what `cluster.session.session` and `jobs.waves.crew` raise.
    """
    with ExitStack() as open_things:
        with reporter.stage("starting Ray"):
            cluster = open_things.enter_context(session(run.cluster.address))
        models = open_things.enter_context(crew(run, texts, cluster, reporter))
        with reporter.stage("starting folders"):
            workers = open_things.enter_context(folders(run, store))
            if run.store is not None or len(cluster.nodes) > 1:
                require_shared(store, workers)
        yield models, workers
