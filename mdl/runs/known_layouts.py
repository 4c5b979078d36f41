"""The table of layouts: one row for each way in which trainers lay out what they save.

A row tells which names are checkpoints, which of them is the last and which the best, what belongs beside them, and
what inference needs. What names cannot tell is a function beside its row. The list in docs/trained-runs.md is held
against this table.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from mdl.bounds import LONGEST_FILE_NAME, parse_json
from mdl.paths import shown
from mdl.runs.checkpoint import FINAL, Checkpoint, Found, checked, parse_count, paths_of
from mdl.runs.choice import latest_of
from mdl.runs.completeness import RESUME
from mdl.runs.layout import CONFIGS, OPTIMIZER_INSIDE, VOCABULARY, Layout
from mdl.runs.names import NameSays, holds_a_model, holds_model, named_folders, plain_name, run_in, what_name_says
from mdl.runs.patterns import Pattern, finished_model, matching, named_in, no_record
from mdl.runs.tree import FILES, Entry, IsName, Tree, join, natural_key
from mdl.weights.end_records import zip_names
from mdl.weights.known_formats import ORBAX_STAGING, WEIGHT_SUFFIXES, folder_kind_of, is_weights, set_name, stem_of

ADAPTER_CONFIG = "adapter_config.json"

# HF Trainer: folders ``checkpoint-N``, and the finished model beside them. HF Trainer and what is built on it (PEFT,
# axolotl, LLaMA-Factory) write ``trainer_state.json`` last, so a checkpoint without it was never finished, unless no
# checkpoint of the run has one, as in a copy that was stripped of them.

_TRAINER_STATE = "trainer_state.json"
_HF_STAGING = r"tmp-checkpoint-[0-9]+.*|checkpoint-[0-9]+\.tmp"
DEEPSPEED_LATEST = r"\A\s*([\w.=-]{1,200})\s*\Z"
_LAST_CHECKPOINT = ("last_checkpoint", r"\A\s*(?:[^\n]*[/\\])?([^/\\\n]+?)\s*\Z")
"""The record of mmengine and detectron2."""


def _recorded_epoch(tree: Tree, folder: str) -> NameSays:
    """The epoch in a checkpoint's own record, if it was saved at the end of one."""
    return NameSays(epoch=parse_count(tree.json(join(folder, _TRAINER_STATE)).get("epoch")))


_HF_CHECKPOINTS = Pattern(
    rf"checkpoint-((?P<step>[0-9]+)|best|last)|{_HF_STAGING}",
    best="checkpoint-best",
    last=("checkpoint-last",),
    staging=_HF_STAGING,
    kinds=("folder",),
    record=_recorded_epoch,
    written_last=_TRAINER_STATE,
)


_HF_MODEL = re.compile(
    r"(model|pytorch_model|adapter_model|tf_model|flax_model)\b.*\.(safetensors|bin|h5|msgpack)"
    r"|((lora|prefix)_)?model_state\b.*\.pdparams"  # PaddleNLP's
)


def _find_hf_run(tree: Tree, base: str) -> Found | None:
    checkpoints = _HF_CHECKPOINTS.checkpoints(tree, base, base)
    if not checkpoints:
        return None
    for at, checkpoint in enumerate(checkpoints):
        tag = named_in(tree, join(checkpoint.base, "latest"), DEEPSPEED_LATEST)
        if checkpoint.complete and tag and not tree.is_folder(join(checkpoint.base, tag)):
            checkpoints[at] = replace(checkpoint, complete=False, note=f"{tag}, which 'latest' names, is missing")
    return _hf_found(tree, base, checkpoints)


def _find_hf_model(tree: Tree, base: str) -> Found | None:
    """A finished model alone: weights beside their configuration."""
    is_configured = any(tree.is_file(join(base, name)) for name in ("config.json", "model_config.json", ADAPTER_CONFIG))
    if not is_configured or not tree.files_named(base, _HF_MODEL.fullmatch):
        return None
    return _hf_found(tree, base, [])


def _hf_found(tree: Tree, base: str, checkpoints: list[Checkpoint]) -> Found:
    """These checkpoints; axolotl's ``merged`` folder; and the model in the run's own folder."""
    merged = join(base, "merged")
    finished: list[Checkpoint] = []
    if tree.files_named(merged, _HF_MODEL.fullmatch):
        finished.append(checked(tree, Checkpoint("merged", merged, tree.below(merged), is_derived=True)))
    finished += finished_model(tree, base, _HF_MODEL.pattern, [*checkpoints, *finished])
    latest, _ = latest_of([*checkpoints, *finished])
    found = Found((*checkpoints, *finished), _recorded_best(tree, latest, base))
    folders = [base, *(checkpoint.base for checkpoint in checkpoints)]
    if any(tree.is_file(join(folder, ADAPTER_CONFIG)) for folder in folders):
        return replace(found, layout="peft")
    return found


def _recorded_best(tree: Tree, latest: Checkpoint | None, base: str) -> str:
    """The name of the best checkpoint in the newest checkpoint's state file, else in the run's own; else ""."""
    folders = [base]
    if latest:
        folders.insert(0, latest.base)
    for folder in folders:
        state = tree.json(join(folder, _TRAINER_STATE))
        step = parse_count(state.get("best_global_step"))
        if step:
            return f"checkpoint-{step}"
        path = state.get("best_model_checkpoint")
        name = re.split(r"[/\\]", path.rstrip("/\\"))[-1] if isinstance(path, str) else ""
        if 0 < len(name) <= LONGEST_FILE_NAME:
            return name
    return ""


def base_model_note(tree: Tree, folder: str) -> str:
    """Names the model that the adapter in ``folder`` was trained on, without which it cannot be used; "" if there is no
    adapter."""
    config = tree.json(join(folder, ADAPTER_CONFIG))
    if not config:
        return ""
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return f"an adapter: it needs its base model, which {ADAPTER_CONFIG} does not name"
    is_path = name.startswith(("/", ".", "~", "\\")) or name[1:2] == ":"
    where = ", a folder of the machine that it was trained on" if is_path else ""
    return f"an adapter: it needs its base model, {shown(name[:LONGEST_FILE_NAME])}{where}"


_HF_LOGS = ("trainer_log.jsonl", "running_log.txt", "*_results.json", "training_*.png", "runs/*")
HF_RUN = Layout(
    "hf-trainer",
    _find_hf_run,
    trainers="HF Trainer (also PEFT, axolotl, LLaMA-Factory, PaddleNLP, DeepSpeed, FSDP)",
    above=(*CONFIGS, *VOCABULARY),
    keep=(
        *("model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json"),
        *("tf_model*.h5*", "flax_model*.msgpack*", "adapter_*", "*/adapter_*", "config.json", "generation_config.json"),
        *("*model_state*.pdparams", "model_config.json", "lora_config.json", "prefix_config.json"),
        *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
        *("chat_template*", "*processor_config.json", "*.py", "*.yaml", "*.yml", "README.md", "LICENSE*"),
    ),
    drop=(*RESUME, *((glob, "a log") for glob in _HF_LOGS), ("last_run_prepared/*", "prepared data")),
)
HF_MODEL = replace(HF_RUN, find=_find_hf_model, trainers="")


# diffusers: its example scripts use accelerate's ``save_state``, which writes the random states last.

