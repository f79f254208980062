"""What the mixture's samples cost, at the beginning of a run and far in.

    python -m benchmarks.bench_pretraining.sampler

JSON lines on standard output: microseconds a sample, of the processor, in batches of 1,024 as a
large step draws them, for positions up to a thousand million; and the seconds that a mixture takes
to be built and to go on there. Nothing is kept between samples, so nothing is read again.
"""

import json
import time

from modelhub.ml.mixture import LLAMA_SHARES, Blend, Mixture, Source

BATCH, BATCHES = 1024, 200
SAMPLES = 2_000_000_000
POSITIONS = (0, 1_000_000, 100_000_000, 1_000_000_000)


def mixture_make() -> Mixture:
    """LLaMA's seven sources, a blend that changes at a quarter and again at three eighths."""
    sources = [
        Source(name=name, blocks=int(share * 500_000_000)) for name, share in LLAMA_SHARES.items()
    ]
    shares = tuple(LLAMA_SHARES.values())
    blends = [
        Blend(first_sample=first, run_samples=SAMPLES, shares=one)
        for first, one in (
            (0, shares),
            (SAMPLES // 4, shares[::-1]),
            (3 * SAMPLES // 8, shares),
        )
    ]
    return Mixture(sources, blends, seed=0)


def main() -> None:
    for position in POSITIONS:
        began = time.process_time()
        mixture = mixture_make()
        mixture.draw(position, 1)
        first_s = time.process_time() - began
        began = time.process_time()
        for batch in range(BATCHES):
            mixture.draw(position + batch * BATCH, BATCH)
        taken = time.process_time() - began
        told = {
            "measured": "mixture sampler",
            "position": position,
            "microseconds_a_sample": round(1e6 * taken / (BATCH * BATCHES), 3),
            "seconds_to_begin_there": round(first_s, 4),
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
