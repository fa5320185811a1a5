"""One `map` for work that is spread over processes or machines by Dask, or done in this process.

The function travels once to each worker, not with each task. In it, a memory travels as its saved files,
and an encoder that is loaded by name as this name.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from rose_kit.encoder import WindowedEncoder, load_encoder
from rose_kit.memory import SupportMemory

AHEAD = 3  # tasks per worker thread that are handed out before the oldest result is taken
PATIENCE = 60  # seconds for a scheduler to answer, to have a worker, and to replace its last one
_unpacked: dict[str, Callable] = {}  # on a worker: the function in use, by the key it came under
_unpacking = threading.Lock()


def parallel_map(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    scheduler: Any = "local",
    desc: str = "",
    progress: bool | None = True,
) -> Iterator[Any]:
    """Apply a function to every item; results come in the order of the items.

    A task whose worker dies is done again by another, three times at most; an error that the function
    raises is raised here. The results are those of the serial run, bit for bit where the machines
    compute alike. Files must lie under the same path everywhere. Dask exchanges pickles: connect only
    to a scheduler that you trust.

    Args:
        function: item -> result; runs in several processes at once, so what it changes is lost.
        items: small things, such as positions in a dataset.
        scheduler: "local" (for the time of this call, one process per core), "local:N" (N of them), the
            address of a Dask scheduler ("tcp://host:8786"), a `distributed.Client`, or None: no Dask.
        desc: what the progress bar is called.
        progress: show it; None: on terminals only.

    Yields:
        one result per item; only a few per worker are kept waiting.

    Raises:
        ValueError: the scheduler is none of these, or Dask is not installed.
        OSError: no scheduler answers, it has no worker, or a task lost its worker four times.

    >>> list(parallel_map(str.upper, ["a", "b"], scheduler=None, progress=False))
    ['A', 'B']
    """
    results = map(function, items) if scheduler is None else _spread(function, items, scheduler)
    with tqdm(total=len(items), desc=desc, disable=None if progress is None else not progress) as bar:
        for result in results:
            bar.update()
            yield result


def _spread(function: Callable, items: Sequence[Any], scheduler: Any) -> Iterator[Any]:
    with _connected(scheduler) as client:
        from distributed import KilledWorker

        # The result of a task, so that it is made again when the workers that hold it die.
        packed = client.submit(bytes, dumps(function), pure=False)
        todo, waiting = iter(items), deque()
        try:
            while True:
                room = AHEAD * max(1, sum(client.nthreads().values()))  # workers come and go
                for item in islice(todo, max(0, room - len(waiting))):
                    waiting.append(client.submit(_apply, packed.key, packed, item, pure=False))
                if not waiting:
                    break
                yield _result(client, waiting.popleft())
        except KilledWorker as error:
            raise OSError(f"a task was given up, since its worker died each time: {error}") from error
        finally:
            client.cancel([packed, *waiting])


def _result(client: Any, future: Any) -> Any:
    """Wait, as long as there is somebody to wait for."""
    while True:
        try:
            return future.result(timeout=PATIENCE)
        except TimeoutError:
            if future.done():  # the function's own
                raise
            if not client.nthreads():
                raise OSError("every Dask worker is gone, and none came back") from None


def _apply(key: str, packed: bytes, item: Any) -> Any:
    with _unpacking:
        if key not in _unpacked:
            _unpacked.clear()
            from distributed.protocol.pickle import loads  # Dask's own, as for all that it exchanges

            _unpacked[key] = loads(packed)
    return _unpacked[key](item)


@contextmanager
def _connected(scheduler: Any) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ValueError(f'Dask needs an extra: pip install "rose_kit[dask]" ({error})') from None
    if isinstance(scheduler, Client):
        yield scheduler
    elif isinstance(scheduler, str) and (local := re.fullmatch(r"local(?::([1-9]\d*))?", scheduler)):
        count = None if local[1] is None else int(local[1])
        quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
        with (
            LocalCluster(count, threads_per_worker=1, memory_limit=None, **quiet) as cluster,
            Client(cluster) as client,
        ):
            yield client
    elif isinstance(scheduler, str) and re.fullmatch(r"\w+://.+", scheduler):
        try:
            client = Client(scheduler, timeout=PATIENCE)
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, TimeoutError, ValueError) as error:
            raise OSError(f"no Dask scheduler with workers at {scheduler!r}: {error}") from error
        with client:
            yield client
    else:
        raise ValueError(
            f"unknown scheduler {scheduler!r}: local, local:N, or an address such as tcp://host:8786"
        )


def dumps(thing: Any) -> bytes:
    """Pack a thing for a worker, where Dask unpacks it, in this kit's environment.

    Functions and classes of scripts and plugins travel as code.
    """
    import cloudpickle

    class Packer(cloudpickle.Pickler):
        def reducer_override(self, part: Any) -> Any:
            if isinstance(part, SupportMemory):
                return _load_memory, _saved(part)
            if isinstance(part, WindowedEncoder) and _is_as_loaded(part):
                return load_encoder, (part.name,)
            return super().reducer_override(part)

    for name, module in list(sys.modules.items()):
        if name.startswith("rose_kit_plugin_"):
            cloudpickle.register_pickle_by_value(module)
    stream = io.BytesIO()
    Packer(stream).dump(thing)
    return stream.getvalue()


def _is_as_loaded(encoder: WindowedEncoder) -> bool:
    """Whether loading by name, in a process without plugins, gives just this encoder."""
    if not type(encoder).__module__.startswith("rose_kit."):
        return False
    try:
        twin = load_encoder(encoder.name)
    except ValueError:
        return False
    marks = {"fingerprint": encoder.fingerprint}
    learned = (nn.Module, torch.Tensor, np.ndarray)  # these the fingerprint stands for
    settings = {k: v for k, v in vars(encoder).items() if k != "tokenizer" and not isinstance(v, learned)}
    return all(getattr(twin, key, None) == value for key, value in (settings | marks).items())


def _saved(memory: SupportMemory) -> tuple[dict[str, bytes], str | None]:
    """Its files, and the index to search them by: not one that other processes cannot open again."""
    with tempfile.TemporaryDirectory() as folder:
        memory.snapshot().save(folder)  # a copy: the memory itself remembers where it was saved to
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
    return files, "flat" if memory._index.shared else None


def _load_memory(files: dict[str, bytes], index: str | None) -> SupportMemory:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        return SupportMemory.load(folder, index=index, mapped=False)
