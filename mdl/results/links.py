"""Results: where the files of jobs are, kept from the moment that a remote is asked until they are fetched.

To ask costs money, or much time: every answer of a worker is a job. So one answer is used for the plan and for the
download, and the remote is asked again only if a link has failed or expires soon.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mdl.errors import NotFound
from mdl.files import RemoteFile
from mdl.net.locators import Body, Link
from mdl.presigned import expires_at
from mdl.results.answers import Judged
from mdl.results.base import JobOrigin, job_and_path
from mdl.results.outputs import Output, litter_note, select, without_litter

_EXPIRES_SOON = 60.0
"""A link that expires within so many seconds is not handed out; nor is one in the second half of a shorter life."""
_MOST_HELD = 64 * 2**20
"""Bytes of files that came in answers and are held in memory, the newest answer not counted."""


@dataclass
class _Answer:
    """The outputs of a job by their paths, and when they ``came``. ``uses`` says how often a link may still be handed
    out: once, as it has failed if it is asked for again, and once more to ask for a size that was not told."""

    judged: Judged
    outputs: dict[str, Output] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    came: float = field(default_factory=lambda: time.time())

    @classmethod
    def of(cls, judged: Judged) -> _Answer:
        answer = cls(judged)
        for output in judged.outputs:
            answer.put(output)
        return answer

    def put(self, output: Output) -> None:
        self.outputs[output.path.text] = output
        self.uses[output.path.text] = 1 if output.size is not None else 2

    def is_good(self, path: str) -> bool:
        """Whether the file can be had from what is known."""
        output = self.outputs.get(path)
        if output is None:
            return False
        if output.data is not None or output.is_stable or output.error:
            return True
        if not output.url or self.uses[path] <= 0:
            return False
        end = expires_at(output.url)
        half_life = (end - self.came) / 2
        return end - time.time() > min(_EXPIRES_SOON, half_life)

    @property
    def is_fresh(self) -> bool:
        """Whether all its files can be had; those that are known by a key are asked for one by one."""
        return all(output.key or self.is_good(path) for path, output in self.outputs.items())

    @property
    def bytes_held(self) -> int:
        return sum(len(output.data or b"") for output in self.outputs.values())


class JobLinks:
    """The files of a remote's jobs. May be used by several threads: of those that want the same job, one asks.

    ``ask(job)`` asks the remote for what its answer holds; ``complete(job, output)`` for the bytes, or the link, of an
    output that is known by its key. ``tell(job, judged, notes)`` is called once for each job whose files are listed.
    """

    def __init__(
        self,
        ask: Callable[[str], Judged],
        tell: Callable[[str, Judged, Sequence[str]], None],
        complete: Callable[[str, Output], Output] = lambda job, output: output,
    ) -> None:
        self._ask = ask
        self._tell = tell
        self._complete = complete
        self._told: set[str] = set()
        self._answers: dict[str, _Answer] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        """Those of a job's files that ``origin`` means. Raises as ``ask``, and `NotFound` if it means none."""
        with self._locked(origin.job):
            answer = self._answers.get(origin.job)
            if answer is None or not answer.is_fresh:
                answer = self._asked(origin.job)
        outputs = list(answer.outputs.values())
        notes = []
        if not origin.litter:
            outputs, litter = without_litter(outputs)
            if litter:
                notes.append(litter_note(litter))
        if origin.job not in self._told:
            self._told.add(origin.job)
            self._tell(origin.job, answer.judged, notes)
        files = []
        for output in select(outputs, checkpoint=origin.checkpoint, logs=origin.logs, everything=origin.everything):
            url = origin.url_of(output.path)
            is_probed = output.size is not None
            files.append(RemoteFile(output.path, url, output.size, output.digest, probed=is_probed))
        return files

    def locate(self, url: str) -> Link | Body:
        """Where the file of a URL that `JobOrigin.url_of` made is at this moment. Raises as ``ask``, and `NotFound` if
        the file is no longer among the job's outputs."""
        job, path = job_and_path(url)
        with self._locked(job):
            answer = self._answers.get(job)
            if answer is None or not answer.is_good(path):
                known = answer.outputs.get(path) if answer else None
                if answer is None or known is None or not known.key:
                    answer = self._asked(job)
                    known = answer.outputs.get(path)
                if known and known.key:
                    answer.put(replace(self._complete(job, known), path=known.path, key=known.key))
            output = answer.outputs.get(path)
            if output is None:
                raise NotFound("the remote's answer does not name this file any more", item=f"{job}/{path}")
            if output.error:
                raise output.error
            answer.uses[path] -= 1
        self._let_go(job)
        if output.data is not None:
            return Body.of(output.data, output.content_type or "application/octet-stream")
        return Link(output.url, authorized=output.is_stable)

    def _locked(self, job: str) -> threading.Lock:
        with self._lock:
            return self._locks[job]

    def _asked(self, job: str) -> _Answer:
        answer = _Answer.of(self._ask(job))
        with self._lock:
            self._answers.pop(job, None)
            self._answers[job] = answer
        self._let_go(job)
        return answer

    def _let_go(self, newest: str) -> None:
        """Forget the oldest answers with bytes in them, if all together hold too many; they are asked for again."""
        with self._lock:
            held = {job: answer.bytes_held for job, answer in self._answers.items() if job != newest}
            for job, count in held.items():
                if sum(held.values()) <= _MOST_HELD:
                    return
                if count:
                    held[job] = 0
                    del self._answers[job]
