"""What trainers really write: for each, the checkpoints, the latest, the best, and what is packed of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.packing import names, planned
from support.runs import rows, write
from support.weights import stable_baselines_zip

from mdl.runs import find_run
from mdl.runs.checkpoint import Found

ZIP = stable_baselines_zip()


@dataclass
class Case:
    """``rows`` as in `support.runs.rows`. ``of`` is chosen with --checkpoint; ``packed`` are the files that go along,
    ``inference`` those with --inference-only ("" if that is not asked)."""

    layout: str
    files: str
    rows: str
    of: str
    packed: str
    inference: str = ""
    contents: Mapping[str, object] = field(default_factory=dict)


CASES = {
    "VITS": Case(
        "vits",
        "{G,D}_{800,1600}.pth config.json train.log",
        "800@800 1600@1600*",
        "800",
        "G_800.pth D_800.pth config.json",
        "G_800.pth config.json",
    ),
    "Bert-VITS2": Case(
        "vits",
        "{G,D,DUR,WD}_{0,1000}.pth config.json",
        "0@0 1000@1000*",
        "latest",
        "G_1000.pth D_1000.pth DUR_1000.pth WD_1000.pth config.json",
        "G_1000.pth config.json",
    ),
    "GPT-SoVITS": Case(
        "named", "name_{e4_s100,e8_s200}.pth", "name_e4_s100.pth@100 name_e8_s200.pth@200*", "8", "name_e8_s200.pth"
    ),
    "GPT-SoVITS' text model": Case(
        "named", "name-e{5,15}.ckpt", "name-e5.ckpt@e5 name-e15.ckpt@e15*", "15", "name-e15.ckpt"
    ),
    "HiFi-GAN": Case(
        "hifi-gan",
        "{g,do}_000{05000,10000} config.json",
        "00005000@5000 00010000@10000*",
        "5000",
        "g_00005000 do_00005000 config.json",
        "g_00005000 config.json",
    ),
    "F5-TTS": Case(
        "f5-tts",
        "model_{1000,2000,last}.pt vocab.txt",
        "model_1000.pt@1000 model_2000.pt@2000 model_last.pt*",
        "2000",
        "model_2000.pt vocab.txt",
    ),
    "ESPnet": Case(
        "espnet",
        "{9,10}epoch.pth valid.acc.{best,ave_10best,ave}.pth checkpoint.pth config.yaml",
        "9epoch.pth@e9 10epoch.pth@e10* valid.acc.best.pth+ valid.acc.ave.pth valid.acc.ave_10best.pth",
        "best",
        "valid.acc.best.pth config.yaml",
    ),
    "ESPnet 1": Case(
        "espnet1",
        "snapshot.ep.{9,10} model.acc.best model.loss.best model.json",
        "snapshot.ep.9@e9 snapshot.ep.10@e10* model.acc.best model.loss.best",
        "latest",
        "snapshot.ep.10 model.json",
    ),
    "WeNet": Case(
        "wenet",
        "epoch_{9,10}.{pt,yaml} avg_5.pt init.pt train.yaml",
        "epoch_9.pt@e9 epoch_10.pt@e10* avg_5.pt init.pt",
        "avg_5",
        "avg_5.pt train.yaml epoch_9.yaml epoch_10.yaml",
    ),
    "icefall": Case(
        "named",
        "epoch-{29,30}.pt best-train-loss.pt best-valid-loss.pt epoch-30-avg-9.pt",
        "epoch-29.pt@e29 epoch-30.pt@e30* epoch-30-avg-9.pt@e30 best-train-loss.pt best-valid-loss.pt",
        "30",
        "epoch-30.pt",
    ),
    "SpeechBrain": Case(
        "speechbrain",
        "CKPT+2024-01-0{1,2}+00/{model.ckpt,optimizer.ckpt,counter.ckpt,CKPT.yaml}",
        "CKPT+2024-01-02+00@e2 CKPT+2024-01-01+00@e3*",
        "latest",
        "model.ckpt optimizer.ckpt counter.ckpt CKPT.yaml",
        "model.ckpt counter.ckpt CKPT.yaml",
        {"CKPT+2024-01-01+00/counter.ckpt": "3", "CKPT+2024-01-02+00/counter.ckpt": "2"},
    ),
    "mlx-lm": Case(
        "mlx",
        "0000{100,200}_adapters.safetensors adapters.safetensors adapter_config.json",
        "0000100_adapters.safetensors@100 0000200_adapters.safetensors@200 adapters.safetensors*",
        "latest",
        "adapters.safetensors adapter_config.json",
    ),
    "OneTrainer": Case(
        "onetrainer",
        "2024-05-01_10-00-00-save-{90-1-0,1000-10-0}.safetensors",
        "2024-05-01_10-00-00-save-90-1-0.safetensors@90 2024-05-01_10-00-00-save-1000-10-0.safetensors@1000*",
        "1000",
        "2024-05-01_10-00-00-save-1000-10-0.safetensors",
    ),
    "Megatron: the tracker outranks the greatest number": Case(
        "megatron",
        "iter_000{1000,2000,3000}/mp_rank_00/model_optim_rng.pt latest_checkpointed_iteration.txt",
        "iter_0001000@1000 iter_0002000@2000* iter_0003000@3000",
        "latest",
        "mp_rank_00/model_optim_rng.pt",
        contents={"latest_checkpointed_iteration.txt": "2000\n"},
    ),
    "Megatron without its tracker": Case(
        "megatron",
        "iter_000{1000,2000}/{__0_0.distcp,.metadata,common.pt}",
        "iter_0001000@1000 iter_0002000@2000*",
        "2000",
        "__0_0.distcp .metadata common.pt",
    ),
    "mmengine: its record names the latest": Case(
        "named",
        "epoch_{9,10}.pth best_coco_epoch_9.pth last_checkpoint",
        "best_coco_epoch_9.pth@e9+ epoch_9.pth@e9* epoch_10.pth@e10",
        "best",
        "best_coco_epoch_9.pth",
        contents={"last_checkpoint": "/work_dirs/x/epoch_9.pth"},
    ),
    "a record without the suffix": Case(
        "named",
        "epoch_{9,10}.pth last_checkpoint",
        "epoch_9.pth@e9* epoch_10.pth@e10",
        "9",
        "epoch_9.pth",
        contents={"last_checkpoint": "epoch_9"},
    ),
    "timm": Case(
        "named",
        "checkpoint-{9,10}.pth.tar model_best.pth.tar last.pth.tar",
        "checkpoint-9.pth.tar@9 checkpoint-10.pth.tar@10 model_best.pth.tar+ last.pth.tar*",
        "model_best",
        "model_best.pth.tar",
    ),
    ".pth.tar": Case("named", "epoch_{1,2}.pth.tar", "epoch_1.pth.tar@e1 epoch_2.pth.tar@e2*", "1", "epoch_1.pth.tar"),
    "composer": Case("named", "ep{1-ba100,2-ba200}.pt", "ep1-ba100.pt@100 ep2-ba200.pt@200*", "200", "ep2-ba200.pt"),
    "composer, one file a rank": Case(
        "named",
        "ep{1-ba100,2-ba200}-rank{0,1,10}.pt latest-rank{0,1,10}.pt",
        "ep1-ba100.pt@100 ep2-ba200.pt@200 latest.pt*",
        "200",
        "ep2-ba200-rank0.pt ep2-ba200-rank1.pt ep2-ba200-rank10.pt",
        "ep2-ba200-rank0.pt ep2-ba200-rank1.pt ep2-ba200-rank10.pt",
    ),
    "composer, only the first rank": Case(
        "named",
        "ep{1-ba100,2-ba200}-rank0.pt",
        "ep1-ba100-rank0.pt@100 ep2-ba200-rank0.pt@200*",
        "ep2-ba200-rank0",
        "ep2-ba200-rank0.pt",
    ),
    "composer, cut short": Case(
        "named",
        "ep1-ba100-rank{0,1}.pt ep2-ba200-rank0.pt",
        "ep1-ba100.pt@100* ep2-ba200-rank0.pt@200!",
        "latest",
        "ep1-ba100-rank0.pt ep1-ba100-rank1.pt",
    ),
    "ranks and parts of any trainer": Case(
        "named",
        "step-{5,50}-model_part-{0,1}-shard{0,1}.pth",
        "step-5.pth@5 step-50.pth@50*",
        "5",
        "step-5-model_part-0-shard0.pth step-5-model_part-0-shard1.pth step-5-model_part-1-shard0.pth "
        "step-5-model_part-1-shard1.pth",
    ),
    "fairseq in shards": Case(
        "fairseq",
        "checkpoint{1,2,_last}-shard{0,1}.pt",
        "checkpoint1.pt@e1 checkpoint2.pt@e2 checkpoint_last.pt*",
        "2",
        "checkpoint2-shard0.pt checkpoint2-shard1.pt",
    ),
    "nnU-Net": Case(
        "nnunet",
        "fold_{0,1}/checkpoint_{best,final}.pth plans.json dataset.json",
        "checkpoint_best.pth+ checkpoint_final.pth*",
        "latest",
        "fold_0/checkpoint_final.pth fold_1/checkpoint_final.pth plans.json dataset.json",
    ),
    "nnU-Net, while it trains": Case(
        "nnunet",
        "fold_{0,1}/checkpoint_best.pth fold_0/checkpoint_final.pth fold_1/checkpoint_latest.pth plans.json",
        "checkpoint_best.pth+ checkpoint_latest.pth* checkpoint_final.pth!",
        "best",
        "fold_0/checkpoint_best.pth fold_1/checkpoint_best.pth plans.json",
    ),
    "darknet": Case(
        "darknet",
        "yolov3_{1000,2000,last,best,final}.weights yolov3.cfg",
        "yolov3_1000.weights@1000 yolov3_2000.weights@2000 yolov3_best.weights+ yolov3_last.weights "
        "yolov3_final.weights*",
        "best",
        "yolov3_best.weights yolov3.cfg",
    ),
    "CycleGAN": Case(
        "cyclegan",
        "{5,10,latest}_net_{G_A,D_A}.pth train_opt.txt",
        "5@e5 10@e10 latest*",
        "10",
        "10_net_G_A.pth 10_net_D_A.pth train_opt.txt",
    ),
    "BasicSR": Case(
        "basicsr",
        "net_{g,d}_{5000,latest}.pth",
        "5000@5000 latest*",
        "5000",
        "net_g_5000.pth net_d_5000.pth",
        "net_g_5000.pth",
    ),
    "StyleGAN": Case(
        "stylegan",
        "network-snapshot-000{400,800}.pkl training_options.json",
        "network-snapshot-000400.pkl@400 network-snapshot-000800.pkl@800*",
        "800",
        "network-snapshot-000800.pkl training_options.json",
        "network-snapshot-000800.pkl training_options.json",
    ),
    "stable-baselines3": Case(
        "stable-baselines3",
        "rl_model_{900,10000}_steps.zip best_model.zip data.zip",
        "rl_model_900_steps.zip@900 rl_model_10000_steps.zip@10000* best_model.zip+",
        "900",
        "rl_model_900_steps.zip",
        "rl_model_900_steps.zip",
        {
            **{f"{name}.zip": ZIP for name in ("rl_model_900_steps", "rl_model_10000_steps", "best_model")},
            "data.zip": b"PK\x05\x06" + bytes(18),
        },
    ),
    "spaCy": Case(
        "spacy",
        "model-{best,last}/{meta.json,config.cfg,ner/model,vocab/strings.json}",
        "model-best+ model-last*",
        "best",
        "meta.json config.cfg ner/model vocab/strings.json",
        "meta.json config.cfg ner/model vocab/strings.json",
    ),
    "orbax": Case(
        "orbax",
        "{9,10}/_CHECKPOINT_METADATA {9,10}/default/{manifest.ocdbt,d/0a1b} "
        "11.orbax-checkpoint-tmp-123/default/manifest.ocdbt",
        "9@9 10@10* 11.orbax-checkpoint-tmp-123!",
        "10",
        "_CHECKPOINT_METADATA default/manifest.ocdbt default/d/0a1b",
    ),
    "AllenNLP": Case(
        "allennlp",
        "{model,training}_state_epoch_{9,10}.th best.th config.json",
        "model_state_epoch_9.th@e9 model_state_epoch_10.th@e10* best.th+",
        "best",
        "best.th config.json",
    ),
    "AudioCraft": Case(
        "audiocraft",
        "checkpoint_{9,10}.th checkpoint.th",
        "checkpoint_9.th@e9 checkpoint_10.th@e10 checkpoint.th*",
        "10",
        "checkpoint_10.th",
    ),
    "Keras' HDF5": Case(
        "keras",
        "weights.0{1,2}-0.{34,21}.hdf5",
        "weights.01-0.21.hdf5@e1 weights.01-0.34.hdf5@e1 weights.02-0.21.hdf5@e2 weights.02-0.34.hdf5@e2",
        "weights.02-0.21",
        "weights.02-0.21.hdf5",
    ),
    "Paddle": Case(
        "named",
        "epoch_{1,2}.pdparams epoch_2.pdopt",
        "epoch_1.pdparams@e1 epoch_2.pdparams@e2*",
        "2",
        "epoch_2.pdparams",
    ),
    "quoted by a browser": Case(
        "lightning",
        "epoch%3D1-step%3D20.ckpt epoch%3D2-step%3D40.ckpt",
        "epoch%3D1-step%3D20.ckpt@20 epoch%3D2-step%3D40.ckpt@40*",
        "40",
        "epoch%3D2-step%3D40.ckpt",
    ),
    "an epoch before its word": Case("named", "{9,10}_epoch.pt", "9_epoch.pt@e9 10_epoch.pt@e10*", "10", "10_epoch.pt"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_field_layouts(tmp_path: Path, case: Case) -> None:
    """The rows, the latest and the best are the trainer's; one checkpoint is packed with what belongs to it."""
    run = write(tmp_path / "run", case.files, case.contents)
    for age, file in enumerate(sorted(path for path in run.rglob("*") if path.is_file())):
        os.utime(file, (2_000_000_000 - age * 1000,) * 2)
    seen = find_run(run)
    assert (seen.layout, rows(Found(seen.checkpoints))) == (case.layout, case.rows), seen.latest_note
    assert names(planned(run, case.of)) == set(case.packed.split())
    if case.inference:
        assert names(planned(run, case.of, inference_only=True)) == set(case.inference.split())
