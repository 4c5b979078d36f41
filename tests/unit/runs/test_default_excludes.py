"""Secrets are never packed unless a user names them, and nothing of a model is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.packing import names, planned, skipped

from mdl.runs.default_excludes import why_excluded

SECRET = """
    token .token token.txt token.json token.pickle hf_token hf_token.txt .hf_token stored_tokens access_token
    access_token.txt refresh-token.json github_token wandb_token.txt .vault-token runpod.token.bak api_key
    api_key.txt apikey.json api_keys.json .openai_api_key openai_api_key.txt wandb_key secret_key.txt
    gcp-key.json sa-key.json google_key.json aws_access_key.csv team_accessKeys.csv rootkey.csv private_key
    ssh_key secret .secret secrets.txt secrets.json .secrets secrets.toml my_secret.txt client_secret.json
    client_secrets.json client_secret_12-ab.apps.googleusercontent.com.json credentials credentials.json
    credentials.csv .git-credentials application_default_credentials.json new_user_credentials.csv password.txt
    .password passwords.csv passphrase service-account.json my_service_account_2.json
    app-firebase-adminsdk-x1.json auth.json .auth.json oauth.json cookies.txt server.key private.key openai.key
    x.KEY x.pem x.p8 x.p12 x.pfx x.der x.ppk x.keystore x.jks x.keytab x.kdbx x.ovpn id_rsa id_rsa.bak
    id_ed25519_work id_ecdsa_sk id_dsa.old ssh_host_rsa_key kubeconfig kubeconfig.yaml dev.kubeconfig krb5cc_0
    .env .env.local prod.env .envrc .ENV .env~ prod.tfvars terraform.tfstate .netrc _netrc .pypirc .npmrc
    .yarnrc.yml .pgpass pgpass.conf .my.cnf .htpasswd .s3cfg .s3curl .boto .passwd-s3fs rclone.conf
    .databrickscfg .cdsapirc .terraformrc credentials.tfrc.json .dockercfg .dockerconfigjson kaggle.json
    .modal.toml .comet.config .sentryclirc .Xauthority .ICEauthority .bash_history .zsh_history .python_history
    .Rhistory .psql_history .mysql_history .sqlite_history .node_repl_history fish_history .lesshst .viminfo
    server.key.bak api_key.txt~ token_old
"""
MODELS_OWN = """
    tokenizer.json tokenizer_config.json tokenizer.model tokenizer special_tokens_map.json added_tokens.json
    tokens.txt tokens.json tokens token_list.txt text_tokens.txt en.token phones.token vocab.tokens bpe.token
    special_token.json eos_token.txt unk_token user_token.txt hf_tokenizer.json token.bin token.safetensors
    token_embedding.npy key key.pt key.bin key.npy keys.json keys.txt hf_keys.json label_key.json
    answer_keys.csv keypoints.json attn.key.weight key_proj.safetensors public.key.bin api.json access.bin
    secretary.bin secret_sauce.safetensors secret.gguf password_model.pt credentials_embedding.npy history.json
    train_history.csv env.json environment.yml config.json cookie_cutter.json authors.json google.json
    derived.bin id_map.json id_to_label.json id_rsa.pub .env.example sample.env .gitattributes .gitignore
    model.pt.dvc vocab.json vocab.txt merges.txt model.safetensors pytorch_model.bin model.ckpt.old optimizer.pt
    trainer_state.json README.md venv.bin wandb.json
"""
FOLDERS = """
    .git .svn wandb .neptune .cache __pycache__ .venv venv .env node_modules .ssh .aws .azure .gcloud .kube
    .docker .gnupg .config .huggingface .kaggle .secrets secrets credentials .ipython .mdl
"""
MODEL_FOLDERS = "token tokens key keys secret tokenizer unet.key env history api_key"


@pytest.mark.fault(281)
def test_secrets_are_excluded_and_a_models_own_files_are_not() -> None:
    """Names that programs and people give to secrets are excluded; vocabularies, weights and settings are not, however
    similar their names are. A model's folder may have the name of a secret."""
    whys = {name: why_excluded(name, is_folder=False) for name in (*SECRET.split(), *MODELS_OWN.split())}
    assert [name for name in SECRET.split() if whys[name] != "may hold a secret"] == []
    assert [name for name in MODELS_OWN.split() if whys[name] is not None] == []
    assert [name for name in FOLDERS.split() if why_excluded(name, is_folder=True) is None] == []
    assert [name for name in MODEL_FOLDERS.split() if why_excluded(name, is_folder=True)] == []


@pytest.mark.fault(281)
def test_secrets_below_are_left_out_and_named(tmp_path: Path) -> None:
    """Deep in a run, too, a submodule's ``.git`` file and a key are left out, and are listed with the reason."""
    below = tmp_path / "run" / "sub" / "deep"
    below.mkdir(parents=True)
    for name in (".git", "server.key", "tokens.txt"):
        (below / name).write_text("gitdir: /elsewhere\n")
    plan = planned(tmp_path / "run", whole_run=True)
    assert names(plan) == {"sub/deep/tokens.txt"}
    assert skipped(plan) == {"sub/deep/.git": "version control", "sub/deep/server.key": "may hold a secret"}


@pytest.mark.fault(281)
def test_a_secret_is_packed_if_it_is_named(tmp_path: Path) -> None:
    """``--include sub/server.key`` packs it, because it is named in full; ``*.key`` and ``*`` do not."""
    (tmp_path / "run" / "sub").mkdir(parents=True)
    for name in ("server.key", "model.bin"):
        (tmp_path / "run" / "sub" / name).write_text("x")
    wanted = ["sub/server.key", "sub/model.bin"]
    assert names(planned(tmp_path / "run", include=wanted)) == {"sub/server.key", "sub/model.bin"}
    assert names(planned(tmp_path / "run", include=["*.key", "*"])) == {"sub/model.bin"}
    assert names(planned(tmp_path / "run")) == {"sub/model.bin"}
