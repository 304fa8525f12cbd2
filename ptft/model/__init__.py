"""The dual encoder: towers, projections, logit scale, class head; built, loaded, locked, saved."""

from ptft.model.adapt import check_merged, check_trains, load_adapter, merge, save_adapter
from ptft.model.blocks import layer_depths, tower_blocks
from ptft.model.build import build_model, check_pretrained
from ptft.model.detecting import prepare_detector
from ptft.model.encoder import DualEncoder, join_embeddings
from ptft.model.head import class_head, init_head, rows_for
from ptft.model.lock import active_batch_norm, apply_adapt, scale_learns
from ptft.model.names import open_clip_state_dict
from ptft.model.patch_dropout import set_patch_dropout
from ptft.model.source import load_model
from ptft.model.spec import ModelSpec
from ptft.model.store import load_weights, save_model
from ptft.model.trunk import packs_texts

__all__ = [
    "DualEncoder",
    "ModelSpec",
    "active_batch_norm",
    "apply_adapt",
    "build_model",
    "check_merged",
    "check_pretrained",
    "check_trains",
    "class_head",
    "init_head",
    "join_embeddings",
    "layer_depths",
    "load_adapter",
    "load_model",
    "load_weights",
    "merge",
    "open_clip_state_dict",
    "packs_texts",
    "prepare_detector",
    "rows_for",
    "save_adapter",
    "save_model",
    "scale_learns",
    "set_patch_dropout",
    "tower_blocks",
]
