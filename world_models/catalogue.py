"""WORLD_MODELS and ORACLES: the models of the library by name.

A new model is a file and a line here. An oracle reads what no agent can know. It is for
comparisons, no method.
"""

from __future__ import annotations

from afterwit.world_models.base import WorldModel
from afterwit.world_models.models.ama import AMA
from afterwit.world_models.models.byol_explore import BYOLExplore
from afterwit.world_models.models.byol_hindsight import BYOLHindsight
from afterwit.world_models.models.counts import Counts
from afterwit.world_models.models.disagreement import Disagreement
from afterwit.world_models.models.e3b import E3B
from afterwit.world_models.models.icm import ICM
from afterwit.world_models.models.lpm import LPM
from afterwit.world_models.models.ngu import NGU
from afterwit.world_models.models.noveld import NovelD
from afterwit.world_models.models.re3 import RE3
from afterwit.world_models.models.ride import RIDE
from afterwit.world_models.models.rnd import RND

WORLD_MODELS: dict[str, type[WorldModel]] = {
    "byol-explore": BYOLExplore,
    "byol-hindsight": BYOLHindsight,
    "rnd": RND,
    "icm": ICM,
    "disagreement": Disagreement,
    "ama": AMA,
    "lpm": LPM,
    "ride": RIDE,
    "ngu": NGU,
    "e3b": E3B,
    "noveld": NovelD,
    "re3": RE3,
}
ORACLES: dict[str, type[WorldModel]] = {"counts": Counts}