_PIPELINE = r"model_index\.json|(pytorch_lora_weights|diffusion_pytorch_model|learned_embeds).*\.(safetensors|bin)"
_DIFFUSERS_SAVED = rf"random_states_[0-9]+\.pkl|unet|unet_ema|transformer|controlnet|prior|vae|text_encoder|{_PIPELINE}"


def _diffusers_place(tree: Tree, base: str, is_saved: IsName) -> list[str]:
    """The folder, if it or a checkpoint in it holds what diffusers saves, and no checkpoint is HF Trainer's."""
    is_own = bool(tree.files_named(base, re.compile(_PIPELINE).fullmatch))
    for folder in tree.subfolders(base):
        if not is_saved(folder.name):
            continue
        names = tree.names(folder.path)
        if _TRAINER_STATE in names:
            return []
        is_own = is_own or any(re.fullmatch(_DIFFUSERS_SAVED, name) for name in names)
    return [base] if is_own else []


DIFFUSERS = Layout(
    "diffusers",
    trainers="diffusers",
    find=replace(
        _HF_CHECKPOINTS,
        written_last="random_states_*.pkl",
        final=_PIPELINE,
        final_alone=True,
        record=no_record,
        places=_diffusers_place,
    ).find,
    keep=(
        *("pytorch_lora_weights*", "learned_embeds*", "diffusion_pytorch_model*", "model*.safetensors*"),
        *("pytorch_model*.bin*", "model_index.json", "config.json", "README.md", "LICENSE*", "adapter_*"),
        *("unet/*", "unet_ema/*", "transformer/*", "transformer_2/*", "controlnet/*", "prior/*", "decoder/*"),
        *("movq/*", "vae/*", "vae_ema/*", "text_encoder/*", "text_encoder_2/*", "text_encoder_3/*", "tokenizer/*"),
        *("tokenizer_2/*", "tokenizer_3/*", "scheduler/*", "feature_extractor/*", "image_encoder/*"),
        *("image_processor/*", "safety_checker/*", "adapter/*"),
    ),
)

# Lightning, and NeMo on top of it: ``epoch=E-step=S.ckpt`` in ``checkpoints`` folders, one for each ``version_K``.
# Lightning's last is ``last.ckpt``, NeMo's ``…-last.ckpt``. NeMo writes the finished ``{exp}.nemo``; a file
# ``…-unfinished`` marks an incomplete save. With model parallelism every rank writes its part into a folder of its own,
# ``mp_rank_00/``.

_LIGHTNING_KINDS = (*FILES, "folder")
_LIGHTNING_MARK = re.compile(r"(.*\b|.*_)(epoch|step)=[0-9]+.*\.ckpt|last(-v[0-9]+)?\.ckpt")
_NEMO_RANK = re.compile(r"(mp_rank|tp_rank)_.+")
_NEMO_LAST = re.compile(r".+-last(-v[0-9]+)?(\.ckpt)?")
_NEMO_UNFINISHED = "-unfinished"
_LIGHTNING_VERSION = re.compile(r"version_[0-9]+")


def _versions(tree: Tree, base: str) -> list[str]:
    """The folders that checkpoints of one run may be in: the versions of its one logger, the oldest first, and the
    run's own folder last."""
    loggers = [base, *(folder.path for folder in tree.subfolders(base))]
    versioned = [logger for logger in loggers if _version_folders(tree, logger)]
    folders = []
    if len(versioned) == 1:
        folders = _version_folders(tree, versioned[0])
    return [*(join(folder, "checkpoints") for folder in folders), *folders, join(base, "checkpoints"), base]


def _version_folders(tree: Tree, logger: str) -> list[str]:
    folders = [folder.path for folder in tree.subfolders(logger) if _LIGHTNING_VERSION.fullmatch(folder.name)]
    return sorted(folders, key=natural_key)


