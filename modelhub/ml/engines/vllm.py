"""Sample with vLLM, inside this process.

In-process (VLLM_ENABLE_V1_MULTIPROCESSING=0): a program that is killed leaves no engine behind.

Log-probabilities are vLLM's "raw_logprobs": log-softmax of the logits before temperature, top-k
and top-p.

New weights are taken in place (`refresh`), in a fraction of a second where a new engine takes half
a minute. vLLM's own reload is not whole on the CPU: see `vllm_refresh`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Read by vLLM when it is imported.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
# Threads are bound to cores by the process that starts a worker; there is none here, and a bound
# program would fight for its cores with the site's other processes.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

import torch
import vllm
from vllm import LLM, SamplingParams
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest

from modelhub.ml.adapter_directory import vllm_rank
from modelhub.ml.chat import answer_decode
from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import Answer, Drawn, Sample

_MAX_SEQUENCES = 256
_MIN_STEP_TOKENS = 32_768
_KV_BLOCK_TOKENS = 128


class VllmEngine:
    """One model in vLLM. See the protocols Engine and Sampler."""

    name = "vllm"
    load_s = 0.0

    def __init__(
        self,
        folder: Path,
        config: GenerateConfig,
        *,
        tokenizer: Any,
        stop_ids: tuple[int, ...],
        context_tokens: int,
        base: Path | None = None,
    ) -> None:
        """context_tokens: the longest prompt and answer together that will be asked. base: the
        model under `folder`, if that is an adapter.

        Raises RefusedError for an adapter that vLLM does not serve.
        """
        self.version = vllm.__version__
        self._config, self._tokenizer, self._stop_ids = config, tokenizer, stop_ids
        self._adapter = None
        adapted: dict[str, Any] = {}
        if base is not None:
            rank = vllm_rank(folder)
            adapted = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
            self._adapter = LoRARequest("adapter", 1, str(folder))
            folder = base
        settings: dict[str, Any] = {
            **adapted,
            "model": str(folder),
            "dtype": config.dtype,
            "load_format": "safetensors",  # never a pickle
            "trust_remote_code": False,
            "skip_tokenizer_init": True,  # prompts go in and answers come out as tokens
            "generation_config": "vllm",  # not the defaults that came with the model
            "max_model_len": context_tokens,
            "max_num_seqs": _MAX_SEQUENCES,
            # A seeded request whose prompt is prefilled in parts kills the engine on the CPU ("CPU
            # Generator does not use offset"), so no prompt is ever split: without chunked prefill a
            # prompt that does not fit into a step waits for the next.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(_MIN_STEP_TOKENS, context_tokens),
            "enable_prefix_caching": True,  # a prompt's samples share its prefill
            "seed": config.seed & 0x7FFFFFFF,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "worker_extension_cls": "modelhub.ml.engines.vllm_refresh.WeightRefresh",
        }
        if not torch.cuda.is_available():
            settings["enforce_eager"] = True  # compiling takes longer than it saves here
            settings["kv_cache_memory_bytes"] = _kv_cache_bytes(folder, config, context_tokens)
        self._llm = LLM(**settings)

    def generate(self, samples: Sequence[Sample], finished: Callable[[int], None]) -> list[Answer]:
        return [self._answer(output) for output in self._outputs(samples, finished)]

    def draw(self, samples: Sequence[Sample], finished: Callable[[int], None]) -> list[Drawn]:
        return [
            Drawn(
                tokens=tuple(output.token_ids),
                logprobs=tuple(
                    step[token].logprob
                    for step, token in zip(output.logprobs, output.token_ids, strict=True)
                ),
                finish_reason=output.finish_reason,
            )
            for output in self._outputs(samples, finished)
        ]

    def refresh(self, weights: Mapping[str, torch.Tensor]) -> None:
        # The engine is in this process: nothing is written to disk or sent anywhere.
        self._llm.collective_rpc(
            "reload_weights", kwargs={"weights_iterator": iter(weights.items())}
        )
        self._llm.collective_rpc("lm_head_refresh")
        self._llm.reset_prefix_cache()

    def virtual_set(self, embeddings_WC: Any | None, layers: Sequence[tuple[Any, Any]]) -> None:
        raise RefusedError("vLLM serves no prefix or P-tuning adapter: take engine transformers")

    def logprobs(self, sequences: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        self._llm.reset_prefix_cache()
        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=[*prompt, *answer]) for prompt, answer in sequences],
            # One token more is the least that can be asked for.
            SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False),
            use_tqdm=False,
        )
        return [
            [
                step[token].logprob
                for step, token in zip(output.prompt_logprobs[len(prompt) :], answer, strict=True)
            ]
            for output, (prompt, answer) in zip(outputs, sequences, strict=True)
        ]

    def _outputs(self, samples: Sequence[Sample], finished: Callable[[int], None]) -> list[Any]:
        # What an earlier chunk left in the cache would change how this one is batched.
        self._llm.reset_prefix_cache()
        prompts = [TokensPrompt(prompt_token_ids=list(one.prompt_tokens)) for one in samples]
        asked = [
            SamplingParams(
                n=1,
                seed=sample.seed,
                temperature=sample.temperature,
                top_p=self._config.top_p,
                top_k=self._config.top_k,
                max_tokens=self._config.max_tokens,
                stop_token_ids=list(self._stop_ids),
                logprobs=0,  # of the sampled token alone
                detokenize=False,
            )
            for sample in samples
        ]
        outputs = self._llm.generate(prompts, asked, use_tqdm=False, lora_request=self._adapter)
        finished(len(samples))
        return [output.outputs[0] for output in outputs]

    def _answer(self, output: Any) -> Answer:
        tokens = list(output.token_ids)
        stopped = output.finish_reason == "stop"
        written = tokens[:-1] if stopped and tokens and tokens[-1] in self._stop_ids else tokens
        return Answer(
            text=answer_decode(self._tokenizer, written),
            token_count=len(tokens),
            finish_reason=output.finish_reason,
            mean_logprob=output.cumulative_logprob / len(tokens),
        )


def _kv_cache_bytes(folder: Path, config: GenerateConfig, context_tokens: int) -> int:
    """Room for a whole chunk at its longest, at most a quarter of the machine's memory.

    Fixed by the configuration and the machine, not by what is free right now: with less room some
    requests are computed twice, and the numbers of a resumed run would differ in the last bits.
    """
    from transformers import AutoConfig

    model = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    heads = getattr(model, "num_key_value_heads", None) or model.num_attention_heads
    head_size = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    number_bytes = 4 if config.dtype == "float32" else 2
    token_bytes = 2 * model.num_hidden_layers * heads * head_size * number_bytes
    sequences = min(_MAX_SEQUENCES, max(config.chunk_samples, config.samples))
    blocks = sequences * -(-context_tokens // _KV_BLOCK_TOKENS) + 8
    wanted = blocks * _KV_BLOCK_TOKENS * token_bytes
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    least = -(-context_tokens // _KV_BLOCK_TOKENS + 1) * _KV_BLOCK_TOKENS * token_bytes
    if least > memory // 4:
        raise RefusedError(
            f"one answer of {context_tokens} tokens takes {least >> 20:,} MiB of cache; "
            f"this machine has {memory >> 20:,} MiB of memory"
        )
    return min(wanted, memory // 4)
