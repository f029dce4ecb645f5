"""Every target, by name."""

from __future__ import annotations

from tspcli.features.exports.actionformer import ActionFormer
from tspcli.features.exports.bmn import Bmn
from tspcli.features.exports.bmt import Bmt
from tspcli.features.exports.gtad_anet import GtadAnet
from tspcli.features.exports.gtad_thumos import GtadThumos
from tspcli.features.exports.mmaction2 import MMAction2
from tspcli.features.exports.npy import Npy
from tspcli.features.exports.official import Official
from tspcli.features.exports.opentad import OpenTad
from tspcli.features.exports.pdvc import Pdvc
from tspcli.features.exports.target import Target

TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (
        Official,
        GtadAnet,
        GtadThumos,
        Bmn,
        MMAction2,
        Bmt,
        ActionFormer,
        OpenTad,
        Pdvc,
        Npy,
    )
}
"""Every reader that can be written for, by name."""
