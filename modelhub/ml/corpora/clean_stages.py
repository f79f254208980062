"""Cleaning a corpus as stages (stages.py): what each leaves for the next."""

import functools
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelhub.ml.corpora import cleaning, duplicates
from modelhub.ml.corpora.configs import CleanCorpusConfig
from modelhub.ml.corpora.contamination import Hit
from modelhub.ml.corpora.documents import (
    CorpusError,
    Document,
    corpus_shards,
    shard_count,
    shard_documents,
    shard_rows,
    shard_signals,
)
from modelhub.ml.corpora.import_corpus import document_chunks
from modelhub.ml.corpora.rules import thresholds_of
from modelhub.ml.corpora.stage_files import (
    Counts,
    Part,
    Plan,
    files_begin,
    is_prepared,
    json_replace,
    made_whole,
    mine,
    part_writer,
    parts_sha256,
    shards_gather,
)
from modelhub.ml.records import json_canonical
from modelhub.ml.rundir import RunDir

SHARE_DOCUMENTS = 50_000_000  # texts whose hashes a task of `compare` sorts, or about so many


def prepare(run_path: Path, _rank: int, _tasks: int) -> Counts:
    if is_prepared(run_path):
        return {}
    run = RunDir(run_path)
    config = run.config(CleanCorpusConfig)
    files = files_begin(run)
    folder = run.input("corpus")
    known = [run.input(role) for role in run.input_roles() if role.startswith("known_")]
    cleaning.signals_check(folder)
    index = cleaning.index_write(run, config, files)
    bad_words = cleaning.word_list_write(run, files)
    parts = [(shard, shard_count(shard), -1) for one in known for shard in corpus_shards(one)]
    start = 0
    for shard in corpus_shards(folder):
        parts.append((shard, shard_count(shard), start))
        start += parts[-1][1]
    if not start:
        raise CorpusError("the corpus has no documents")
    run.output("corpus")
    total = sum(count for _, count, _ in parts)
    Plan.write(
        run.path,
        parts,
        shares=-(-total // SHARE_DOCUMENTS),
        has_index=index is not None,
        has_bad_words=bad_words is not None,
    )
    return {"documents": start, "shards": len(parts)}


def examine(run: Path, rank: int, tasks: int) -> Counts:
    plan = Plan(run)
    counts: Counter[str] = Counter()
    for part in mine(plan.parts, rank, tasks):
        if not plan.examined(part).exists():
            counts += _part_examine(plan, part)
    return counts


def _part_examine(plan: Plan, part: Part) -> Counter[str]:
    """steps.npy, exact.npy, keys.npy, signatures.npy, hits.jsonl and said.json of a shard."""
    config = plan.load(CleanCorpusConfig)
    thresholds = thresholds_of(config.families, config.thresholds)
    verdicts = cleaning.Verdicts.of(part.documents, config, thresholds, bad_words=plan.bad_words)
    is_own = part.start >= 0
    if is_own:
        cleaning.rules_drop(verdicts, shard_signals(part.shard), config, thresholds)
    rows = verdicts.kept()
    texts = _kept(shard_documents(part.shard), verdicts.step_N == cleaning.KEPT)
    found = [
        one
        for chunk in document_chunks(texts)
        for one in cleaning.texts_examine(
            [document.text for document in chunk],
            config=config,
            index=plan.index if is_own else None,
            bad_words=plan.bad_words if is_own else None,
        )
    ]
    for row, one in zip(rows.tolist(), found, strict=True):
        if one.bad:
            verdicts.alone[cleaning.WORDS] += 1
            verdicts.drop(row, cleaning.WORDS, one.bad)
    rows, found = verdicts.kept(), [one for one in found if not one.bad]
    exact = b"".join(one.exact for one in found)
    hashes = config.near_bands * config.near_rows
    signatures_NH = np.array([one.signature for one in found], np.uint32).reshape(-1, hashes)
    bands = range(config.near_bands)
    keys = [duplicates.band_keys(signatures_NH, band, config.near_rows) for band in bands]
    lines = [
        {"row": row, "hits": [[hit.gram, hit.start, hit.end] for hit in one.hits]}
        for row, one in zip(rows.tolist(), found, strict=True)
        if one.hits
    ]
    with made_whole(plan.examined(part)) as folder:
        np.save(folder / "steps.npy", verdicts.step_N)
        np.save(folder / "exact.npy", np.frombuffer(exact, np.uint64).reshape(-1, 2))
        np.save(folder / "keys.npy", np.stack(keys))
        np.save(folder / "signatures.npy", signatures_NH)
        with (folder / "hits.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json_canonical(line) + "\n" for line in lines)
        because = list(verdicts.because.items())
        json_replace(folder / "said.json", {"alone": verdicts.alone, "because": because})
    dropped = np.bincount(
        verdicts.step_N[verdicts.step_N != cleaning.KEPT], minlength=len(verdicts.steps)
    )
    named = zip(verdicts.steps, dropped.tolist(), strict=True)
    return Counter({"examined": len(rows)} | {name: count for name, count in named if count})


class _Signatures:
    """All parts' signatures as one array, read where they are asked for."""

    def __init__(self, paths: Sequence[Path], starts: np.ndarray) -> None:
        """starts: number of each part's first text, and the count of all."""
        self._paths, self._starts = paths, starts
        self._open = functools.lru_cache(maxsize=256)(lambda path: np.load(path, mmap_mode="r"))

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        parts = np.searchsorted(self._starts, numbers, "right") - 1
        found: np.ndarray | None = None
        for part in np.unique(parts).tolist():
            at = np.flatnonzero(parts == part)
            rows = self._open(self._paths[part])[numbers[at] - self._starts[part]]
            if found is None:
                found = np.empty((len(numbers), rows.shape[1]), rows.dtype)
            found[at] = rows
        return np.empty((0, 0), np.uint32) if found is None else found


def _compared(plan: Plan, band: int, share: int) -> Path:
    return plan.files / "compared" / f"{band}-{share}"


def _units(plan: Plan, config: CleanCorpusConfig) -> list[tuple[int, int]]:
    """(band, share) of all that `compare` has to do; the exact hashes are band -1."""
    kinds = [-1] if config.exact_duplicates else []
    kinds += range(config.near_bands) if config.near_duplicates else []
    return [(kind, share) for kind in kinds for share in range(plan.shares)]


def compare(run: Path, rank: int, tasks: int) -> Counts:
    """pairs.npy of each band's shares: pairs of (earlier, later) by number."""
    plan = Plan(run)
    config = plan.load(CleanCorpusConfig)
    folders = [plan.examined(part) for part in plan.parts]
    starts = np.cumsum([0, *(len(np.load(one / "exact.npy", mmap_mode="r")) for one in folders)])
    signatures = _Signatures([one / "signatures.npy" for one in folders], starts)
    counts: Counter[str] = Counter()
    for band, share in mine(_units(plan, config), rank, tasks):
        if _compared(plan, band, share).exists():
            continue
        numbers, values = _of_share(folders, starts, band, share, plan.shares)
        if band < 0:
            firsts = duplicates.exact_duplicates(values)
            again = np.flatnonzero(firsts != np.arange(len(firsts)))
            pairs = np.stack([numbers[firsts[again]], numbers[again]], 1)
        else:
            near = numbers[duplicates.band_pairs(values)]
            pairs = duplicates.pairs_alike(signatures, near, config.near_similarity_min)
        counts["exact pairs" if band < 0 else "near pairs"] += len(pairs)
        with made_whole(_compared(plan, band, share)) as folder:
            np.save(folder / "pairs.npy", pairs)
    return counts


def _of_share(
    folders: Sequence[Path], starts: np.ndarray, band: int, share: int, shares: int
) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of the texts in a share, their hashes or the keys of a band). Equal ones share."""
    numbers, values = [], []
    for folder, start in zip(folders, starts.tolist(), strict=False):
        if band < 0:
            value = np.load(folder / "exact.npy")
            mine = np.flatnonzero(value[:, 0] % np.uint64(shares) == share)
        else:
            value = np.load(folder / "keys.npy", mmap_mode="r")[band]
            mine = np.flatnonzero(value % np.uint64(shares) == share)
        numbers.append(start + mine)
        values.append(value[mine])
    return np.concatenate(numbers), np.concatenate(values)


def decide(run: Path, _rank: int, _tasks: int) -> Counts:
    """decided.json, steps.npy and firsts.npy: what becomes of each document."""
    plan = Plan(run)
    if plan.decided.exists():
        return {}
    config = plan.load(CleanCorpusConfig)
    thresholds = thresholds_of(config.families, config.thresholds)
    verdicts = cleaning.Verdicts.of(plan.count, config, thresholds, bad_words=plan.bad_words)
    known, hits = 0, []
    for part in plan.parts:
        folder = plan.examined(part)
        if part.start < 0:
            known += part.documents
            continue
        verdicts.step_N[part.start : part.start + part.documents] = np.load(folder / "steps.npy")
        verdicts.alone.update(json.loads((folder / "said.json").read_text())["alone"])
        hits += [(part.start + row, one) for row, one in _hits_read(folder)]
    places = np.concatenate([-1 - np.arange(known), verdicts.kept()])
    groups = cleaning.duplicates_drop(
        verdicts,
        places,
        _joined(plan, len(places), [-1]) if config.exact_duplicates else None,
        _joined(plan, len(places), range(config.near_bands)) if config.near_duplicates else None,
    )
    phrases = cleaning.set_phrases((one for _, one in hits), config.contamination_documents_max)
    for place in cleaning.hits_telling(hits, phrases):
        verdicts.alone[cleaning.CONTAMINATED] += 1
        if config.contamination_drop:
            verdicts.drop(place, cleaning.CONTAMINATED)  # by what, the stage says that has the text
    most = groups.most_common(cleaning.REPEATED_SHOWN)
    facts = {"alone": verdicts.alone, "most_repeated": most, "phrases": sorted(phrases)}
    with made_whole(plan.decided) as folder:
        np.save(folder / "steps.npy", verdicts.step_N)
        np.save(folder / "firsts.npy", verdicts.first_N)
        json_replace(folder / "decided.json", facts)
    return {"kept": len(verdicts.kept()), "dropped": plan.count - len(verdicts.kept())}


def _joined(plan: Plan, count: int, bands: Sequence[int]) -> np.ndarray:
    """Of each text examined the first of its group, itself where it is alone."""
    firsts = np.arange(count)
    for band in bands:
        for share in range(plan.shares):
            pairs = np.load(_compared(plan, band, share) / "pairs.npy")
            duplicates.groups_join(firsts, pairs)
    return duplicates.groups_settle(firsts)


def write(run: Path, rank: int, tasks: int) -> Counts:
    plan = Plan(run)
    counts: Counter[str] = Counter()
    for part in mine(plan.own, rank, tasks):
        if not _written(plan, part).exists():
            counts += _part_write(plan, part)
    return counts


def _written(plan: Plan, part: Part) -> Path:
    return plan.files / "written" / f"{part.number:05d}"


def _part_write(plan: Plan, part: Part) -> Counter[str]:
    config = plan.load(CleanCorpusConfig)
    decided = json.loads((plan.decided / "decided.json").read_text())
    steps = np.load(plan.decided / "steps.npy", mmap_mode="r")
    is_kept_N = np.array(steps[part.start : part.start + part.documents] == cleaning.KEPT)
    telling = cleaning.hits_telling(_hits_read(plan.examined(part)), set(decided["phrases"]))
    reports: list[dict[str, Any]] = []

    def rows() -> Iterator[tuple[Document, dict[str, Any]]]:
        for row, (document, signals) in enumerate(shard_rows(part.shard)):
            if row in telling and plan.index is not None:
                place = part.start + row
                reports.extend(
                    cleaning.contamination_reports(plan.index, place, document, telling[row])
                )
            if is_kept_N[row]:
                yield document, signals

    written = cleaning.Written()
    places = (part.start + np.flatnonzero(is_kept_N)).tolist()
    with made_whole(_written(plan, part)) as folder:
        with part_writer(folder, part.number) as writer:
            for _ in cleaning.kept_write(rows(), places, writer, written, config, workers=1):
                pass
        told = {
            "counts": written.counts.told(),
            "scrubbed": written.scrubbed,
            "emptied": written.emptied,
            "contamination": reports,
        }
        json_replace(folder / "told.json", told)
    return Counter({"written": written.counts.documents, **written.scrubbed})


def finish(run_path: Path, _rank: int, _tasks: int) -> Counts:
    plan = Plan(run_path)
    run = RunDir(run_path)
    config = run.config(CleanCorpusConfig)
    thresholds = thresholds_of(config.families, config.thresholds)
    decided = json.loads((plan.decided / "decided.json").read_text())
    verdicts = cleaning.Verdicts.of(plan.count, config, thresholds, bad_words=plan.bad_words)
    verdicts.step_N = np.load(plan.decided / "steps.npy")
    verdicts.first_N = np.load(plan.decided / "firsts.npy")
    verdicts.alone = Counter(decided["alone"])
    written, found = cleaning.Written(), []
    contaminated = verdicts.steps.index(cleaning.CONTAMINATED)
    for part in plan.own:
        said = json.loads((plan.examined(part) / "said.json").read_text())
        verdicts.because |= {part.start + row: words for row, words in said["because"]}
        told = json.loads((_written(plan, part) / "told.json").read_text())
        written.counts.add_told(told["counts"])
        written.scrubbed.update(told["scrubbed"])
        found += told["contamination"]
        for place in told["emptied"]:
            verdicts.alone[cleaning.EMPTIED] += 1
            verdicts.drop(place, cleaning.EMPTIED)
    for report in reversed(found):  # of several items of a document the first is its reason
        if verdicts.step_N[report["place"]] == contaminated:
            verdicts.because[report["place"]] = cleaning.contamination_because([report])
    if not written.counts.documents:
        raise CorpusError(
            f"nothing is left of {plan.count} documents: {cleaning.funnel(verdicts, plan.count)}"
        )
    cleaning.report_write(run.output("report"), verdicts, found)
    most = decided["most_repeated"]
    result = cleaning.origin(plan.own[0].shard.parent) | cleaning.result_make(
        config, thresholds, verdicts, plan.count, written, most, found, plan.index
    )
    written_parts = [_written(plan, part) for part in plan.own]
    compared = [_compared(plan, *unit) for unit in _units(plan, config)]
    run.succeed(
        outputs={"corpus": "corpus", "report": "evaluation"},
        result=result,
        program=__name__,
        stages={
            "examine": parts_sha256(plan.examined(part) for part in plan.parts),
            "compare": parts_sha256(compared),
            "decide": parts_sha256([plan.decided]),
            "write": parts_sha256(written_parts),
        },
        files={"corpus": shards_gather(run_path, written_parts)},
    )
    shutil.rmtree(plan.files)
    return {"documents": written.counts.documents}


def _kept(items: Iterator[Document], is_kept_N: np.ndarray) -> Iterator[Document]:
    return (one for one, is_kept in zip(items, is_kept_N.tolist(), strict=True) if is_kept)


def _hits_read(folder: Path) -> list[tuple[int, list[Hit]]]:
    """(row of its shard, hits) of each document that shares words with an item."""
    with (folder / "hits.jsonl").open(encoding="utf-8") as file:
        lines = map(json.loads, file)
        return [(line["row"], [Hit(*hit) for hit in line["hits"]]) for line in lines]
