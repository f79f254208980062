"""Settings of the training programs, a file each. Standard library: the web side reads them."""

from alignment.ml.configs.context_distillation import ContextDistillationConfig
from alignment.ml.configs.distill import DistillConfig
from alignment.ml.configs.dpo import DpoConfig
from alignment.ml.configs.ensemble import EnsembleConfig
from alignment.ml.configs.evaluate import EvaluateConfig
from alignment.ml.configs.ghost_attention import GhostAttentionConfig
from alignment.ml.configs.grpo import GrpoConfig
from alignment.ml.configs.import_questions import ImportQuestionsConfig
from alignment.ml.configs.judge import JudgeConfig
from alignment.ml.configs.kto import KtoConfig
from alignment.ml.configs.merge_adapter import MergeAdapterConfig
from alignment.ml.configs.online import GroupSettings, OnlineSettings
from alignment.ml.configs.online_dpo import OnlineDpoConfig
from alignment.ml.configs.orpo import OrpoConfig
from alignment.ml.configs.ppo import PpoConfig
from alignment.ml.configs.quantise import QuantiseConfig
from alignment.ml.configs.rate import RateConfig
from alignment.ml.configs.rejection import RejectionConfig
from alignment.ml.configs.revise import ReviseConfig
from alignment.ml.configs.reward import RewardConfig
from alignment.ml.configs.rloo import RlooConfig
from alignment.ml.configs.self_instruct import SelfInstructConfig
from alignment.ml.configs.sft import SftConfig

__all__ = [
    "ContextDistillationConfig",
    "DistillConfig",
    "DpoConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "GhostAttentionConfig",
    "GroupSettings",
    "GrpoConfig",
    "ImportQuestionsConfig",
    "JudgeConfig",
    "KtoConfig",
    "MergeAdapterConfig",
    "OnlineDpoConfig",
    "OnlineSettings",
    "OrpoConfig",
    "PpoConfig",
    "QuantiseConfig",
    "RateConfig",
    "RejectionConfig",
    "ReviseConfig",
    "RewardConfig",
    "RlooConfig",
    "SelfInstructConfig",
    "SftConfig",
]
