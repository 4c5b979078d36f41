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
    "OneTrainer's workspace": Case(
        "onetrainer",
        "backup/a-backup-{500-5,1000-10,1500-15}-0/{lora/lora.safetensors,optimizer/optimizer.pt,meta.json} "
        "save/a-save-{500-5,1000-10}-0.safetensors tensorboard/events.out.tfevents.1",
        "a-backup-500-5-0@500 a-backup-1000-10-0@1000 a-backup-1500-15-0@1500* "
        "a-save-500-5-0.safetensors@500 a-save-1000-10-0.safetensors@1000",
        "latest",
        "lora/lora.safetensors optimizer/optimizer.pt meta.json",
        "lora/lora.safetensors meta.json",
    ),
    "OneTrainer: of one step, the model": Case(
        "onetrainer",
        "backup/a-backup-1000-10-0/{lora/lora.safetensors,meta.json} save/a-save-1000-10-0.safetensors a.safetensors",
        "a-backup-1000-10-0@1000 a-save-1000-10-0.safetensors@1000* final",
        "final",
        "a.safetensors",
    ),
    "ML-Agents": Case(
        "ml-agents",
        "configuration.yaml Jump.onnx run_logs/timers.json Jump/Jump-{900,1000}.{onnx,pt} Jump/checkpoint.pt",
        "Jump-900@900 Jump-1000@1000* checkpoint.pt final",
        "latest",
        "Jump-1000.onnx Jump-1000.pt configuration.yaml",
    ),
    "ML-Agents: of two behaviors, none is the latest": Case(
        "ml-agents",
        "configuration.yaml {A,B}.onnx A/{A-900.pt,checkpoint.pt} B/{B-800.pt,checkpoint.pt}",
        "A-900@900 A-checkpoint.pt B-800@800 checkpoint.pt final",
        "final",
        "A.onnx B.onnx configuration.yaml",
    ),
    "fastai": Case(
        "fastai",
        "export.pkl models/{model_9,model_10,bestmodel}.pth",
        "model_9.pth@e9 model_10.pth@e10* bestmodel.pth+ final",
        "final",
        "export.pkl",
        "export.pkl",
    ),
    "a configuration of another trainer's": Case(
        "named",
        "model_config.json model-step-{1000,2000}.safetensors",
        "model-step-1000.safetensors@1000 model-step-2000.safetensors@2000*",
        "1000",
        "model_config.json model-step-1000.safetensors",
    ),
    "an export beside the checkpoints of another trainer": Case(
        "named", "export.pkl epoch_{1,2}.pt", "epoch_1.pt@e1 epoch_2.pt@e2*", "1", "epoch_1.pt"
    ),
    "fastai: stages by the user's own names": Case(
        "fastai", "export.pkl models/stage-{1,2}.pth", "stage-1.pth stage-2.pth final", "stage-2", "stage-2.pth"
    ),
    "RLlib": Case(
        "named",
        "PPO_1/checkpoint_00000{0,1}/{rllib_checkpoint.json,algorithm_state.pkl,policies/p/policy_state.pkl}",
        "checkpoint_000000@0 checkpoint_000001@1*",
        "latest",
        "rllib_checkpoint.json algorithm_state.pkl policies/p/policy_state.pkl",
    ),
    "MLflow: a folder that its marker declares": Case(
        "named",
        "checkpoints/{epoch_1,epoch_2}/{MLmodel,data/model.pth}",
        "epoch_1@e1 epoch_2@e2*",
        "latest",
        "MLmodel data/model.pth",
    ),
    "ms-swift: a merged adapter is no step of its own": Case(
        "peft",
        "checkpoint-{5,10}/{adapter_model.safetensors,adapter_config.json,trainer_state.json} "
        "checkpoint-10-merged/{model.safetensors,config.json}",
        "checkpoint-10-merged@10 checkpoint-5@5 checkpoint-10@10*",
        "10",
        "adapter_model.safetensors adapter_config.json trainer_state.json",
    ),
    "torchtitan: the last step in Hugging Face's format too": Case(
        "named",
        "checkpoint/step-{5,10}/{__0_0.distcp,.metadata} checkpoint/step-10-hf/{model.safetensors,config.json}",
        "step-5@5 step-10@10* step-10-hf@10",
        "latest",
        "__0_0.distcp .metadata",
    ),
    "textual inversion": Case(
        "textual-inversion",
        "learned_embeds-steps-{500,1000}.safetensors learned_embeds.safetensors",
        "learned_embeds-steps-500.safetensors@500 learned_embeds-steps-1000.safetensors@1000 "
        "learned_embeds.safetensors*",
        "1000",
        "learned_embeds-steps-1000.safetensors",
    ),
    "RWKV": Case(
        "rwkv",
        "rwkv-{init,9,10}.pth",
        "rwkv-9.pth@e9 rwkv-10.pth@e10* rwkv-init.pth",
        "latest",
        "rwkv-10.pth",
    ),
    "OLMo: the shards and the merged copy": Case(
        "named",
        "step{9,10}/{model/rank0.pt,optim/rank0.pt,train/rank0.pt} step10-unsharded/model.pt",
        "step9@9 step10@10* step10-unsharded@10",
        "latest",
        "model/rank0.pt optim/rank0.pt train/rank0.pt",
        "model/rank0.pt",
    ),
    "a last file of Lightning that is called latest": Case(
        "lightning",
        "checkpoints/{epoch=0050-score=0.9,epoch=0100-score=0.8,latest}.ckpt",
        "epoch=0050-score=0.9.ckpt@e50 epoch=0100-score=0.8.ckpt@e100 latest.ckpt*",
        "latest",
        "latest.ckpt",
    ),
    "Gaussian splatting": Case(
        "named",
        "chkpnt{7000,30000}.pth cfg_args",
        "chkpnt7000.pth@7000 chkpnt30000.pth@30000*",
        "latest",
        "chkpnt30000.pth",
    ),
    "AutoGluon": Case(
        "model",
        "predictor.pkl learner.pkl models/LightGBM/model.pkl",
        "final*",
        "final",
        "predictor.pkl learner.pkl models/LightGBM/model.pkl",
    ),
    "XGBoost's own file": Case(
        "estimator",
        "model.json features.json",
        "final*",
        "latest",
        "model.json features.json",
        contents={"model.json": '{"learner":{}}'},
    ),
    "LightGBM's own file": Case(
        "estimator",
        "lgbm_model.txt",
        "final*",
        "latest",
        "lgbm_model.txt",
        contents={"lgbm_model.txt": "tree\nversion=v4"},
    ),
    "CleanRL": Case("plain", "run/ppo.cleanrl_model", "final*", "latest", "run/ppo.cleanrl_model"),
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
        "mmengine",
        "epoch_{9,10}.pth best_coco_epoch_9.pth last_checkpoint faster-rcnn.py",
        "best_coco_epoch_9.pth@e9+ epoch_9.pth@e9* epoch_10.pth@e10",
        "best",
        "best_coco_epoch_9.pth faster-rcnn.py",
        contents={"last_checkpoint": "/work_dirs/x/epoch_9.pth"},
    ),
    "a record without the suffix": Case(
        "mmengine",
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
        "paddle",
        "{0,9,best_model,model_final}.{pdparams,pdopt}",
        "0@e0 9@e9 best_model+ model_final*",
        "9",
        "9.pdparams 9.pdopt",
        "9.pdparams",
    ),
    "PaddleOCR": Case(
        "paddle",
        "{iter_epoch_10,best_accuracy,latest}.{pdparams,pdopt,states} config.yml",
        "iter_epoch_10@e10 best_accuracy+ latest*",
        "best",
        "best_accuracy.pdparams best_accuracy.pdopt best_accuracy.states config.yml",
        "best_accuracy.pdparams config.yml",
    ),
    "PaddleNLP": Case(
        "hf-trainer",
        "checkpoint-{500,1000}/{model_state.pdparams,optimizer.pdopt,scheduler.pdparams,trainer_state.json} "
        "checkpoint-{500,1000}/config.json model_state.pdparams config.json",
        "checkpoint-500@500 checkpoint-1000@1000* final",
        "latest",
        "model_state.pdparams optimizer.pdopt scheduler.pdparams trainer_state.json config.json",
        "model_state.pdparams config.json",
    ),
    "PaddleNLP in one format": Case(
        "hf-trainer",
        "checkpoint-500/{model,optimizer,master_weights}-00001-of-00001.safetensors checkpoint-500/trainer_state.json",
        "checkpoint-500@500*",
        "latest",
        "model-00001-of-00001.safetensors optimizer-00001-of-00001.safetensors "
        "master_weights-00001-of-00001.safetensors trainer_state.json",
        "model-00001-of-00001.safetensors",
    ),
    "quoted by a browser": Case(
        "lightning",
        "epoch%3D1-step%3D20.ckpt epoch%3D2-step%3D40.ckpt",
        "epoch%3D1-step%3D20.ckpt@20 epoch%3D2-step%3D40.ckpt@40*",
        "40",
        "epoch%3D2-step%3D40.ckpt",
    ),
    "StyleTTS 2: the second stage counts its epochs anew": Case(
        "styletts2",
        "epoch_1st_000{48,50}.pth epoch_2nd_0000{8,9}.pth first_stage.pth config_ft.yml",
        "epoch_2nd_00008.pth@e8 epoch_2nd_00009.pth@e9* epoch_1st_00048.pth@e48 epoch_1st_00050.pth@e50 "
        "first_stage.pth",
        "latest",
        "epoch_2nd_00009.pth config_ft.yml",
    ),
    "StyleTTS 2 in its first stage": Case(
        "styletts2",
        "epoch_1st_000{08,10}.pth first_stage.pth",
        "epoch_1st_00008.pth@e8 epoch_1st_00010.pth@e10* first_stage.pth",
        "8",
        "epoch_1st_00008.pth",
    ),
    "ParallelWaveGAN": Case(
        "parallel-wavegan",
        "checkpoint-{900,1000}steps.pkl config.yml stats.h5",
        "checkpoint-900steps.pkl@900 checkpoint-1000steps.pkl@1000*",
        "900",
        "checkpoint-900steps.pkl config.yml stats.h5",
        "checkpoint-900steps.pkl config.yml stats.h5",
    ),
    "Tacotron 2 and Flax: no suffix, and the last one is empty": Case(
        "without-suffix",
        "checkpoint_{900,1000,2000}",
        "checkpoint_900@900 checkpoint_1000@1000* checkpoint_2000@2000!",
        "latest",
        "checkpoint_1000",
        "checkpoint_1000",
        contents={"checkpoint_2000": b""},
    ),
    "HiFi-GAN, killed while it saved": Case(
        "hifi-gan",
        "{g,do}_000{05000,10000}",
        "00005000@5000* 00010000@10000!",
        "latest",
        "g_00005000 do_00005000",
        contents={"g_00010000": b"PK\3\4" + bytes(300)},
    ),
    "RVC: its index goes along": Case(
        "vits",
        "{G,D}_2333333.pth config.json added_IVF256_Flat_nprobe_1_v2.index total_fea.npy",
        "2333333@2333333*",
        "latest",
        "G_2333333.pth D_2333333.pth config.json added_IVF256_Flat_nprobe_1_v2.index",
    ),
    "EDM: the state of the training is no model": Case(
        "stylegan",
        "{network-snapshot-00{1000,2000}.pkl,training-state-00{1000,2000}.pt} training_options.json",
        "network-snapshot-001000.pkl@1000 network-snapshot-002000.pkl@2000*",
        "latest",
        "network-snapshot-002000.pkl training_options.json",
    ),
    "guided-diffusion": Case(
        "guided-diffusion",
        "{model,opt,ema_0.9999_}0{10000,20000}.pt",
        "010000@10000 020000@20000*",
        "latest",
        "model020000.pt opt020000.pt ema_0.9999_020000.pt",
        "model020000.pt ema_0.9999_020000.pt",
    ),
    "DiT": Case(
        "dit",
        "checkpoints/00{50000,60000}.pt log.txt",
        "0050000.pt@50000 0060000.pt@60000*",
        "50000",
        "0050000.pt",
    ),
    "RF-DETR: of three best files the total counts": Case(
        "rf-detr",
        "checkpoint000{5,9}.pth checkpoint.pth checkpoint_best_{ema,regular,total}.pth",
        "checkpoint0005.pth@e5 checkpoint0009.pth@e9 checkpoint_best_total.pth+ checkpoint_best_regular.pth "
        "checkpoint.pth* checkpoint_best_ema.pth",
        "best",
        "checkpoint_best_total.pth",
    ),
    "diffusion-pipe, killed by a power cut": Case(
        "named",
        "epoch{418,420,422}/adapter_model.safetensors config.toml",
        "epoch418@e418* epoch420@e420! epoch422@e422!",
        "latest",
        "adapter_model.safetensors config.toml",
        contents={"epoch420/adapter_model.safetensors": "", "epoch422/adapter_model.safetensors": ""},
    ),
    "DCGAN": Case(
        "dcgan",
        "net{G,D}_epoch_{9,10}.pth",
        "9@e9 10@e10*",
        "9",
        "netG_epoch_9.pth netD_epoch_9.pth",
        "netG_epoch_9.pth",
    ),
    "DETR: the last file has no number": Case(
        "named",
        "checkpoint0{099,199}.pth checkpoint.pth",
        "checkpoint0099.pth@99 checkpoint0199.pth@199 checkpoint.pth*",
        "latest",
        "checkpoint.pth",
    ),
    "torch's example of ImageNet": Case(
        "named",
        "checkpoint.pth.tar model_best.pth.tar",
        "model_best.pth.tar+ checkpoint.pth.tar*",
        "best",
        "model_best.pth.tar",
    ),
    "torchvision's reference scripts": Case(
        "torchvision",
        "model_{9,10}.pth checkpoint.pth",
        "model_9.pth@e9 model_10.pth@e10 checkpoint.pth*",
        "9",
        "model_9.pth",
    ),
    "YOLOv7": Case(
        "ultralytics",
        "weights/{best,best_200,init,last,epoch_024,epoch_049}.pt opt.yaml",
        "epoch_024.pt@e24 epoch_049.pt@e49 best.pt+ last.pt* best_200.pt init.pt",
        "49",
        "weights/epoch_049.pt opt.yaml",
    ),
    "YOLOX: of several last files the one called latest counts": Case(
        "named",
        "epoch_{9,10}_ckpt.pth {best,last_epoch,latest}_ckpt.pth",
        "epoch_9_ckpt.pth@e9 epoch_10_ckpt.pth@e10 best_ckpt.pth+ last_epoch_ckpt.pth latest_ckpt.pth*",
        "latest",
        "latest_ckpt.pth",
    ),
    "Joey NMT: files with a bare number are no finished model": Case(
        "named",
        "{900,1000,best,latest}.ckpt config.yaml src_vocab.txt",
        "best.ckpt+ latest.ckpt* 1000.ckpt 900.ckpt",
        "latest",
        "latest.ckpt config.yaml src_vocab.txt",
    ),
    "llm.c": Case(
        "named",
        "model_000{10000,19552}.bin state_000{10000,19552}_00000.bin",
        "model_00010000.bin@10000 model_00019552.bin@19552*",
        "latest",
        "model_00019552.bin",
    ),
    "DiffSinger": Case(
        "named",
        "model_ckpt_steps_{900,1000}.ckpt config.yaml dictionary.txt spk_map.json",
        "model_ckpt_steps_900.ckpt@900 model_ckpt_steps_1000.ckpt@1000*",
        "latest",
        "model_ckpt_steps_1000.ckpt config.yaml dictionary.txt spk_map.json",
    ),
    "Lightning: a best with a number, and averages beside their checkpoints": Case(
        "lightning",
        "epoch={1-step=10,1-step=10-EMA,2-step=20,2-step=20-EMA}.ckpt best-epoch=1-val_loss=0.20.ckpt",
        "best-epoch=1-val_loss=0.20.ckpt@e1+ epoch=1-step=10.ckpt@10 epoch=1-step=10-EMA.ckpt@10 "
        "epoch=2-step=20.ckpt@20* epoch=2-step=20-EMA.ckpt@20",
        "best",
        "best-epoch=1-val_loss=0.20.ckpt",
    ),
    "Lightning's only best has a version": Case(
        "lightning", "best-v1.ckpt last.ckpt", "best-v1.ckpt+ last.ckpt*", "best", "best-v1.ckpt"
    ),
    "torch's distributed checkpoints": Case(
        "named",
        "checkpoint/step-{5,50}/{__0_0.distcp,__1_0.distcp,.metadata} checkpoint/step-100/__0_0.distcp",
        "step-5@5 step-50@50* step-100@100!",
        "latest",
        "__0_0.distcp __1_0.distcp .metadata",
    ),
    "fairseq2: weights in folders of the checkpoint": Case(
        "named",
        "checkpoints/step_{900,1000}/{model/pp_00/tp_00/sdp_00.pt,optimizer/rank_00.pt}",
        "step_900@900 step_1000@1000*",
        "900",
        "model/pp_00/tp_00/sdp_00.pt optimizer/rank_00.pt",
    ),
    "verl: a rank's part is missing": Case(
        "verl",
        "global_step_{9,10}/{actor/model_world_size_2_rank_{0,1}.pt,actor/huggingface/config.json,data.pt} "
        "global_step_11/actor/model_world_size_2_rank_0.pt",
        "global_step_9@9 global_step_10@10* global_step_11@11!",
        "9",
        "actor/model_world_size_2_rank_0.pt actor/model_world_size_2_rank_1.pt actor/huggingface/config.json data.pt",
    ),
    "nanotron": Case(
        "nanotron",
        "{900,1000}/{model/w.safetensors,optimizer/o.pt,random/r.pt,checkpoint_metadata.json} latest.txt",
        "900@900* 1000@1000",
        "latest",
        "model/w.safetensors optimizer/o.pt random/r.pt checkpoint_metadata.json",
        "model/w.safetensors checkpoint_metadata.json",
        {"latest.txt": "900"},
    ),
    "diffusion-pipe: 'latest' names DeepSpeed's state": Case(
        "diffusion-pipe",
        "epoch{9,10}/adapter_model.safetensors global_step{90,100}/mp_rank_00_model_states.pt latest",
        "epoch9@e9 epoch10@e10* global_step90@90 global_step100@100",
        "latest",
        "adapter_model.safetensors",
        contents={"latest": "global_step100"},
    ),
    "xtuner": Case(
        "deepspeed",
        "iter_{500,1000}.pth/{mp_rank_00_model_states.pt,bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt}",
        "iter_500.pth@500 iter_1000.pth@1000*",
        "latest",
        "mp_rank_00_model_states.pt bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "mp_rank_00_model_states.pt",
    ),
    "torchtune: one shard needs no index": Case(
        "named",
        "epoch_{0,1}/ft-model-00001-of-00001.safetensors",
        "epoch_0@e0 epoch_1@e1*",
        "latest",
        "ft-model-00001-of-00001.safetensors",
    ),
    "LeRobot": Case(
        "lerobot",
        "checkpoints/{005000,010000}/{pretrained_model/{model.safetensors,config.json},training_state/optimizer_state.safetensors}",
        "005000@5000 010000@10000*",
        "latest",
        "pretrained_model/model.safetensors pretrained_model/config.json training_state/optimizer_state.safetensors",
        "pretrained_model/model.safetensors pretrained_model/config.json",
    ),
    "RSL-RL": Case(
        "rsl-rl",
        "model_{0,50,1000}.pt params/{agent,env}.yaml",
        "model_0.pt@0 model_50.pt@50 model_1000.pt@1000*",
        "50",
        "model_50.pt agent.yaml env.yaml",
    ),
    "rl_games": Case(
        "rl-games",
        "nn/{Ant,last_Ant_ep_500_rew_9.5,last_Ant_ep_1000_rew_1.5}.pth",
        "last_Ant_ep_500_rew_9.5.pth@e500 last_Ant_ep_1000_rew_1.5.pth@e1000* Ant.pth+",
        "best",
        "Ant.pth",
    ),
    "skrl": Case(
        "skrl",
        "checkpoints/{agent_900,agent_1000,best_agent}.pt params/agent.yaml",
        "agent_900.pt@900 agent_1000.pt@1000* best_agent.pt+",
        "latest",
        "agent_1000.pt agent.yaml",
    ),
    "stable-baselines3: the finished policy": Case(
        "stable-baselines3",
        "{rl_model_900_steps,best_model,CartPole-v1}.zip",
        "rl_model_900_steps.zip@900 best_model.zip+ CartPole-v1.zip*",
        "latest",
        "CartPole-v1.zip",
    ),
    "TensorFlow's object detection": Case(
        "tensorflow",
        "ckpt-{9,10}.{index,data-00000-of-00001} pipeline.config",
        "ckpt-9@9 ckpt-10@10*",
        "9",
        "ckpt-9.index ckpt-9.data-00000-of-00001 pipeline.config",
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
