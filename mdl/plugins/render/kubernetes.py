"""k8s: Kubernetes manifests in two shapes: a Job that fills a volume which many pods read, and a DaemonSet that fills
the disk of every node. Pure.

Everything that is pinned is in a ConfigMap whose name has its digest, so that a new lock rolls the DaemonSet. A Job
cannot be changed: its name has a digest of all that it says.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from textwrap import indent

from mdl.errors import NOT_WORTH_RETRYING, WORTH_RETRYING, UsageError
from mdl.plugins.render.work import RenderedFile, Work, meaning

_STOPPED = (75, 143)
"""How a run ends that was stopped by its time limit or with its pod; these do not count as failures."""
_COUNTED = tuple(code for code in WORTH_RETRYING if code not in _STOPPED)
_OWN = ("MDL_CATALOG", "MDL_HOME", "HF_TOKEN", "HF_TOKEN_PATH")
"""Variables that a pod has already, or takes from a secret."""
_MOST_AT_ONCE = 4
_LARGEST_MAP = 2**20 - 2**12
_USUAL_NODE_FOLDER = "/var/lib/mdl/models"
_CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {config}
  labels: {{app.kubernetes.io/name: mdl}}
immutable: true
data:
  catalog.toml: |
{catalog}
  mdl.lock: |
{lock}
"""
_JOB = """\
# Made by 'mdl render k8s'. A Job downloads each model once, into the volume of the claim {claim}, which must be
# ReadWriteMany if pods on several nodes are to read it. To start it: kubectl apply --server-side -f FILE
{config_map}---
apiVersion: batch/v1
kind: Job
metadata:
  name: {job}
  labels: {{app.kubernetes.io/name: mdl}}
spec:
  completionMode: Indexed
  completions: {count}
  parallelism: {at_once}
  backoffLimitPerIndex: 6
  ttlSecondsAfterFinished: 86400
  podFailurePolicy:
    rules:
      # The pod was evicted, or its node drained
      - action: Ignore
        onPodConditions: [{{type: DisruptionTarget, status: "True"}}]
      # {stopped_meaning}: it goes on
      - action: Ignore
        onExitCodes: {{containerName: mdl, operator: In, values: {stopped}}}
      # {final_meaning}: trying this model again would not help; the others continue
      - action: FailIndex
        onExitCodes: {{containerName: mdl, operator: In, values: {final}}}
      # {counted_meaning}: again, a few times
      - action: Count
        onExitCodes: {{containerName: mdl, operator: In, values: {counted}}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: mdl}}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 60
{pod}
      containers:
        # Each index is one model: the shell passes over those before it
        - name: mdl
          command: ["/bin/sh", "-c", {script}, "mdl", {names}]
{container}
      volumes:
        - name: models
          persistentVolumeClaim: {{claimName: {claim_text}}}
{volumes}
"""
_DAEMON_SET = """\
# Made by 'mdl render k8s --shape daemonset'. Every node has the models on its own disk, in {folder}.
# That folder must exist and belong to user 1000: install -d -o 1000 -g 1000 {folder_word}
# To start it: kubectl apply --server-side -f FILE. There is one in a namespace: name all models of its nodes together.
# Pods that read them wait for the file mdl.ready in it, which exists only while all files are there.
{config_map}---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: mdl-models
  labels: {{app.kubernetes.io/name: mdl}}
spec:
  selector:
    matchLabels: {{app.kubernetes.io/name: mdl, app.kubernetes.io/component: node-models}}
  updateStrategy:
    rollingUpdate: {{maxUnavailable: 10%}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: mdl, app.kubernetes.io/component: node-models}}
    spec:
      terminationGracePeriodSeconds: 60
{pod}
      initContainers:
        # The kubelet starts it again, after longer and longer pauses, until it has succeeded
        - name: mdl
          command: [{words}]
{container}
      containers:
        - name: ready
          command: ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
          readinessProbe:
            exec: {{command: ["test", "-f", "/models/mdl.ready"]}}
            periodSeconds: 30
{waiting}
      volumes:
        - name: models
          hostPath: {{path: {folder_text}, type: Directory}}
{volumes}
"""
_POD = """\
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
"""
_CONTAINER = """\
image: %(image)s
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources:
  requests: {cpu: %(cpu)s, memory: %(memory)s}
  limits: {memory: %(limit)s}
volumeMounts:
  - {name: models, mountPath: /models}
"""
_MDL = """\
  - {name: config, mountPath: /etc/mdl, readOnly: true}
  - {name: scratch, mountPath: /tmp}
env:
  - {name: MDL_CATALOG, value: /etc/mdl/catalog.toml}
  - {name: MDL_HOME, value: /models}
  - {name: HOME, value: /tmp}
  - name: HF_TOKEN
    valueFrom:
      secretKeyRef: {name: %(secret)s, key: %(key)s, optional: true}
"""
_VOLUMES = """\
- name: config
  configMap: {name: %s}
- name: scratch
  emptyDir: {sizeLimit: 256Mi}
"""


