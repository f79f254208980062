"""From texts to a base model."""

from alignment.methods.method import (
    POLICIES,
    Input,
    Method,
    Preset,
)
from modelhub.ml.corpora.configs import CleanCorpusConfig
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.tokenising.configs import TokeniseConfig, TrainTokenizerConfig

PRETRAINING = (
    Method(
        config=CleanCorpusConfig,
        title="Cleaning a corpus",
        about="Rules, duplicates, contamination and personal data: what is left, and a report.",
        docs="pretraining.md",
        inputs=(
            Input(role="corpus", title="Corpus", kinds=("corpus",)),
            Input(
                role="known",
                title="Corpora already had: what repeats them goes",
                kinds=("corpus",),
                is_required=False,
                is_many=True,
            ),
            Input(
                role="evaluation",
                title="Evaluation sets: what shares words with them goes",
                kinds=("prompts", "corpus", "references"),
                is_required=False,
                is_many=True,
            ),
            Input(
                role="held_out",
                title="Held-out prompts of projects",
                of_project=("held_out",),
                is_required=False,
                is_many=True,
            ),
            Input(
                role="bad_words",
                title="Lists of bad words, a word a line: documents that hold one go",
                kinds=("corpus",),
                is_word_list=True,
                is_required=False,
                is_many=True,
            ),
        ),
        presets=(
            Preset(
                name="gopher",
                title="Gopher (arXiv:2112.11446, A.1.1)",
                settings={"families": ["gopher"], "near_similarity_min": 0.8},
            ),
            Preset(
                name="duplicates",
                title="Duplicates and contamination alone",
                settings={"families": [], "scrub_pii": False},
            ),
        ),
    ),
    Method(
        config=TrainTokenizerConfig,
        title="Training a tokenizer",
        about="Byte-level BPE, WordPiece or unigram, on a mixture of corpora, with its fertility.",
        docs="pretraining.md",
        inputs=(
            Input(role="corpus", title="Corpora", kinds=("corpus",), is_many=True),
            Input(
                role="reference",
                title="Tokenizer to compare with",
                kinds=("tokenizer", "model"),
                is_required=False,
            ),
        ),
        presets=(
            Preset(
                name="novel",
                title="A novel: byte-level BPE of 8,192",
                settings={"vocabulary": 8192},
            ),
            Preset(
                name="bert",
                title="BERT (arXiv:1810.04805): WordPiece of 30,522, with a mask",
                settings={
                    "algorithm": "wordpiece",
                    "vocabulary": 30_522,
                    "mask": True,
                    "chat": False,
                },
            ),
        ),
    ),
    Method(
        config=TokeniseConfig,
        title="Tokenising a corpus",
        about="A token set of a corpus: what pretraining reads.",
        docs="pretraining.md",
        inputs=(
            Input(role="corpus", title="Corpus", kinds=("corpus",)),
            Input(role="tokenizer", title="Tokenizer", kinds=("tokenizer", "model")),
        ),
    ),
    Method(
        config=PretrainConfig,
        title="Pretraining",
        about="A base model from tokens, or one that goes on with the texts of a domain.",
        docs="pretraining.md",
        inputs=(
            Input(
                role="base",
                title="Go on from (a new model needs none)",
                versions=POLICIES,
                is_required=False,
            ),
            Input(
                role="tokenizer",
                title="Tokenizer (of a new model)",
                versions=POLICIES,
                kinds=("tokenizer",),
                is_required=False,
            ),
            Input(role="tokens", title="Tokens", kinds=("tokens",), is_many=True),
            Input(
                role="replay",
                title="General tokens beside a domain's",
                kinds=("tokens",),
                is_required=False,
                is_many=True,
            ),
        ),
        registers="base",
        takes_processes=True,
        presets=(
            Preset(
                name="novel",
                title="A novel on a laptop, in minutes",
                settings=PretrainConfig.PRESETS["novel"],
            ),
            Preset(
                name="gpt2",
                title="GPT-2's smallest (arXiv:2005.14165, table 2.1)",
                settings=PretrainConfig.PRESETS["gpt2-124m"],
            ),
            Preset(
                name="llama",
                title="LLaMA 7B (arXiv:2302.13971, 2.3)",
                settings=PretrainConfig.PRESETS["llama-7b"],
            ),
            Preset(
                name="bloom",
                title="BLOOM 560M, ALiBi (arXiv:2211.05100, table 3)",
                settings=PretrainConfig.PRESETS["bloom-560m"],
            ),
            Preset(
                name="mixtral",
                title="Mixtral 8x7B, experts (arXiv:2401.04088, table 1)",
                settings=PretrainConfig.PRESETS["mixtral-8x7b"],
            ),
            Preset(
                name="t5",
                title="T5 base, spans (arXiv:1910.10683, 3.1)",
                settings=PretrainConfig.PRESETS["t5-base"],
            ),
            Preset(
                name="bert",
                title="BERT base, masked (arXiv:1810.04805, A.2)",
                settings=PretrainConfig.PRESETS["bert-base"],
            ),
            Preset(
                name="rwkv",
                title="RWKV 169M (arXiv:2305.13048)",
                settings=PretrainConfig.PRESETS["rwkv-169m"],
            ),
        ),
    ),
)
