"""Every registered backbone can be trained with either recipe (shapes alone are computed)."""

from __future__ import annotations

import pytest
import torch

from tspcli.encoders import BACKBONES, Heads, TspModel
from tspcli.encoders.backbones import backbone_spec
from tspcli.pretraining.data import clip_sampling, frame_preprocessing
from tspcli.pretraining.optim import parameter_groups
from tspcli.pretraining.training_recipe import load_recipe
from tspcli.pretraining.tsp_losses import Counts, Targets, total_loss, tsp_losses


@pytest.mark.parametrize("name", sorted(BACKBONES))
@pytest.mark.parametrize("recipe_name", ["tsp-activitynet", "tac-activitynet"])
def test_step_of_every_backbone(name: str, recipe_name: str) -> None:
    spec = backbone_spec(name)
    # A training set has one rate: a backbone used to native frames takes the recipe's.
    native = spec.sampling.is_native
    recipe = load_recipe(
        recipe_name,
        {
            "backbone": name,
            "clip_length": spec.sampling.clip_length,
            **({} if native else {"frame_rate": str(spec.sampling.frame_rate)}),
        },
    )
    sampling = clip_sampling(recipe, spec)
    assert sampling.frame_rate == (recipe.rate if native else spec.sampling.frame_rate)
    assert sampling.is_regular  # so that the clip cache serves it
    height, width = frame_preprocessing(recipe, spec.preprocessing).crop
    with torch.device("meta"):
        heads = Heads(7, "region" in recipe.heads, 512 if "region" in recipe.heads else 0)
        model = TspModel(name, heads).train()
        groups = parameter_groups(model, recipe, world_size=2)
        clips = torch.empty(2, 3, recipe.clip_length, height, width)
        gvf = torch.empty(2, 512) if heads.gvf_dim else None
        logits = model(clips, gvf)
        action, region = torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)
        losses = tsp_losses(logits, Targets(action, region))
        total_loss(losses, Counts(2, 2), recipe.alphas).backward()
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    assert all(group["params"] for group in groups), "a group is empty"
    assert [group["lr"] for group in groups] == [0.0, 2 * recipe.backbone_lr, 2 * recipe.head_lr]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
