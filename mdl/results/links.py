"""Links: where the files of jobs are, kept from the moment that a remote is asked until they are fetched.

To ask costs money, or much time: every answer of a worker is a job. So one answer is used for the plan and for the
download, and the remote is asked again only if a link has failed or expires soon.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from mdl.bounds import LARGEST_DOCUMENT
from mdl.errors import NotFound
from mdl.files import RemoteFile
from mdl.net.locators import Body, Link
from mdl.results.base import JobOrigin, Notices, job_and_path, wanted_by
from mdl.results.outputs import Output
from mdl.urls import expires_at

_EXPIRES_SOON = 60.0
"""A link that expires within so many seconds is not handed out; nor is one in the second half of a shorter life."""


class _Answer:
    """The outputs of a job by their paths, and when they ``came``. A link may be handed out once, as it has failed if
    it is asked for again, and once more to ask for a size that was not told."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs: dict[str, Output] = {}
        self.came = time.time()
        self._uses: dict[str, int] = {}
        for output in outputs:
            self.put(output)

    def put(self, output: Output) -> None:
        self.outputs[output.path.text] = output
        self._uses[output.path.text] = 2 if output.size is None else 1

    def use(self, path: str) -> None:
        """Note that the link of a file was handed out."""
        self._uses[path] -= 1

    def is_good(self, path: str) -> bool:
        """Tell whether the file can be had from what is known."""
        output = self.outputs.get(path)
        if output is None:
            return False
        if output.data is not None or output.is_stable or output.error:
            return True
        if not output.url or self._uses[path] <= 0:
            return False
        end = expires_at(output.url)
        half_life = (end - self.came) / 2
        return end - time.time() > min(_EXPIRES_SOON, half_life)

    @property
    def is_fresh(self) -> bool:
        """Whether it has files, and all can be had; those that are known by a key are asked for one by one."""
        if not self.outputs:
            return False
        return all(output.key or self.is_good(path) for path, output in self.outputs.items())

    def keyed(self, path: str) -> Output | None:
        """The output at a path if it is known by a key."""
        output = self.outputs.get(path)
        if output and output.key:
            return output
        return None

    @property
    def bytes_held(self) -> int:
        return sum(len(output.data or b"") for output in self.outputs.values())


_NOTHING = _Answer(())
"""What is known of a job before its remote was asked."""


class JobLinks:
    """The files of a remote's jobs. May be used by several threads: of those that want the same job, one asks.

    ``ask(job)`` asks the remote for the files that its answer holds; ``complete(job, output)`` for the bytes, or the
    link, of a file that is known by its key.
    """

    def __init__(
        self, ask: Callable[[str], Sequence[Output]], notices: Notices, complete: Callable[[str, Output], Output]
    ) -> None:
        self._ask = ask
        self._notices = notices
        self._complete = complete
        self._answers: dict[str, _Answer] = {}
        self._job_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        """Return those of a job's files that ``origin`` means. Raises as ``ask``, and `NotFound` if it means none."""
        with self._lock_of(origin.job):
            answer = self._answers.get(origin.job, _NOTHING)
            if not answer.is_fresh:
                answer = self._asked(origin.job)
        wanted, _ = wanted_by(origin, list(answer.outputs.values()), self._notices)
        files = []
        for output in wanted:
            is_probed = output.size is not None
            url = origin.url_of(output.path)
            files.append(RemoteFile(output.path, url, output.size, output.digest, probed=is_probed))
        return files

    def locate(self, url: str) -> Link | Body:
        """Return where the file of a URL that `JobOrigin.url_of` made is at this moment. Raises as ``ask``, and
        `NotFound` if the file is no longer among the job's outputs."""
        job, path = job_and_path(url)
        with self._lock_of(job):
            answer = self._answers.get(job, _NOTHING)
            if not answer.is_good(path):
                answer = self._renewed(job, path, answer)
            output = answer.outputs.get(path)
            if output is None:
                raise NotFound("the remote's answer does not name this file any more", item=f"{job}/{path}")
            if output.error:
                raise output.error
            answer.use(path)
        self._let_go(job)
        if output.data is not None:
            return Body.of(output.data, output.content_type or "application/octet-stream")
        return Link(output.url, authorized=output.is_stable)

    def _lock_of(self, job: str) -> threading.Lock:
        with self._lock:
            return self._job_locks[job]

    def _renewed(self, job: str, path: str, answer: _Answer) -> _Answer:
        """Return an answer in which the file can be had: a file that is known by its key is asked for alone."""
        if not answer.keyed(path):
            answer = self._asked(job)
        keyed = answer.keyed(path)
        if keyed:
            answer.put(replace(self._complete(job, keyed), path=keyed.path, key=keyed.key))
        return answer

    def _asked(self, job: str) -> _Answer:
        answer = _Answer(self._ask(job))
        with self._lock:
            self._answers.pop(job, None)
            self._answers[job] = answer
        self._let_go(job)
        return answer

    def _let_go(self, newest: str) -> None:
        """Forget the oldest answers with bytes in them, if all together hold too many; they are asked for again."""
        with self._lock:
            held = {job: answer.bytes_held for job, answer in self._answers.items()}
            held.pop(newest, None)
            excess = sum(held.values()) - LARGEST_DOCUMENT
            for job, count in held.items():
                if excess > 0 and count:
                    del self._answers[job]
                    excess -= count