def render(work: Work) -> tuple[RenderedFile, ...]:
    """A ConfigMap, and a Job or a DaemonSet. Raises `UsageError` if catalog and lock are too large for a ConfigMap."""
    pinned = work.catalog_text + work.lock_text
    config = f"mdl-models-{_digest(pinned)}"
    if len(pinned.encode()) > _LARGEST_MAP:
        why = "the entries and the lock of these models are larger than a ConfigMap may be (1 MiB)"
        raise UsageError(why, hint="render fewer models at a time")
    name, _, key = work.secret.partition("/")
    secret = {"secret": _text(name), "key": _text(key or "token")}
    lines = [_variable(key, value) for key, value in work.variables.items() if value]
    lines += work.shell_comments(_variable, but=_OWN)
    variables = "".join(f"  {line}\n" for line in lines)
    main = {"image": _text(work.image), "cpu": "500m", "memory": "512Mi", "limit": "2Gi"}
    facts = {
        "config": config,
        "config_map": _CONFIG.format(config=config, catalog=_block(work.catalog_text), lock=_block(work.lock_text)),
        "pod": _at(6, _POD),
        "container": _at(10, _CONTAINER % main + _MDL % secret + variables),
        "volumes": _at(8, _VOLUMES % config),
    }
    if work.shape == "daemonset":
        words = [*work.command("get", "--ready-file", "/models/mdl.ready")]
        waiting = _CONTAINER.replace("/models}", "/models, readOnly: true}") % (
            main | {"cpu": "1m", "memory": "16Mi", "limit": "32Mi"}
        )
        folder = work.home or _USUAL_NODE_FOLDER
        text = _DAEMON_SET.format(
            words=_texts(words),
            folder=folder,
            folder_word=shlex.quote(folder),
            folder_text=_text(folder),
            waiting=_at(10, waiting),
            **facts,
        )
        return (RenderedFile("mdl-daemonset.yaml", text),)
    flags = shlex.join(["get", "--locked", *work.limits])
    text = _JOB.format(
        job=f"mdl-get-{_digest(f'{pinned}{work}')}",
        script=_text(f'shift "$JOB_COMPLETION_INDEX"; exec mdl {flags} "$1"'),
        names=_texts(work.names),
        count=len(work.names),
        at_once=min(len(work.names), _MOST_AT_ONCE),
        claim=work.claim,
        claim_text=_text(work.claim),
        stopped=list(_STOPPED),
        stopped_meaning=meaning(_STOPPED),
        final=list(NOT_WORTH_RETRYING),
        final_meaning=meaning(NOT_WORTH_RETRYING),
        counted=list(_COUNTED),
        counted_meaning=meaning(_COUNTED),
        **facts,
    )
    return (RenderedFile("mdl-job.yaml", text),)


def _variable(name: str, value: str) -> str:
    return f"- {{name: {name}, value: {_text(value)}}}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _text(text: str) -> str:
    """A text as YAML has it: JSON is YAML. Kubernetes would put the value of a variable in the place of ``$(NAME)``."""
    return json.dumps(text.replace("$(", "$$("), ensure_ascii=False)


def _texts(words: Sequence[str]) -> str:
    return ", ".join(map(_text, words))


def _at(columns: int, text: str) -> str:
    return indent(text, " " * columns).rstrip("\n")


def _block(text: str) -> str:
    return _at(4, text)
