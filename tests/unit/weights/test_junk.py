"""Junk and logs are told by their names, and nothing of a model is taken for either."""

from __future__ import annotations

from mdl.weights.junk import is_log, why_junk, why_junk_path
from mdl.weights.known_formats import is_weights

JUNK = """
    .nfs0001 .nfs00000000049c0d5d00000a3f .fuse_hidden0000000100000002 ._model.safetensors ._x .DS_Store .AppleDouble
    .Spotlight-V100 .Trashes .fseventsd __MACOSX .TemporaryItems .apdisk @eaDir #recycle @Recycle .@__thumb #snapshot
    .snapshot @tmp a.bin@SynoEAStream Thumbs.db desktop.ini $RECYCLE.BIN .directory .Trash-1000 .goutputstream-A1B2C3
    w.safetensors:Zone.Identifier lost+found FOUND.000 FILE0001.CHK .w.yaml.swp .#a.py #a.py# config.json~ .idea .vscode
    .~lock.x.ods# optimizer.pt.1a2b3c4d.partial model.safetensors.6eF5b5dA w.pt_.gstmp
    .azDownload-1f-w.pt w.pt.lftp-pget-status model.safetensors.incomplete model.safetensors.crdownload
    .model.safetensors.Xy12Ab .~tmp~ __pycache__ a.pyc .x.zip.0-1-2.mdl-tmp run.pid .stfolder .dropbox .localized
"""
LOGS = """
    train.log train.log.1 train.log.gz train.log.2024-05-01 log.txt train_log.txt logs.txt trainer_log.jsonl nohup.out
    slurm-123.out slurm-123_4.out slurm-123.err job.out job.err 123_0_log.out 123_0_log.err train.o12345 train.e12345
    train.o12345.7 train.pe12345 lsf.12 stdout stderr stdout.txt stderr.txt out.txt std_out.txt typescript screenlog.0
    events.out.tfevents.1.host progress.json metrics.csv loss.jsonl worker.out.1 output.4711 error.4711 x.stdout
    stdout.log rank0.stderr nohup.err
"""
MODELS_OWN = """
    model.safetensors model.safetensors.index.json config.json pytorch_model.bin epoch_1.pt G_100.pth model.o1 net.e10
    tokens.txt vocab.txt merges.txt lexicon.txt phones.txt tokenizer.model hparams.yaml results.csv vocab.json README.md
    dialog.txt catalog.txt prologue.txt blog.md logits.npy log_mel.npy logistic.bin output.safetensors error.pt out.bin
    output.json stdout.bin core.py 4913 500 checkpoint-500 layout.txt snapshots hidden tmp model a.tmpl .gitattributes
    x.part1.rar .model.safetensors .config.json stats.h5 events.json in.out.pt
"""


def test_junk_and_logs() -> None:
    """Each name of the lists is what its list says, and none of a model's own is either."""
    assert [name for name in JUNK.split() if why_junk(name) is None] == []
    assert [name for name in LOGS.split() if not is_log(name)] == []
    assert [name for name in MODELS_OWN.split() if why_junk(name) or is_log(name)] == []
    assert [name for name in LOGS.split() if why_junk(name)] == []
    assert why_junk("Icon\r") == "macOS's own"


def test_junk_is_never_weights() -> None:
    """Whatever suffix it has; and what lies in a junk folder is junk."""
    assert not any(map(is_weights, (*JUNK.split(), *LOGS.split(), ".nfs0001.pt", "a/._b.safetensors")))
    paths = ("a/._b.safetensors", "__MACOSX/b.safetensors", "d/@eaDir/b.bin", "lost+found/x")
    assert [path for path in paths if why_junk_path(path) is None] == []
    assert why_junk_path("a/b.safetensors") is None
