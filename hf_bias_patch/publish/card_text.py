"""The text of a model's card, made from the facts beside the model. No figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.evidence.certificate import Certificate, ErrorFigure
from hf_bias_patch.patching.base_card import sealed
from hf_bias_patch.patching.folds import FOLDS
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.preserved import FLAGS
from hf_bias_patch.patching.record import BEFORE, CERTIFICATE, frozen_slots
from hf_bias_patch.patching.summary import by_label, places, stays
from hf_bias_patch.patching.wording import told_apart
from hf_bias_patch.publish.bias_norms import FIGURE
from hf_bias_patch.publish.facts import Facts
from hf_bias_patch.publish.loading_section import loading, pipeline_tag
from hf_bias_patch.publish.markdown import link, table
from hf_bias_patch.publish.scores import data_of
from hf_bias_patch.publish.training_sections import removed, tasks, training_sections

__all__ = ["LOSSY", "card_text", "lossy_notice"]

_PAPER = """@article{namazifar2023role,
  title   = {Role of Bias Terms in Dot-Product Attention},
  author  = {Namazifar, Mahdi and Hazarika, Devamanyu and Hakkani-Tur, Dilek},
  journal = {arXiv preprint arXiv:2302.08626},
  year    = {2023}
}"""

_PIPELINES = (
    "feature-extraction", "sentence-similarity", "fill-mask", "text-classification", "token-classification",
    "question-answering", "text-generation", "text2text-generation", "summarization", "translation",
    "zero-shot-classification",
)  # fmt: skip
"""What the Hub calls tasks, which cards of bases have among their tags."""
_OF_ITS_OWN = ("pipeline_tag", "datasets")
_INHERITED = ("language", "license", "license_name", "license_link", "pipeline_tag", "datasets")

_LOSSY_BEFORE = "Needed biases were taken away or replaced before this model was fine-tuned, on purpose."
LOSSY = "This model computes something else than its base, on purpose: needed biases are gone or replaced."
"""What a card says first of such a variant."""


def card_text(facts: Facts) -> str:
    """The card as Markdown, front matter first. Needs no network, and is the same for the same facts."""
    parts = [f"---\n{_metadata(facts)}---", facts.mark, *_opening(facts)]
    if facts.training is not None:
        parts += training_sections(facts.training, facts.before, facts.base, frozen_slots(facts.config))
    if facts.before is not None:
        parts += [
            "## The patch before the training",
            *_changes(facts.before.plan, "the source"),
            *_evidence(facts.before.certificate, "###", BEFORE),
        ]
    if facts.plan is not None:
        parts += ["## What was changed", *_changes(facts.plan, _what_was_patched(facts)), *_figure_of_norms(facts)]
        parts += _evidence(facts.certificate, "##", SIDE_FOLDER)
    parts += [*_results(facts), *loading(facts), *_limits(facts), f"## Citation\n\n```bibtex\n{_PAPER}\n```"]
    return sealed("\n\n".join(parts) + "\n")


def _metadata(facts: Facts) -> str:
    """The front matter as YAML.

    Licence and language are the base's, and so are library, pipeline and data sets where the model was only patched.
    `base_model_relation` of a whole checkpoint is `finetune`: of the relations that the Hub knows, the one of a
    checkpoint in the base's precision.
    """
    known: dict[str, Any] = {name: facts.base_card[name] for name in _INHERITED if name in facts.base_card}
    library = facts.base_card.get("library_name", "transformers")
    if facts.training is not None:
        library = "transformers" if facts.adapter is None else "peft"
        known = {name: value for name, value in known.items() if name not in _OF_ITS_OWN} | _of_its_own(facts)
    if facts.base.on_hub:
        known |= {
            "base_model": facts.base.name,
            "base_model_relation": "finetune" if facts.adapter is None else "adapter",
        }
    kind = facts.config.get("model_type")
    own = [kind] if isinstance(kind, str) else []  # a config.json of 2019 names none
    tags = [*dict.fromkeys(["hf-bias-patch", "attention-bias", *own, *_tags(facts)])]
    metrics = sorted({name for result in facts.results.values() for name in result["metrics"] if name != "loss"})
    data = ModelCardData(library_name=library, tags=tags, metrics=metrics or None, **known)
    return data.to_yaml().strip() + "\n"


def _of_its_own(facts: Facts) -> dict[str, Any]:
    """Pipeline and data sets of a fine-tuned model, where the Hub knows them."""
    assert facts.training is not None
    tag, data = pipeline_tag(facts.architecture), facts.training.train_data
    found = {"pipeline_tag": tag} if tag else {}
    return found | ({"datasets": [data["name"]]} if data.get("origin") == "hub" else {})


def _tags(facts: Facts) -> list[str]:
    """The base's, but for those that say how the base is loaded, where training changed that."""
    found = facts.base_card.get("tags", ())
    tags = [found] if isinstance(found, str) else list(found)
    if facts.training is None:
        return tags
    loaded = (facts.base_card.get("library_name"), facts.base_card.get("pipeline_tag"), *_PIPELINES)
    return [tag for tag in tags if tag not in loaded]


