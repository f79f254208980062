"""What a vLLM worker must do beside vLLM's own reload, to be right afterwards.

On the CPU vLLM packs the matrices of linear layers into a layout of its own when a model is loaded.
Its `reload_weights` packs them again, except for the output layer's: with an embedding that is the
output layer too (SmolLM2's), an engine so refreshed goes on with the old output layer, and says
nothing. On SmolLM2 its log-probabilities were then off by 0.44 nats a token.
"""

from typing import Any


class WeightRefresh:
    """Mixed into the worker by vLLM (`worker_extension_cls`); called by `collective_rpc`."""

    model_runner: Any

    def lm_head_refresh(self) -> int:
        """Pack embeddings and the output layer anew from their weights. Returns how many were.

        Nothing is packed, and so nothing to do, on an accelerator.
        """
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
        from vllm.model_executor.layers.vocab_parallel_embedding import (
            ParallelLMHead,
            VocabParallelEmbedding,
        )
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            return 0
        packed = [
            module
            for module in self.model_runner.get_model().modules()
            if isinstance(module, ParallelLMHead | VocabParallelEmbedding)
        ]
        for module in packed:
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)
        return len(packed)
