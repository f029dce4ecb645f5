from __future__ import annotations

import numpy as np
import pytest
import torch

from tspcli.errors import LocalizationError, UsageError
from tspcli.localization.classes import (
    ActionHeadClassifier,
    ClassHead,
    ClassSamples,
    train_class_head,
)
from tspcli.localization.localize_config import ClassConfig

CENTER_S = np.arange(10) + 0.5


def clusters(seed: int) -> ClassSamples:
    """Three classes of features; the same three for every seed."""
    centers = np.random.default_rng(7).normal(size=(3, 8), scale=3)
    rng = np.random.default_rng(seed)
    targets = rng.integers(3, size=150)
    features = 100 + centers[targets] + rng.normal(size=(150, 8))
    return ClassSamples(features.astype(np.float32), targets)


@pytest.mark.parametrize("hidden", [0, 16])
def test_a_class_head_learns_classes_of_other_samples(hidden: int) -> None:
    torch.manual_seed(0)
    head = ClassHead(8, ["a", "b", "c"], ClassConfig(hidden=hidden))
    train_class_head(head, clusters(0), seed=0)
    other = clusters(1)
    start_s = np.arange(150.0)
    chances = head.probabilities(other.features, start_s + 0.5, start_s, start_s + 1)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert (chances.argmax(axis=1) == other.targets).mean() > 0.95


def test_training_a_class_head_repeats_itself() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        head = ClassHead(8, ["a", "b", "c"], ClassConfig(epochs=3))
        train_class_head(head, clusters(0), seed=5)
        weights.append(head.layers.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])


def test_a_video_head_says_the_same_everywhere() -> None:
    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32)
    starts, ends = np.array([0.0, 4.0]), np.array([2.0, 9.0])
    by_video = ClassHead(8, ["a", "b"], ClassConfig(source="video"))
    chances = by_video.probabilities(rows, CENTER_S, starts, ends)
    np.testing.assert_allclose(chances[0], chances[1])
    with torch.inference_mode():
        expected = by_video(torch.from_numpy(rows.mean(axis=0))).softmax(dim=0).numpy()
    np.testing.assert_allclose(chances[0], expected, atol=1e-6)
    by_segment = ClassHead(8, ["a", "b"], ClassConfig())
    chances = by_segment.probabilities(rows, CENTER_S, starts, ends)
    assert not np.allclose(chances[0], chances[1])


def test_the_action_head_is_averaged_over_a_proposals_clips() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    classifier = ActionHeadClassifier(("a", "b", "c"), lambda features: 2 * features)
    chances = classifier.probabilities(rows, CENTER_S, np.array([2.0]), np.array([5.0]))
    logits = 2 * rows[2:5].mean(axis=0)
    np.testing.assert_allclose(chances[0], np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
    wrong = ActionHeadClassifier(("a", "b"), lambda features: features)
    with pytest.raises(LocalizationError, match="3 classes and 2 names"):
        wrong.probabilities(rows, CENTER_S, np.array([2.0]), np.array([5.0]))


def test_nothing_to_learn_from_is_an_error() -> None:
    none = ClassSamples(np.zeros((0, 8), np.float32), np.zeros(0, np.int64))
    with pytest.raises(LocalizationError, match="no annotated action"):
        train_class_head(ClassHead(8, ["a"], ClassConfig()), none, seed=0)
    with pytest.raises(UsageError, match="'guess'"):
        ClassConfig(source="guess")  # type: ignore[arg-type]  # what is refused
