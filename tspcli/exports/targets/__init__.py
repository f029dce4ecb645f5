"""Every target, by name."""

from __future__ import annotations

from tspcli.exports.target import Target
from tspcli.exports.targets.actionformer import ActionFormer
from tspcli.exports.targets.bmn import Bmn
from tspcli.exports.targets.bmt import Bmt
from tspcli.exports.targets.gtad_anet import GtadAnet
from tspcli.exports.targets.gtad_thumos import GtadThumos
from tspcli.exports.targets.mmaction2 import MMAction2
from tspcli.exports.targets.npy import Npy
from tspcli.exports.targets.official import Official
from tspcli.exports.targets.opentad import OpenTad
from tspcli.exports.targets.pdvc import Pdvc

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