def _opening(facts: Facts) -> Iterable[str]:
    if facts.lossy:
        yield f"**{lossy_notice(facts)}**"
    yield f"# {facts.name}"
    what, its_base = link(facts.base), "its base"
    if facts.training is not None and facts.base.trained:
        after = f", after {removed(facts.before.plan)} were removed" if facts.before else ""
        what, its_base = f"{what}, fine-tuned on {tasks(facts.training)}{after}", "the fine-tuned model"
    if facts.plan is None:
        yield f"{what}, made by hf_bias_patch."
        return
    then = "; then " if facts.base.trained else " "
    without = f"{then}without {removed(facts.plan)}" if any(edit.removes for edit in facts.plan.edits) else ""
    yield f"{what}{without}, made by hf_bias_patch."
    if facts.certificate is None:
        yield "Nothing was measured: there is no certificate."
    elif not facts.certificate.passed:
        yield "**Its certificate does not pass: that it computes the same is not proven.**"
    else:
        measured = its_base if facts.base.patches == 1 else f"`{facts.certificate.source.name}`"
        yield f"It computes what {measured} computes: {facts.certificate.headline}"


def lossy_notice(facts: Facts) -> str:
    """What the card of a lossy model says first."""
    return _LOSSY_BEFORE if facts.training is not None and not (facts.plan and facts.plan.lossy) else LOSSY


def _what_was_patched(facts: Facts) -> str:
    if facts.base.patches > 1:
        return f"the checkpoint before this patch, the last of {facts.base.patches} since the base"
    return "the fine-tuned model" if facts.base.trained else "the base"


def _changes(plan: Plan, before: str) -> Iterable[str]:
    rows = []
    for label, edits in by_label(plan).items():
        folds = [edit for edit in edits if edit.action == "fold"]
        reasons = "; ".join(dict.fromkeys(edit.slot.verdict.reason for edit in folds if edit.slot.verdict.reason))
        destination = edits[0].destination
        where = FOLDS[destination].words if destination else "nowhere" if edits[0].removes else "stays"
        rows.append((label, where, places(edits), str(len(edits)), reasons))
    yield table(("action", "where the bias went", "sites", "biases", "verdict"), rows)
    touched = sum(plan.touched.values())
    yield (
        f"{len(plan.touched)} of the checkpoint's tensors were touched ({touched:,} bytes), "
        f"{len(plan.absent)} left the file; all others are those of {before}, byte for byte."
    )
    if plan.recipe.left_out:
        yield "These biases could not be folded within the bounds, and were left as they are:"
        yield "\n".join(f"- {line}" for line in stays(plan.recipe.left_out))


def _figure_of_norms(facts: Facts) -> Iterable[str]:
    if facts.norms:
        yield f"![Norm of each attention bias, by projection and site, in the base and in this variant]({FIGURE})"


def _evidence(certificate: Certificate | None, level: str, folder: str) -> Iterable[str]:
    """What a certificate says, under headings of that level; it lies in that folder."""
    if certificate is None:
        return
    if certificate.equal:
        yield f"{level} What stays equal"
        yield _equal(certificate)
    yield f"{level} Certificate"
    yield from _measured(certificate, f"{folder}/{Path(CERTIFICATE).name}")


def _equal(certificate: Certificate) -> str:
    rows = [
        (
            FLAGS.get(claim.flag, claim.flag),
            "yes" if claim.claimed else "no",
            "not measured" if claim.error is None else f"{claim.error:.1e}",
        )
        for claim in certificate.equal
    ]
    return table(("", "stays equal", "largest relative change, in float64"), rows)


def _measured(certificate: Certificate, place: str) -> Iterable[str]:
    rows = [(f"algebra, float64, {run.where}", *_figure(figure)) for run in certificate.runs for figure in run.algebra]
    rows += [
        (f"deployed, {certificate.dtype}, {run.where}", *_figure(figure))
        for run in certificate.runs
        for figure in run.deployed
    ]
    yield table(("figure", "output", "error", "noise floor", "bound"), rows)
    verdict = "It passes." if certificate.passed else f"It does not pass: {' '.join(certificate.reasons)}"
    yield (
        f"{verdict} {certificate.comparisons:,} numbers were compared; {certificate.tolerance_from}. "
        f"All evidence is in `{place}`."
    )


def _results(facts: Facts) -> Iterable[str]:
    if not facts.results:
        return
    yield "## Scores"
    rows = [
        (result["task"], _data(result), name, f"{value:.2f}")
        for result in facts.results.values()
        for name, value in result["metrics"].items()
    ]
    yield table(("task", "data", "metric", "value"), rows)
    for result in facts.results.values():
        if settings := result.get("decode"):
            said = ", ".join(f"{name} {value}" for name, value in settings.items())
            yield f"Texts of {result['task']} were generated with {said}."


def _data(result: Mapping[str, Any]) -> str:
    if (data := data_of(result)) is not None:
        return str(data)
    return f"data unknown, {result['rows']:,} rows" if result.get("rows") else "data unknown"


def _limits(facts: Facts) -> Iterable[str]:
    yield "## Limits"
    lines = []
    if facts.certificate or facts.before:
        lines.append(
            "Equal means: the same outputs up to rounding, in evaluation. What does not stay equal stands above."
        )
    if facts.training:
        lines.append("The scores are of one run: another seed gives others.")
    lines += list(facts.certificate.notes) if facts.certificate else []
    if licence := _licence(facts.base_card):
        lines.append(f"The base's licence ({licence}) holds for this model too.")
    yield "\n".join(f"- {line}" for line in lines)


def _licence(matter: Mapping[str, Any]) -> str:
    """The licence of a card, as `mit`; with its name where it is `other`."""
    found = matter.get("license") or ()
    names = [found] if isinstance(found, str) else list(found)
    if names == ["other"] and isinstance(name := matter.get("license_name"), str):
        return f"other: {name}"
    return ", ".join(names)


def _figure(figure: ErrorFigure) -> tuple[str, ...]:
    floor = "" if figure.floor is None else f"{figure.floor:.2g}"
    error, bound = told_apart(figure.error, figure.bound)
    return figure.output, error, floor, bound
