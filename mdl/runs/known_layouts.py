"""The table of layouts: one row for each way in which trainers lay out what they save. The rows stand in
`mdl.runs.trainers`, a file for each sort of training.

A row tells which names are checkpoints, which of them is the last and which the best, what belongs beside them, and
what inference needs. What names cannot tell is a function beside its row. The list in docs/trained-runs.md is held
against this table.
"""

from __future__ import annotations

from mdl.runs.layout import Layout
from mdl.runs.trainers import (
    adapters,
    any_trainer,
    frameworks,
    hugging_face,
    large_models,
    lightning,
    pictures,
    robots,
    speech,
)

LAYOUTS: tuple[Layout, ...] = (
    hugging_face.TEXTUAL_INVERSION,
    hugging_face.DIFFUSERS,
    hugging_face.HF_RUN,
    lightning.NEMO,
    speech.SPEECHBRAIN,
    pictures.NNUNET,
    lightning.LIGHTNING,
    pictures.ULTRALYTICS,
    speech.COQUI,
    speech.VITS,
    speech.HIFIGAN,
    speech.F5_TTS,
    speech.STYLETTS2,
    speech.PARALLEL_WAVEGAN,
    speech.ESPNET,
    speech.ESPNET1,
    speech.FAIRSEQ,
    adapters.MLX,
    hugging_face.HF_MODEL,
    large_models.MEGATRON,
    large_models.DIFFUSION_PIPE,
    large_models.DEEPSPEED,
    large_models.FSDP,
    large_models.VERL,
    large_models.RWKV,
    large_models.NANOTRON,
    robots.LEROBOT,
    pictures.STYLEGAN,
    adapters.ONE_TRAINER,
    adapters.AI_TOOLKIT,
    adapters.KOHYA,
    frameworks.TENSORFLOW,
    frameworks.SAVED_MODEL,
    frameworks.ORBAX,
    frameworks.SPACY,
    frameworks.KERAS,
    pictures.DARKNET,
    pictures.CYCLEGAN,
    pictures.DCGAN,
    pictures.BASICSR,
    pictures.GUIDED_DIFFUSION,
    pictures.DIT,
    pictures.MMENGINE,
    pictures.RF_DETR,
    pictures.TORCHVISION,
    robots.RSL_RL,
    robots.RL_GAMES,
    robots.SKRL,
    robots.ML_AGENTS,
    frameworks.STABLE_BASELINES,
    frameworks.FASTAI,
    frameworks.PADDLE,
    frameworks.ALLENNLP,
    frameworks.AUDIOCRAFT,
    speech.WENET,
    speech.WITHOUT_SUFFIX,
    any_trainer.MARKED,
    any_trainer.NAMED_LAYOUT,
    any_trainer.ESTIMATOR,
    any_trainer.PLAIN,
)
"""The first layout that recognises a folder has it, so those with the most telling names come first."""
