"""Settings of the split, shared by programs that ask a prompt's side. Standard library only."""

from dataclasses import dataclass

from annotation.splits import SHARES, SIDES
from modelhub.ml.configs import of_site, require


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """Which side a prompt is on that does not say so itself, by its words."""

    # Of training, validation and held-out prompts. The site writes its own into every run, so that
    # a prompt is on one side in its projects and in what is trained.
    split_shares: tuple[float, ...] = of_site("PROMPT_SPLIT_SHARES", SHARES)

    def split_check(self, program: str) -> None:
        """Raise ConfigError unless the shares are three that cut a whole."""
        shares = self.split_shares
        is_whole = len(shares) == len(SIDES) and min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-9
        require(is_whole, program, "split_shares", shares, "three shares that sum to 1")
