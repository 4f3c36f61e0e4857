"""The transformers side: play a round, compare, train."""

from equilign.trainers.config import GameConfig
from equilign.trainers.game_trainer import GameTrainer, Progress
from equilign.trainers.mirror import MirrorTrainer
from equilign.trainers.mirror_config import MirrorConfig
from equilign.trainers.references import References
from equilign.trainers.sppo import SPPOConfig, SPPOTrainer

__all__ = [
    "GameConfig",
    "GameTrainer",
    "MirrorConfig",
    "MirrorTrainer",
    "Progress",
    "References",
    "SPPOConfig",
    "SPPOTrainer",
]