def _lightning_places(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    def is_marked(entry: Entry) -> bool:
        return entry.kind in _LIGHTNING_KINDS and _LIGHTNING_MARK.fullmatch(plain_name(entry.name)) is not None

    return [folder for folder in _versions(tree, base) if any(map(is_marked, tree.children(folder)))]


def _version_of_name(name: str) -> int:
    """The number that Lightning appends if a file of the same name is there already: ``last-v2.ckpt`` is newer than
    ``last.ckpt``."""
    version = re.search(r"-v([0-9]{1,9})(\.ckpt)?$", name)
    return int(version[1]) if version else 0


LIGHTNING = Layout(
    "lightning",
    Pattern(
        r".+\.ckpt",
        best=r"(.*[-_.=+])?best([-_.=+].*)?\.ckpt",
        last=(r"last(-v[0-9]+)?\.ckpt",),
        kinds=_LIGHTNING_KINDS,
        order=_version_of_name,
        places=_lightning_places,
    ).find,
    trainers="PyTorch Lightning",
    keep=("*.ckpt", "checkpoint/mp_rank_*_model_states.pt"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state"), ("meta.pt", "the training's progress")),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
)


def _is_saved_by_nemo(_tree: Tree, entry: Entry) -> bool:
    if entry.is_file:
        return entry.name.endswith((".ckpt", ".nemo"))
    return what_name_says(entry.name).step is not None


def _nemo_places(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    folders = _versions(tree, base)
    if any(_is_nemo(tree, folder) for folder in folders):
        return folders
    return []


def _is_nemo(tree: Tree, folder: str) -> bool:
    """Tell whether a name in a folder is one that only NeMo gives."""
    for entry in tree.children(folder):
        if entry.name.endswith((".nemo", _NEMO_UNFINISHED)):
            return True
        if entry.kind == "folder" and _NEMO_RANK.fullmatch(entry.name):
            return True
        if _NEMO_LAST.fullmatch(entry.name) and _is_saved_by_nemo(tree, entry):
            return True
    return False


NEMO = Layout(
    "nemo",
    Pattern(
        r".+",
        last=(_NEMO_LAST.pattern,),
        derived=r".+\.nemo",
        kinds=_LIGHTNING_KINDS,
        unfinished=_NEMO_UNFINISHED,
        pieces_in=_NEMO_RANK.pattern,
        order=_version_of_name,
        places=_nemo_places,
        is_saved=_is_saved_by_nemo,
    ).find,
    trainers="NeMo",
    keep=("*.nemo", "*.ckpt", "*.yaml", "weights/*", "context/*"),
    drop=(),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
    ends_with_model=True,
)

# LoRAs. kohya: ``{name}-000005``, ``{name}-step00001000``, ``{name}`` when finished, with ``…-state`` folders beside.
# The number in a name counts epochs or steps; ``ss_steps`` in the file's header counts steps. ai-toolkit:
# ``{name}_000000500`` files or folders, ``{name}`` when finished; variants of one step belong together.

_UNNAMED_RUNS = {"epoch", "at"}
"""The names that sd-scripts gives a run without a name, whose finished model is ``last``."""
_KOHYA_STATE = "-state"


def _find_lora(pattern: Pattern, keys: tuple[str, ...], tree: Tree, base: str) -> Found | None:
    """The checkpoints of trainers that call a finished model like its run. A file without a number is one if its run
    has files with a number, or one whose header has one of the ``keys``."""

    def match_of(entry: Entry) -> re.Match[str] | None:
        match = re.fullmatch(pattern.saved, entry.name)
        if match is None or entry.is_file != bool(match["variant_suffix"]):
            return None
        is_model = entry.kind == "folder" or holds_model(entry.name)
        return match if is_model else None

    runs: set[str] = set()
    for child in tree.children(base):
        match = match_of(child)
        if match is None:
            continue
        numbers = match.groupdict()
        is_numbered = numbers.get("step") or numbers.get("epoch")
        if is_numbered or not tree.contents(child).metadata.keys().isdisjoint(keys):
            runs.add(match["run"])
    if runs & _UNNAMED_RUNS:
        runs.add("last")

    def is_saved(_tree: Tree, entry: Entry) -> bool:
        match = match_of(entry)
        return match is not None and match["run"] in runs

    def run_of(name: str) -> str | None:
        match = re.fullmatch(pattern.saved, name)
        return match["run"] if match and match["run"] not in (*_UNNAMED_RUNS, "last") else None

    return replace(pattern, is_saved=is_saved, run_in=run_of).find(tree, base)


def _lora_record(tree: Tree, path: str) -> NameSays:
    """The count of steps in the header, or in the state saved with the file."""
    entry = tree.get(path)
    header = tree.contents(entry).metadata if entry else {}
    try:
        info = parse_json(header.get("training_info", "{}"), allow_nan=True)
    except ValueError:
        info = {}
    state = tree.json(join(stem_of(path) + _KOHYA_STATE, "train_state.json"))
    counts = [header.get("ss_steps"), state.get("current_step")]
    if isinstance(info, dict):
        counts.insert(1, info.get("step"))
    for step in map(parse_count, counts):
        if step is not None:
            return NameSays(step=step)
    return NameSays()


_KOHYA_NUMBER = r"-(step)?([0-9]{6}|(?<=step)[0-9]{8})"
KOHYA = Layout(
    "kohya",
    partial(
        _find_lora,
        Pattern(
            r"(?P<run>.+?)(-(step)?((?P<epoch>[0-9]{6})|(?<=step)(?P<step>[0-9]{8})))?(?P<variant_suffix>\.(safetensors|ckpt|pt))",
            last=(rf"(?!.*{_KOHYA_NUMBER}\.[a-z]+$).+",),
            record=_lora_record,
            state=_KOHYA_STATE,
        ),
        ("ss_steps", "ss_network_module"),
    ),
    trainers="kohya sd-scripts and musubi-tuner",
    keep=("*.safetensors", "*.ckpt", "*.pt"),
    drop=(("*-state/*", "training state"), ("sample/*", "samples")),
    notes=(("*.ckpt", "is a pickle; reading it needs torch"),),
    ends_with_model=True,
)
AI_TOOLKIT = Layout(
    "ai-toolkit",
    partial(
        _find_lora,
        Pattern(
            r"(?P<variant_critic>CRITIC_)?(?P<run>.+?)(?P<variant_lora>_LoRA)?(_(?P<step>[0-9]{9}))?"
            r"(?P<variant_refiner>_refiner)?(?P<variant_suffix>\.safetensors|\.pt)?",
            last=(r"(?!.*_[0-9]{9}(_refiner)?(\.[a-z]+)?$).+",),
            kinds=(*FILES, "folder"),
            record=_lora_record,
            beside=("config.yaml",),
            beside_newest=("optimizer.pt", "learnable_snr.json"),
        ),
        ("training_info",),
    ),
    trainers="ai-toolkit",
    keep=("*.safetensors", "*.pt", "*/*", "config.yaml", "*.json"),
    drop=(
        ("optimizer.pt", "optimizer state"),
        ("learnable_snr.json", "state of the loss's weighting"),
        ("samples/*", "samples"),
    ),
    ends_with_model=True,
)
_ANY = ("*",)


# Voices


_COQUI_BESIDE = ("config.json", "*speaker*", "*language_ids*", "vocab*")
_COQUI = Pattern(
    r"(checkpoint_|best_model_)(?P<step>[0-9]+)\.pth|best_model\.pth",
    best=r"best_model.*",
    requires=r"config\.json",
    beside=_COQUI_BESIDE,
)


def _find_coqui(tree: Tree, base: str) -> Found | None:
    """The checkpoints. Coqui leaves every best that it had: the one with the highest number is the best, and the one
    without a number is a copy of it."""
    found = _COQUI.find(tree, base)
    if found is None:
        return None
    newest = None
    for checkpoint in found.checkpoints:  # in the order of their steps
        if checkpoint.says_best and checkpoint.complete and checkpoint.step is not None:
            newest = checkpoint
    checkpoints = []
    for checkpoint in found.checkpoints:
        if checkpoint.says_best and checkpoint.step is None:
            note = checkpoint.note or "a copy of the best model"
            checkpoint = replace(checkpoint, note=note, is_derived=newest is not None)
        if newest is not None:
            checkpoint = replace(checkpoint, says_best=checkpoint is newest)
        checkpoints.append(checkpoint)
    return Found(tuple(checkpoints))


COQUI = Layout(
    "coqui",
    _find_coqui,
    trainers="Coqui TTS",
    keep=("checkpoint_*.pth", "best_model*.pth", *_COQUI_BESIDE),
    drop=(),
    notes=(("checkpoint_*.pth", OPTIMIZER_INSIDE), ("best_model*.pth", OPTIMIZER_INSIDE)),
)
_DISCRIMINATOR = "the discriminator, which only the training needs"
VITS = Layout(
    "vits",
    Pattern(
        r"(G|D|DUR|WD|MPD|MSD)_(?P<name>(?P<step>[0-9]+))\.pth",
        requires=r"G_[0-9]+\.pth",
        beside=("config*", "*.yaml", "*.yml", "*.json", "added_*.index"),
    ).find,
    trainers="VITS and its family: so-vits-svc, Bert-VITS2, RVC, GPT-SoVITS",
    keep=("G_*.pth", "config*", "*.json", "*.yaml", "*.yml", "*.index"),
    drop=(
        ("D_*.pth", _DISCRIMINATOR),
        ("DUR_*.pth", _DISCRIMINATOR),
        ("WD_*.pth", _DISCRIMINATOR),
        ("M?D_*.pth", _DISCRIMINATOR),
    ),
    notes=(("G_*.pth", OPTIMIZER_INSIDE),),
)
HIFIGAN = Layout(
    "hifi-gan",
    Pattern(
        r"(g|do)_(?P<name>(?P<step>[0-9]{8}))",
        requires=r"g_[0-9]{8}",
        weights=r"(g|do)_[0-9]{8}",
        beside=("config*",),
    ).find,
    trainers="HiFi-GAN",
    marks=r"(g|do)_[0-9]{8}",
    keep=("g_*", "config*"),
    drop=(("do_*", "the discriminator and the optimizers"),),
)
F5_TTS = Layout(
    "f5-tts",
    Pattern(
        r"model_(?P<step>[0-9]+)\.(pt|safetensors)|model_last\.(pt|safetensors)",
        requires=r"model_last\.(pt|safetensors)",
        last=(r"model_last\..+",),
        beside=("vocab.txt", "*.yaml", "config*"),
    ).find,
    trainers="F5-TTS",
    keep=("*.pt", "*.safetensors", "vocab.txt", "*.yaml", "config*"),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)
_STYLETTS2 = Pattern(
    r"epoch_(1st|2nd)_(?P<epoch>[0-9]+)\.pth|first_stage\.pth",
    derived=r"first_stage\.pth",
    requires=r"epoch_(1st|2nd)_[0-9]+\.pth",
    beside=("config*", "*.yml"),
)


def _find_styletts2(tree: Tree, base: str) -> Found | None:
    """The checkpoints. The second stage begins with the model of the first one, and counts its epochs anew."""
    pattern = _STYLETTS2
    if tree.files_named(base, re.compile(r"epoch_2nd_[0-9]+\.pth").fullmatch):
        pattern = replace(pattern, derived=r"first_stage\.pth|epoch_1st_.+")
    return pattern.find(tree, base)


STYLETTS2 = Layout(
    "styletts2",
    _find_styletts2,
    trainers="StyleTTS 2",
    keep=("*.pth", "config*", "*.yml"),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
_PARALLEL_WAVEGAN = r"checkpoint-(?P<step>[0-9]+)steps\.pkl"
PARALLEL_WAVEGAN = Layout(
    "parallel-wavegan",
    Pattern(_PARALLEL_WAVEGAN, weights=r"checkpoint-[0-9]+steps\.pkl", beside=("config*", "stats.*")).find,
    trainers="ParallelWaveGAN",
    marks=r"checkpoint-[0-9]+steps\.pkl",
    keep=("*.pkl", "config*", "stats.*"),
    notes=(("*.pkl", OPTIMIZER_INSIDE),),
)
_WITHOUT_SUFFIX = r"(checkpoint|waveglow)_[0-9]+"
WITHOUT_SUFFIX = Layout(
    "without-suffix",
    Pattern(r"(checkpoint|waveglow)_(?P<step>[0-9]+)", weights=_WITHOUT_SUFFIX, beside=("config*",)).find,
    trainers="Tacotron 2, WaveGlow and Flax",
    marks=_WITHOUT_SUFFIX,
    keep=("checkpoint_*", "waveglow_*", "config*"),
)


# Speech recognition and translation

ESPNET = Layout(
    "espnet",
    Pattern(
        r"(?P<epoch>[0-9]+)epoch\.pth|(valid|train)\..+\.ave.*\.pth|(valid|train)\..+\.best\.pth|latest\.pth",
        best=r"(valid|train)\..+\.best\.pth",
        derived=r".+\.ave(_.+)?\.pth",
        last=(r"latest\.pth",),
        requires=r"[0-9]+epoch\.pth|(valid|train)\..+\.(best|ave.*)\.pth",
        beside=("config.yaml", "*.npz", "tokens*", "*.model"),
    ).find,
    trainers="ESPnet",
    keep=("*.pth", "config.yaml", "*.npz", "tokens*", "*.model"),
)
_ESPNET1 = r"snapshot\.(ep\.[0-9]+|iter\.[0-9]+)|model\.(acc|loss|cer|wer|last[0-9]+\.avg|val[0-9]+\.avg)\.best"
ESPNET1 = Layout(
    "espnet1",
    Pattern(
        r"snapshot\.(ep\.(?P<epoch>[0-9]+)|iter\.(?P<step>[0-9]+))|model\..+\.best",
        best=r"model\.(acc|loss|cer|wer)\.best",
        derived=r"model\..+\.avg\.best",
        requires=r"snapshot\.(ep|iter)\.[0-9]+|model\.(acc|loss)\.best",
        weights=_ESPNET1,
        beside=("model.json",),
    ).find,
    trainers="ESPnet 1",
    marks=_ESPNET1,
    keep=("model.*", "snapshot.*"),
)
WENET = Layout(
    "wenet",
    Pattern(
        r"(epoch_)?(?P<epoch>[0-9]+)\.pt|step_(?P<step>[0-9]+)\.pt|avg_?[0-9]+\.pt|init\.pt|final\.pt",
        derived=r"(avg.*|init)\.pt",
        last=(r"final\.pt",),
        requires=r"(epoch_)?[0-9]+\.yaml|avg_?[0-9]+\.pt",
        beside=("train.yaml", "*.yaml", "units.txt", "global_cmvn", "*.model"),
    ).find,
    trainers="WeNet",
    keep=("*.pt", "*.yaml", "units.txt", "global_cmvn", "*.model"),
)
_FAIRSEQ_NAME = r"checkpoint(?:_(?=[0-9]+_))?(?P<epoch>[0-9]+)(?:_(?P<step>[0-9]+))?"
_PIECE = r"(?P<piece>([-_.](([a-z]+_)?rank|shard|model_part)[-_]?[0-9]+)+)"
"""What a trainer appends that has each process write its own piece: ``-rank0``, ``-model_part-1-shard0``."""
FAIRSEQ = Layout(
    "fairseq",
    Pattern(
        rf"({_FAIRSEQ_NAME}|checkpoint_(best|last)|checkpoint\.best_.+?){_PIECE}?\.pt",
        best=r"checkpoint_best\.pt",
        last=(r"checkpoint_last\.pt",),
        order=lambda name: int(
            re.fullmatch(r"checkpoint[0-9]+\.pt", name) is not None
        ),  # an epoch's end, after its updates
        beside=("dict.*.txt",),
    ).find,
    trainers="fairseq",
    keep=("*.pt", "dict.*.txt"),
    drop=(),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)


def _speechbrain_record(tree: Tree, folder: str) -> NameSays:
    """The epoch that the training's own counter has."""
    text = tree.head(join(folder, "counter.ckpt"), 64).decode("utf-8", "replace").strip()
    return NameSays(epoch=parse_count(text))


SPEECHBRAIN = Layout(
    "speechbrain",
    Pattern(
        r"CKPT\+(?P<step>).+",  # the numbers in the name are a date
        kinds=("folder",),
        holds=matching(r"CKPT\.yaml"),
        record=_speechbrain_record,
    ).find,
    trainers="SpeechBrain",
    keep=("*.ckpt", "CKPT.yaml", "*.yaml"),
    drop=(("optimizer*.ckpt", "optimizer state"), ("dataloader*.ckpt", "the state of the data"), *RESUME),
)


# Pictures


def _ultralytics_place(tree: Tree, base: str, is_saved: IsName) -> list[str]:
    """The folder ``weights`` of an experiment, or that folder itself."""
    weights = join(base, "weights")
    if tree.files_named(weights, is_saved):
        return [weights]
    if tree.is_file(join(base, "best.pt")) and tree.is_file(join(base, "last.pt")):
        return [base]
    return []


ULTRALYTICS = Layout(
    "ultralytics",
    Pattern(
        r"best(_[0-9]+)?\.pt|last\.pt|init\.pt|epoch_?(?P<epoch>[0-9]+)\.pt",
        best=r"best\.pt",
        derived=r"best_[0-9]+\.pt|init\.pt",
        last=(r"last\.pt",),
        places=_ultralytics_place,
        members_in_base=True,
        beside=("args.yaml", "results.csv"),
    ).find,
    trainers="Ultralytics, YOLOv5 and YOLOv7",
    keep=("*.pt", "args.yaml", "results.csv"),
    drop=(),
    notes=(("*.pt", "contains optimizer state unless the training came to its end; stripping it needs torch"),),
)
MMENGINE = Layout(
    "mmengine",
    Pattern(
        r"(best_.+_)?(epoch|iter)_[0-9]+\.pth|best_.+\.pth|latest\.pth",
        best=r"best_.+",
        last=(r"latest\.pth",),
        requires="last_checkpoint",
        newest_in=_LAST_CHECKPOINT,
        beside=("*.py",),
    ).find,
    trainers="mmengine: MMDetection, MMSegmentation and others",
    keep=("*.pth", "*.py"),
    drop=(),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
"""The configuration is a Python file beside the checkpoints, called as the user called it."""

RF_DETR = Layout(
    "rf-detr",
    Pattern(
        r"checkpoint_?(?P<epoch>[0-9]+)?\.(pth|ckpt)|checkpoint_best_(ema|regular|total)\.pth|last(_ema)?\.(pth|ckpt)",
        best=r"checkpoint_best_total\.pth",
        derived=r".*_ema\.pth",
        last=(r"checkpoint\.pth", r"last\.(pth|ckpt)"),
        requires=r"checkpoint_best_(total|regular)\.pth",
    ).find,
    trainers="RF-DETR",
    keep=("*.pth", "*.ckpt"),
    notes=(("checkpoint[._0-9]*", OPTIMIZER_INSIDE),),
)
"""At the end the better one of the best and the best average is copied to ``…_total``."""


def _torchvision_place(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    """The folder, if the last file is in it: without it, nobody knows what the numbers count."""
    return [base] if tree.is_file(join(base, "checkpoint.pth")) else []


TORCHVISION = Layout(
    "torchvision",
    Pattern(
        r"model_(?P<epoch>[0-9]+)\.pth|checkpoint\.pth",
        last=(r"checkpoint\.pth",),
        requires=r"model_[0-9]+\.pth",
        places=_torchvision_place,
    ).find,
    trainers="torchvision's reference scripts",
    keep=("*.pth",),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
DARKNET = Layout(
    "darknet",
    Pattern(
        r".+_((?P<step>[0-9]+)|last|best|final)\.weights",
        best=r".+_best\.weights",
        last=(r".+_last\.weights", r".+_final\.weights"),
        beside=("*.cfg", "*.names", "*.data"),
    ).find,
    trainers="Darknet",
    keep=("*.weights", "*.cfg", "*.names", "*.data"),
)
CYCLEGAN = Layout(
    "cyclegan",
    Pattern(
        r"(?P<name>(?P<epoch>[0-9]+)|latest)_net_.+\.pth",
        last=(r"latest",),
        beside=("train_opt.txt",),
    ).find,
    trainers="CycleGAN and pix2pix",
    keep=("*.pth", "*.txt"),
)
DCGAN = Layout(
    "dcgan",
    Pattern(r"net(G|D)_epoch_(?P<name>(?P<epoch>[0-9]+))\.pth", requires=r"netG_epoch_[0-9]+\.pth").find,
    trainers="DCGAN",
    keep=("netG_*.pth",),
    drop=(("netD_*.pth", _DISCRIMINATOR),),
)
BASICSR = Layout(
    "basicsr",
    Pattern(
        r"net_[a-z]+_(?P<name>(?P<step>[0-9]+)|latest)\.pth",
        requires=r"net_g_([0-9]+|latest)\.pth",
        last=(r"latest",),
    ).find,
    trainers="BasicSR and ESRGAN",
    keep=("net_g*.pth", "*.yml"),
    drop=(("net_d_*.pth", _DISCRIMINATOR),),
)
_STYLEGAN = r"network-snapshot-[0-9]+\.pkl"
STYLEGAN = Layout(
    "stylegan",
    Pattern(
        r"network-snapshot-(?P<step>[0-9]+)\.pkl",
        weights=_STYLEGAN,
        beside=("training_options.json",),
    ).find,
    trainers="StyleGAN",
    marks=_STYLEGAN,
    keep=("*.pkl", "training_options.json"),
)
GUIDED_DIFFUSION = Layout(
    "guided-diffusion",
    Pattern(
        r"(model|opt|ema_[0-9.]+_)(?P<name>(?P<step>[0-9]{6,}))\.pt",
        requires=r"model[0-9]{6,}\.pt",
    ).find,
    trainers="guided-diffusion and improved-diffusion",
    keep=("model*.pt", "ema_*.pt"),
    drop=(("opt*.pt", "optimizer state"),),
)
DIT = Layout(
    "dit",
    Pattern(r"(?P<step>[0-9]{7})\.pt").find,
    trainers="DiT and SiT",
    keep=("*.pt",),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)
NNUNET = Layout(
    "nnunet",
    Pattern(
        r"checkpoint_(best|latest|final)\.pth",
        best=r"checkpoint_best\.pth",
        last=(r"checkpoint_latest\.pth", r"checkpoint_final\.pth"),
        requires=r"plans\.json",
        pieces_in=r"fold_([0-9]+|all)",
        partial=r"checkpoint_latest\.pth",
        beside=("plans.json", "dataset.json", "dataset_fingerprint.json"),
    ).find,
    trainers="nnU-Net",
    keep=("fold_*/*.pth", "*.json"),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
"""A checkpoint is the files of one name in all folds. The latest is deleted at the end of a fold."""


# Large models in shards

_DIFFUSION_PIPE = Pattern(
    r"epoch(?P<epoch>[0-9]+)|global_step(?P<step>[0-9]+)",
    kinds=("folder",),
    derived=r"global_step.+",
)


def _find_diffusion_pipe(tree: Tree, base: str) -> Found | None:
    """The models of the epochs. DeepSpeed's folders beside them have the state of the training, though ``latest`` names
    them."""
    has_model = has_state = False
    for folder in tree.subfolders(base):
        if re.fullmatch(r"global_step[0-9]+", folder.name):
            has_state = True
        elif re.fullmatch(r"epoch[0-9]+", folder.name):
            has_model = has_model or bool(tree.files_named(folder.path, re.compile(r".+\.safetensors").fullmatch))
    return _DIFFUSION_PIPE.find(tree, base) if has_model and has_state else None


DIFFUSION_PIPE = Layout(
    "diffusion-pipe",
    _find_diffusion_pipe,
    trainers="diffusion-pipe",
    keep=("*.safetensors", "*.safetensors.index.json", "*config.json", "*.toml"),
)
DEEPSPEED = Layout(
    "deepspeed",
    Pattern(
        r".*?(?P<step>[0-9]+)(\.pth)?|.+",
        kinds=("folder",),
        holds=matching(r".*_(model|optim)_states\.pt"),
        final=r"(model|pytorch_model)\b.*\.(safetensors|bin)",
        newest_in=("latest", DEEPSPEED_LATEST),
    ).find,
    trainers="DeepSpeed",
    keep=("mp_rank_*_model_states.pt", "model*.safetensors*", "pytorch_model*.bin*", "config.json", "tokenizer*"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state")),
    notes=(("mp_rank_*_model_states.pt", "is a pickle of the model and the training; reading it needs torch"),),
)
FSDP = Layout(
    "fsdp",
    Pattern(
        r".*?(?P<step>[0-9]+)|.+",
        kinds=("folder",),
        holds=matching(r"pytorch_model_fsdp(_[0-9]+/|(_rank[0-9]+)?(_[0-9]+)?\.bin)"),
    ).find,
    trainers="accelerate's FSDP",
    keep=(
        *("pytorch_model_fsdp.bin", "pytorch_model_fsdp_[0-9].bin", "model*.safetensors*", "pytorch_model*.bin*"),
        *("config.json", "generation_config.json", "tokenizer*"),
    ),
)
"""Folders of accelerate's, with full weights in one file or with shards that must be merged before use."""
MEGATRON = Layout(
    "megatron",
    Pattern(
        r"iter_(?P<step>[0-9]{7,})|release",
        kinds=("folder",),
        holds=matching(r"mp_rank_.+/|__.+\.distcp|model_optim_rng\.pt|common\.pt"),
        newest_in=("latest_checkpointed_iteration.txt", r"\A\s*([0-9]{1,18}|release)\s*\Z"),
    ).find,
    trainers="Megatron-LM",
    keep=("mp_rank_*/*", "*.distcp", "common.pt", ".metadata", "metadata.json"),
    drop=(("*distrib_optim*", "optimizer state"),),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)


def _find_or_itself(pattern: Pattern, marks: tuple[str, ...], tree: Tree, base: str) -> Found | None:
    """The checkpoints in a folder; or the folder itself, if one of the files ``marks`` in it shows that it is one."""
    found = pattern.find(tree, base)
    if found is None and any(tree.is_file(join(base, mark)) for mark in marks):
        return Found((checked(tree, Checkpoint(FINAL, base, tree.below(base))),))
    return found


VERL = Layout(
    "verl",
    partial(
        _find_or_itself,
        Pattern(
            r"global_step_(?P<step>[0-9]+)",
            kinds=("folder",),
            holds=matching(r"actor/|critic/|.*_world_size_[0-9]+_rank_[0-9]+\.pt"),
            newest_in=("latest_checkpointed_iteration.txt", r"\A\s*([0-9]{1,18})\s*\Z"),
        ),
        ("fsdp_config.json", "actor/fsdp_config.json", "actor/huggingface/config.json"),
    ),
    trainers="verl",
    keep=("*huggingface/*", "*.safetensors*", "*.json"),
    drop=(
        ("critic/*", "the critic, which only the training needs"),
        ("*model_world_size_*", "weights sharded by FSDP"),
        ("*optim_world_size_*", "optimizer state"),
        ("*extra_state_world_size_*", "scheduler and random number state"),
        ("data.pt", "the state of the data"),
        *RESUME,
    ),
)
NANOTRON = Layout(
    "nanotron",
    Pattern(
        r"(?P<step>[0-9]+)",
        kinds=("folder",),
        holds=matching(r"checkpoint_metadata\.json"),
        newest_in=("latest.txt", r"\A\s*([0-9]{1,18})\s*\Z"),
    ).find,
    trainers="nanotron",
    keep=("model/*", "*.json", "*.yaml"),
    drop=(
        ("optimizer/*", "optimizer state"),
        ("lr_scheduler/*", "scheduler state"),
        ("random/*", "random number state"),
    ),
)


# Robots

LEROBOT = Layout(
    "lerobot",
    partial(
        _find_or_itself,
        Pattern(
            r"(?P<step>[0-9]+)|last",
            last=("last",),
            kinds=("folder",),
            holds=matching(r"pretrained_model/"),
        ),
        ("pretrained_model/train_config.json",),
    ),
    trainers="LeRobot",
    keep=("pretrained_model/*",),
    drop=(("training_state/*", "the state of the training"),),
)


def _rsl_rl_place(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    """The folder, if the records are in it that this trainer writes."""
    return [base] if tree.is_folder(join(base, "params")) or tree.is_folder(join(base, "git")) else []


RSL_RL = Layout(
    "rsl-rl",
    Pattern(r"model_(?P<step>[0-9]+)\.pt", places=_rsl_rl_place).find,
    trainers="RSL-RL",
    keep=("*.pt", "*.yaml"),
    above=(*CONFIGS, "params/*.yaml"),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)
RL_GAMES = Layout(
    "rl-games",
    Pattern(
        r"last_.+_ep_(?P<epoch>[0-9]+)_rew_.*\.pth|.+\.pth",
        requires=r"last_.+_ep_[0-9]+_rew_.*\.pth",
        best=r"(?!last_.+_ep_).+",
    ).find,
    trainers="rl_games",
    keep=("*.pth", "*.yaml"),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
"""The file that is called like the experiment alone has the best reward."""
SKRL = Layout(
    "skrl",
    Pattern(
        r"agent_(?P<step>[0-9]+)\.pt|best_agent\.pt",
        best=r"best_agent\.pt",
        requires=r"best_agent\.pt",
    ).find,
    trainers="skrl",
    keep=("*.pt", "*.yaml"),
    above=(*CONFIGS, "params/*.yaml"),
)

_ML_AGENTS = Pattern(
    r"(?P<name>.+-(?P<step>[0-9]+))\.(onnx|pt)|checkpoint\.pt",
    derived=r"checkpoint\.pt",
    run_in=lambda name: re.sub(r"-[0-9]+$", "", name),
)


def _find_ml_agents(tree: Tree, base: str) -> Found | None:
    """The checkpoints of each behavior, in a folder that is called like it; the finished model is beside that. A copy
    of the newest state, with which the training goes on, is called ``checkpoint.pt``."""
    checkpoints: list[Checkpoint] = []
    for folder in tree.subfolders(base):
        numbered = re.compile(rf"{re.escape(folder.name)}-[0-9]+\.(onnx|pt)")
        if tree.is_file(join(folder.path, "checkpoint.pt")) and tree.files_named(folder.path, numbered.fullmatch):
            checkpoints += _ML_AGENTS.checkpoints(tree, folder.path, folder.path)
    if not checkpoints:
        return None
    return Found((*checkpoints, *finished_model(tree, base, r".+\.onnx", checkpoints)))


ML_AGENTS = Layout(
    "ml-agents",
    _find_ml_agents,
    trainers="Unity ML-Agents",
    keep=("*.onnx", "*.pt", "configuration.yaml"),
    above=("configuration.yaml",),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
)


# Adapters for pictures and small machines

MLX = Layout(
    "mlx",
    Pattern(
        r"(?P<step>[0-9]{7})_adapters\.(safetensors|npz)|adapters\.(safetensors|npz)",
        last=(r"adapters\..+",),
        beside=("adapter_config.json",),
    ).find,
    trainers="mlx-lm",
    keep=("*adapters.*", "adapter_config.json"),
    drop=(),
)
_ONE_TRAINER = Pattern(
    r".*-(save|backup)-(?P<step>[0-9]+)-(?P<epoch>[0-9]+)-[0-9]+(\.(safetensors|ckpt))?",
    kinds=(*FILES, "folder"),
    order=lambda name: int("-save-" in name),  # of one step, the model before the state of the training
)


def _find_one_trainer(tree: Tree, base: str) -> Found | None:
    """The checkpoints of a workspace: the states of the training in ``backup``, the models in ``save``."""
    checkpoints: list[Checkpoint] = []
    for folder in (base, join(base, "backup"), join(base, "save")):
        checkpoints += _ONE_TRAINER.checkpoints(tree, folder, folder)
    if not checkpoints:
        return None
    return Found((*checkpoints, *finished_model(tree, base, rf"(?!{_ONE_TRAINER.saved}).+\.safetensors", checkpoints)))


ONE_TRAINER = Layout(
    "onetrainer",
    _find_one_trainer,
    trainers="OneTrainer",
    keep=("*.safetensors", "*.ckpt", "*/*", "*.json"),
    drop=(("optimizer/*", "optimizer state"), ("ema/*", "the state of the average")),
)


# Other frameworks

_KERAS_EPOCH = r"((?<![A-Za-z0-9.])|(?<=[^0-9]\.)|(?<=ep)|(?<=epoch))(?P<epoch>[0-9]+)(?!\.?[0-9])"
"""A whole number in a name that the user chose, the last one; ``0.34`` is a metric, ``resnet50`` a model."""
KERAS = Layout(
    "keras",
    Pattern(
        rf".*{_KERAS_EPOCH}.*\.(keras|h5|hdf5)|.+\.(keras|weights\.h5)",
        best=r"(?i)(.*[^a-z])?best([^a-z].*)?",
        last=(r"(?i)(.*[^a-z])?(last|latest|final)([^a-z].*)?",),
    ).find,
    trainers="Keras",
    keep=("*.keras", "*.h5", "*.hdf5"),
    drop=(),
    notes=(
        ("*.keras", "contains optimizer state; saving it again without needs Keras"),
        ("*.weights.h5", "is weights alone; the code that builds the model is needed"),
    ),
)
TENSORFLOW = Layout(
    "tensorflow",
    Pattern(
        r"(?P<name>(.*[-_.])?(?P<step>[0-9]+)(\.ckpt)?|.+)\.(index|meta|data-[0-9]{5}-of-[0-9]{5})",
        holds=matching(r".+\.data-[0-9]{5}-of-[0-9]{5}"),
        newest_in=("checkpoint", r'^model_checkpoint_path:\s*"(?:[^"]*/)?([^"/]+)"'),
    ).find,
    trainers="TensorFlow",
    keep=(
        *("saved_model.pb", "keras_metadata.pb", "fingerprint.pb", "variables/*", "assets/*", "assets.extra/*"),
        *("*.index", "*.data-*", "*.meta"),
    ),
    drop=(),
    notes=(("*.index", "may hold the optimizer's variables too; the code that builds the model is needed"),),
)
_GRAPH = r"saved_model\.pb"
SAVED_MODEL = replace(
    TENSORFLOW,
    find=Pattern(r"(?P<step>[0-9]+)", kinds=("folder",), holds=matching(_GRAPH), final=_GRAPH, final_alone=True).find,
)
"""TensorFlow's finished models; those in numbered folders are versions, as TensorFlow Serving counts them."""


def _is_orbax(tree: Tree, entry: Entry) -> bool:
    """Tell whether a folder, or one directly in it, has a marker of orbax."""
    markers = {"_CHECKPOINT_METADATA", "manifest.ocdbt"}
    if ORBAX_STAGING.fullmatch(entry.name):
        return True
    folders = [entry, *tree.subfolders(entry.path)]
    return any(not markers.isdisjoint(tree.names(folder.path)) for folder in folders)


ORBAX = Layout(
    "orbax",
    Pattern(
        rf"{ORBAX_STAGING.pattern}|(?:.*[-_])?(?P<step>[0-9]+)",
        kinds=("folder",),
        staging=ORBAX_STAGING.pattern,
        holds=matching(r"_CHECKPOINT_METADATA|manifest\.ocdbt|default/|state/|params/|items/"),
        requires=r"(?:.*[-_])?[0-9]+(\.orbax-checkpoint-tmp.*)?",
        is_saved=_is_orbax,
        weights=r".+",
    ).find,
    trainers="orbax and Flax",
    marks=r"manifest\.ocdbt|_CHECKPOINT_METADATA",
    keep=_ANY,
)
SPACY = Layout(
    "spacy",
    Pattern(
        r"model-(best|last)",
        kinds=("folder",),
        holds=matching(r"config\.cfg"),
        best="model-best",
        last=("model-last",),
        weights="model",
    ).find,
    trainers="spaCy",
    marks=r"model|config\.cfg",
    keep=_ANY,
)


def _is_policy(tree: Tree, entry: Entry) -> bool:
    """Tell whether a zip is one of stable-baselines3, by the names in its directory."""
    with tree.opened(entry) as file:
        names = zip_names(file, entry.stamp.size) if file else frozenset()
    return {"data", "policy.pth"} <= names


STABLE_BASELINES = Layout(
    "stable-baselines3",
    Pattern(
        r"(.*_)?(?P<step>[0-9]+)_steps\.zip|.+\.zip",
        best=r"best_model\.zip",
        last=(r"(?!.*_steps\.zip|best_model\.zip).+\.zip", r".*(last|latest|final).*\.zip"),
        is_saved=_is_policy,
        weights=r".+\.zip",
        beside=("*vecnormalize*.pkl", "vec_normalize*.pkl"),
    ).find,
    trainers="stable-baselines3",
    marks=r".+\.zip",
    keep=("*.zip", "*vec*normalize*.pkl"),
)


def _fastai_models(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    return [join(base, "models")]


FASTAI = Layout(
    "fastai",
    Pattern(
        r"(.+)_(?P<epoch>[0-9]+)\.pth|.+\.pth",
        best=r"(?i).*best.*",
        requires=r"export\.pkl",
        final=r"export\.pkl",
        final_alone=True,
        places=_fastai_models,
        run_in=lambda name: re.sub(r"_[0-9]+\.pth$", "", name) if re.search(r"_[0-9]+\.pth$", name) else None,
    ).find,
    trainers="fastai",
    marks=r"export\.pkl",
    keep=("export.pkl", "*.pth"),
    notes=(("*.pth", OPTIMIZER_INSIDE),),
)
"""``Learner.export`` writes the finished model, callbacks write into ``models``."""
PADDLE = Layout(
    "paddle",
    Pattern(
        r"(?P<name>(iter_)?(epoch_)?(?P<epoch>[0-9]+)|latest|best_accuracy|best_model|model_final)"
        r"\.(pdparams|pdopt|pdema|pdstates|states)",
        best=r"best_.+",
        last=("latest", "model_final"),
        holds=matching(r".+\.pdparams"),
        requires=r".+\.pdopt",
        beside=("*.yml", "*.yaml"),
    ).find,
    trainers="PaddleDetection, PaddleClas and PaddleOCR",
    keep=("*.pdparams", "*.yml", "*.yaml"),
    drop=(
        ("*.pdopt", "optimizer state"),
        ("*.pdema", "the weights without their average, which only the training needs"),
        ("*states", "the trainer's own record"),
    ),
)
ALLENNLP = Layout(
    "allennlp",
    Pattern(
        r"model_state_epoch_(?P<epoch>[0-9]+)\.th|best\.th|weights\.th",
        best=r"best\.th",
        requires=r"(model|training)_state_epoch_[0-9]+\.th",
        beside=("config.json", "vocabulary"),
    ).find,
    trainers="AllenNLP",
    keep=("*.th", "config.json", "vocabulary/*"),
)
AUDIOCRAFT = Layout(
    "audiocraft",
    Pattern(
        r"checkpoint(_(?P<epoch>[0-9]+))?\.th|best\.th",
        best=r"best\.th",
        last=(r"checkpoint\.th",),
    ).find,
    trainers="AudioCraft and Demucs",
    keep=("*.th", "*.yaml"),
    notes=(("*.th", OPTIMIZER_INSIDE),),
)


# Folders and files of no trainer that is known


def _find_marked(tree: Tree, base: str) -> Found | None:
    """A folder that a format's own marker declares to be one model."""
    kind = folder_kind_of(tree.names(base))
    if kind is None:
        return None
    checkpoint = checked(tree, Checkpoint(FINAL, base, tree.below(base), weights=kind.weights))
    return Found((replace(checkpoint, weights=r".+"),))  # what its program loads, that alone knows


_ESTIMATOR = re.compile(
    r".+\.(joblib|skops|cbm|ubj)|xgboost-model"
    r"|(.*[-_.])?(model|pipeline|estimator|classifier|regressor|clf)([-_.].*)?\.(pkl|pickle)",
    re.IGNORECASE,
)
_PREPARES = re.compile(r"(.*[-_.])?(scaler|encoder|vectorizer|imputer|preprocessor|features?)([-_.].*)?", re.IGNORECASE)
"""What transforms the data before an estimator gets them: a part of the model."""


def _find_estimator(tree: Tree, base: str) -> Found | None:
    """A folder with one saved estimator, and no weights of any other kind."""
    if tree.files_named(base, is_weights):
        return None
    saved = []
    for entry in tree.files_named(base, _ESTIMATOR.fullmatch):
        if not _PREPARES.fullmatch(entry.name.rpartition(".")[0]):
            saved.append(entry)
    if len(saved) != 1:
        return None
    weights = re.escape(saved[0].name)
    return Found((checked(tree, Checkpoint(FINAL, base, tree.below(base), weights=weights)),))


def find_weights(tree: Tree, base: str) -> Found:
    """All that is in a folder, as one model, if there are weights in it."""
    entries = tree.below(base)
    if any(entry.is_file and entry.is_weights for entry in entries):
        return Found((checked(tree, Checkpoint(FINAL, base, entries)),))
    return Found(())


_GENERIC_KEEP = (
    *(f"*{suffix}" for suffix in WEIGHT_SUFFIXES),
    "*.json",
    "*.txt",
    "*.model",
    "*.yaml",
    "*.yml",
    "*.md",
    "*.py",
)
PLAIN = Layout(
    "plain",
    find_weights,
    keep=_GENERIC_KEEP,
    notes=tuple(
        (glob, "may contain optimizer state; stripping it needs torch") for glob in ("*.pt", "*.pth", "*.ckpt")
    ),
)
"""A folder of weights whose names fit no trainer: one checkpoint, all that is in it."""
MARKED = Layout(
    "model",
    _find_marked,
    trainers="spaCy, MLflow, RLlib and diffusers models",
    marks=r"MLmodel|model_index\.json|config\.cfg|rllib_checkpoint\.json",
    keep=_ANY,
)

ESTIMATOR = Layout(
    "estimator",
    _find_estimator,
    trainers="scikit-learn, XGBoost and CatBoost",
    marks=r".+\.(joblib|skops|cbm|ubj)|xgboost-model",
    keep=_ANY,
    drop=(),
)


def _says_checkpoint(tree: Tree, entry: Entry) -> bool:
    """Tell whether a name says that it is a checkpoint, and is no file of the training alone."""
    says_checkpoint = what_name_says(stem_of(entry.name)).is_checkpoint
    if entry.kind == "folder":
        return says_checkpoint and holds_a_model(tree, entry)
    return holds_model(entry.name) and (says_checkpoint or stem_of(entry.name) == "checkpoint")


_NAMED = Pattern(
    rf".+?{_PIECE}\.[a-z.]+|.+",
    best=r"(?i)(.*[-_.=+])?best([-_.=+].*)?",
    last=(r"checkpoint(\.[a-z]+)+", r"(?i)(.*[-_.=+])?(last|latest|final)([-_.=+].*)?"),
    kinds=(*FILES, "folder"),
    is_saved=_says_checkpoint,
    run_in=run_in,
    newest_in=_LAST_CHECKPOINT,
    beside=(
        *("config*", "*config.json", "*.yaml", "*.yml", "*vocab*", "tokenizer*", "special_tokens_map.json"),
        *("merges.txt", "*.model", "*label*", "*speaker*", "spk*", "dictionary*", "README.md"),
    ),
)


def _find_named(tree: Tree, base: str) -> Found | None:
    """The checkpoints by their names, and the other weights beside them: the finished model if they are one set, else
    rows of their own. One file without a number, beside other weights, is a part of one model, however it is
    called."""
    found = _NAMED.find(tree, base)
    if found is None:
        return None
    checkpoints = list(found.checkpoints)
    of_checkpoints = paths_of(checkpoints)
    others: dict[str, list[Entry]] = {}
    for file in tree.files_named(base, holds_model):
        if file.path not in of_checkpoints:
            others.setdefault(set_name(file.name), []).append(file)
    if not others:
        return found
    if len(checkpoints) == 1 and not checkpoints[0].is_counted and checkpoints[0].base == base:
        return None
    if len(others) > 1:
        for files in others.values():
            checkpoint = checked(tree, Checkpoint(files[0].name, base, tuple(files), is_derived=True))
            checkpoints.append(checkpoint)
        return replace(found, checkpoints=tuple(checkpoints))
    taken = {folder.path for folder in named_folders(tree, base)}
    for checkpoint in checkpoints:
        taken.add(checkpoint.base)
        taken.update(entry.path for entry in checkpoint.entries if holds_model(entry.name))  # the others belong to all
    final = checked(tree, Checkpoint(FINAL, base, tree.all_but(base, taken)))
    return replace(found, checkpoints=(*checkpoints, final))


NAMED_LAYOUT = replace(PLAIN, name="named", find=_find_named, trainers="names like `epoch_10` or `step-500`")
"""Folders and files of no known trainer whose names say that they are checkpoints."""


def find_folders(tree: Tree, base: str, *, of_any_name: bool) -> tuple[Checkpoint, ...]:
    """The folders in ``base`` that hold weights: those named like checkpoints, or all of them."""
    pattern = replace(_NAMED, kinds=("folder",))
    if of_any_name:
        pattern = replace(pattern, is_saved=holds_a_model)
    return tuple(pattern.checkpoints(tree, base, base))


LAYOUTS: tuple[Layout, ...] = (
    DIFFUSERS,
    HF_RUN,
    NEMO,
    SPEECHBRAIN,
    NNUNET,
    LIGHTNING,
    ULTRALYTICS,
    COQUI,
    VITS,
    HIFIGAN,
    F5_TTS,
    STYLETTS2,
    PARALLEL_WAVEGAN,
    ESPNET,
    ESPNET1,
    FAIRSEQ,
    MLX,
    HF_MODEL,
    MEGATRON,
    DIFFUSION_PIPE,
    DEEPSPEED,
    FSDP,
    VERL,
    NANOTRON,
    LEROBOT,
    STYLEGAN,
    ONE_TRAINER,
    AI_TOOLKIT,
    KOHYA,
    TENSORFLOW,
    SAVED_MODEL,
    ORBAX,
    SPACY,
    KERAS,
    DARKNET,
    CYCLEGAN,
    DCGAN,
    BASICSR,
    GUIDED_DIFFUSION,
    DIT,
    MMENGINE,
    RF_DETR,
    TORCHVISION,
    RSL_RL,
    RL_GAMES,
    SKRL,
    ML_AGENTS,
    STABLE_BASELINES,
    FASTAI,
    PADDLE,
    ALLENNLP,
    AUDIOCRAFT,
    WENET,
    WITHOUT_SUFFIX,
    MARKED,
    NAMED_LAYOUT,
    ESTIMATOR,
    PLAIN,
)
"""The first layout that recognises a folder has it, so those with the most telling names come first."""
