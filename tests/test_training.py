"""The bundled CLIP's training: tokenizer, losses, and a run that survives being killed."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

from data_scripts.bundled import training, zero_shot
from data_scripts.bundled.__main__ import app
from data_scripts.bundled.corpus import build_corpus, draw_pair, phrases
from data_scripts.bundled.losses import clip_loss, inside_loss, presence_loss
from data_scripts.bundled.merges import learn_merges, write_merges
from data_scripts.scenes import NOVEL, THINGS
from rose_kit.encoder import OpenClipEncoder
from rose_kit.encoder.loading import load_bundled

TINY = training.Recipe(
    pictures=500, size=32, phases=((3, 16, (1,), 1.0, 0.0), (6, 32, (1, 2), 2.0, 1.0)), steps=6,
    batch=4, width=32, layers=2, text_width=32, text_layers=1, embed_dim=16, merges=30, warmup=2,
)  # fmt: skip
TEXTS = ["a photo of a car", "two cars and the sea", "a bus, a car and the road"] * 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    build_corpus(folder, TINY.pictures, TINY.size, workers=1)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("merges") / "merges.txt.gz"
    write_merges(learn_merges(TEXTS, 60), path)
    return SimpleTokenizer(str(path), context_length=80)


def test_clip_loss_is_open_clips():
    torch.manual_seed(0)
    image, text = F.normalize(torch.randn(2, 5, 8), dim=-1)
    ours = clip_loss(image, text, torch.tensor(10.0))
    torch.testing.assert_close(ours, ClipLoss()(image, text, torch.tensor(10.0)), atol=1e-6, rtol=0)


def test_training_sees_the_features_that_users_get(tokenizer):
    torch.manual_seed(3)
    model, _ = training.build_model(TINY, tokenizer.vocab_size, tokenizer.context_length)
    encoder = OpenClipEncoder.from_model(model, tokenizer)
    image = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        patches, whole = training.encode_patches(encoder, x), training.encode_pictures(encoder, x)
        expected = encoder.model.encode_image((x - encoder._mean) / encoder._std, normalize=True)
    np.testing.assert_allclose(patches[0], encoder.encode_image(image).values.reshape(-1, 16), atol=1e-5)
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_patch_losses_equal_their_loops(power):
    torch.manual_seed(1)
    log_p = torch.randn(2, 3, 4).log_softmax(-1)
    listed = torch.tensor([[True, False, True, False], [False, True, False, True]])
    m = (log_p.exp() ** power).mean(1) ** (1 / power)  # (B, K)
    pairs = [(b, k) for b in range(2) for k in range(4) if listed[b, k]]
    expected = -sum(torch.log(m[b, k]) + torch.log(m[b, k] / m[:, k].sum()) for b, k in pairs) / len(pairs)
    torch.testing.assert_close(presence_loss(log_p, listed, power), expected, atol=1e-5, rtol=0)
    falls = [-torch.log(log_p.exp()[b, j][listed[b]].sum()) for b in range(2) for j in range(3)]
    torch.testing.assert_close(inside_loss(log_p, listed), sum(falls) / 6, atol=1e-6, rtol=0)


def test_the_corpus_holds_pictures_and_captions_and_nothing_novel(corpus):
    images, captions = build_corpus(corpus, TINY.pictures, TINY.size)
    assert images.shape == (500, 32, 32, 3)
    np.testing.assert_array_equal(images[3], draw_pair(10_000_003, 32)[0])
    assert captions[3] == draw_pair(10_000_003, 32)[1]
    text = " ".join(c for own in captions for c in own)
    forbidden = {w for t in THINGS if t.name in NOVEL for w in (t.name, *t.words)}
    assert not [w for w in forbidden if w in text]
    assert {p for own in captions for c in own for p in phrases(c)} >= {"a car", "the sky"}


UNTIL_KILLED = f"""
import sys, time
from pathlib import Path
from data_scripts.bundled.training import Recipe, train_encoder
out, work = map(Path, sys.argv[1:])
def hang_later(encoder):
    time.sleep(600 * (work / "checkpoint.safetensors").exists())
    return {{}}
train_encoder(out, work, {TINY!r}, hang_later, every=3)
"""


def test_a_killed_run_goes_on_and_ends_where_an_uninterrupted_one_does(tmp_path, corpus):
    straight, broken = (tmp_path / name / "work" for name in "ab")
    for work in (straight, broken):
        work.mkdir(parents=True)
        for file in corpus.iterdir():
            (work / file.name).symlink_to(file)
    training.train_encoder(tmp_path / "a", straight, TINY, every=3)

    process = subprocess.Popen([sys.executable, "-c", UNTIL_KILLED, tmp_path / "b", broken])
    deadline = time.time() + 120
    while not (tmp_path / "b" / "curve.csv").exists() and time.time() < deadline:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert (broken / "checkpoint.safetensors").exists()

    evaluations = []
    training.train_encoder(tmp_path / "b", broken, TINY, lambda encoder: evaluations.append(1) or {}, every=3)
    assert len(evaluations) == 1  # the missing half was run, and nothing twice
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-3, rtol=0)
    assert load_bundled(tmp_path / "b").encode_text(["car", "automobile"]).shape == (2, 16)


def test_the_command_refuses_another_recipe_and_wrong_numbers(refused, run, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(training, "train_encoder", lambda *args: calls.append(args))
    monkeypatch.setattr(zero_shot, "report_card", lambda encoder: {"miou": 1.5})
    where = ("--out", tmp_path / "e", "--work", tmp_path / "w")
    for _ in range(2):  # it may be run again
        run("clear", *where, "--steps", 9, "--seed", 3, app=app)
    assert [(call[2].steps, call[2].seed) for call in calls] == [(9, 3), (9, 3)]
    refused("clear", *where, "--steps", 10, "--seed", 3, said=["10"], app=app)
    for option, value in (("steps", 0), ("every", 0), ("seed", -1), ("pictures", 700)):
        refused("clear", *where, f"--{option}", value, said=[option, value], app=app)
    assert len(calls) == 2
