"""`verify`: collects the evidence for one variant and makes the certificate."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from hf_bias_patch.checkpoint.dtypes import unit_roundoff
from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import TargetError, VerifyError
from hf_bias_patch.evidence.certificate import ALGEBRA_BOUND, TOLERANCE, Certificate, TensorComparison
from hf_bias_patch.evidence.full_model import Gathered, run_whole
from hf_bias_patch.evidence.layerwise import ONE_ROUNDING, run_layerwise
from hf_bias_patch.evidence.other_files import differences
from hf_bias_patch.evidence.pair import Pair, Step, opened_pair, versions
from hf_bias_patch.evidence.tensors import compare_tensors, norm_bound
from hf_bias_patch.evidence.training import Training, patch_of, read_training
from hf_bias_patch.evidence.verify_training import verify_training
from hf_bias_patch.evidence.working_source import is_writable, source_of
from hf_bias_patch.models.memory import require_to_verify
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import CERTIFICATE, PLAN

__all__ = ["refuse_texts", "verify"]


def verify(
    variant: str | os.PathLike[str],
    against: str | os.PathLike[str] | None = None,
    *,
    texts: Sequence[str] | None = None,
    layerwise: bool = False,
    attention: Sequence[str] = ("eager", "sdpa"),
    seed: int = 0,
    progress: Step | None = None,
) -> Certificate | Training:
    """Measure whether a variant computes what its source computes, and save the certificate in the variant.

    Of a model that `tune` fine-tuned, which computes something else, the training record is made anew instead: what
    trained, and that nothing else differs from the source.

    Args:
        variant: a folder, a safetensors file, `embedded:NAME` or a Hub id.
        against: its source, in the same forms; by default the source is restored from the variant for the time being.
        texts: to use as inputs beside random ids; through the source's tokenizer. Not with `layerwise`.
        layerwise: check each attention site by itself, so that checkpoints larger than memory can be certified.
        attention: attention implementations to run; each must pass. Not used with `layerwise`.
        seed: of the random inputs.
        progress: told what is being done, as each step begins.

    Returns:
        The certificate, or the training record. That it fails is no error: see `passed` and `reasons`. It is also
        written into the variant, unless that cannot be written to.

    Raises:
        SourceError, CheckpointError: one of the two leads nowhere or is damaged.
        VerifyError: evidence cannot be collected, for example because memory is too small, or because nothing says
            what the variant was made from.
    """
    refuse_texts(texts, layerwise)
    step = progress or (lambda what: None)
    new = resolve(variant)
    training = read_training(folder_of(new))
    if training is not None and patch_of(folder_of(new)) is None:
        step("every tensor against the source's")
        return verify_training(new, training, against)
    with source_of(new, against) as source, opened_pair(new, source, step) as pair:
        certificate = _measure(pair, texts, layerwise, attention, seed, step)
    _save(certificate, new)
    return certificate


def refuse_texts(texts: Sequence[str] | None, layerwise: bool) -> None:
    """Refuse texts for a check site by site, which has no use for them.

    Raises:
        VerifyError: both were asked for.
    """
    if texts and layerwise:
        raise VerifyError(
            "A check site by site cannot use texts",
            why="It runs each attention site by itself, on random hidden states",
            remedy="Leave out --texts (texts=) or --layerwise (layerwise=True)",
        )


def _save(certificate: Certificate, variant: Source) -> None:
    """Write a certificate into its variant, in the place of an earlier one.

    A checkpoint that was not patched, is read-only, or lies in the Hub's cache stays as it is.

    Raises:
        TargetError: the disk is full.
    """
    place = folder_of(variant) / CERTIFICATE
    if not (folder_of(variant) / PLAN).is_file() or not is_writable(folder_of(variant)):
        return
    try:
        # A file of its own, even where there was a link: what that leads to is somebody else's.
        replace_file(place, certificate.dumps().encode())
    except OSError as error:
        raise TargetError(f"{place} cannot be written", why=error.strerror or str(error)) from error


def _measure(
    pair: Pair, texts: Sequence[str] | None, layerwise: bool, attention: Sequence[str], seed: int, step: Step
) -> Certificate:
    if layerwise:
        found = run_layerwise(pair, seed, step)
    else:
        require_to_verify(pair.source_files, pair.plan, len(texts or ()), pair.source.name)
        found = run_whole(pair, attention, texts, seed, step)
    tensors = _compare_files(pair, layerwise, step)
    return Certificate(
        mode="layerwise" if layerwise else "whole",
        variant=pair.variant_party,
        source=pair.source_party,
        dtype=pair.dtype,
        seed=seed,
        probes=tuple(found.probes),
        tolerance_from=_tolerance_from(pair, layerwise),
        lossy=pair.lossy,
        recipe=pair.plan.recipe.plain() if pair.plan else None,
        no_algebra=found.no_algebra,
        if_dropped=found.if_dropped,
        runs=tuple(found.runs),
        equal=tuple(found.equal),
        tensors=tensors,
        differs=(
            *([pair.misfit] if pair.misfit else ()),
            *differences(folder_of(pair.variant), folder_of(pair.source)),
        ),
        load_report=found.load_report,
        uncovered=pair.uncovered,
        notes=(*found.notes, *_notes(pair, found)),
        versions=versions(),
    )


def _compare_files(pair: Pair, layerwise: bool, step: Step) -> TensorComparison:
    step("tensors, byte for byte")
    free: Collection[str] | None = pair.touched
    if pair.plan is None and free is None:
        free = pair.in_maps if layerwise else pair.under_test or None
    return compare_tensors(pair.source_files, pair.variant_files, pair.plan, free, pair.absent)


def _tolerance_from(pair: Pair, layerwise: bool) -> str:
    bound = max(ALGEBRA_BOUND, norm_bound(pair.plan.edits) if pair.plan else 0.0)
    why = "the conditioning of the query weights" if bound > ALGEBRA_BOUND else "set for folds that solve nothing"
    algebra = f"float64 figures stay below {bound:.2g} ({why})"
    if pair.dtype == "F64":
        return f"{algebra}; the storage dtype is float64, so deployed figures have the same bound"
    output, least = "each output by itself", f"{unit_roundoff(pair.dtype):.2g}, the rounding of one value"
    if layerwise:
        output = "each site by itself, in root mean square over its output"
        least = f"{ONE_ROUNDING * unit_roundoff(pair.dtype):.2g}, the root mean square of rounding once"
    return (
        f"{algebra}; deployed figures stay below {TOLERANCE:g} times the noise floor, which is measured: the source in "
        f"{pair.dtype} against the source in float64, {output}, on the same inputs, and at least {least}"
    )


def _notes(pair: Pair, found: Gathered) -> list[str]:
    notes = []
    plan = pair.plan
    if pair.chain:
        notes.append(
            f"Tensors that none of the {len(pair.chain)} patches touch were compared byte for byte; for those they "
            "touch there is no one plan to compare with."
        )
    if plan and plan.edits and not plan.changes:
        notes.append("The plan changes no value, so the variant has the weights of its source.")
    if plan and not all(figure.passed for run in found.runs for figure in run.deployed):
        notes += _amplified(plan)
    moves = plan is not None and any(edit.action == "fold" and edit.destination != "nothing" for edit in plan.edits)
    worst = max((figure.bound for run in found.runs for figure in run.deployed), default=0.0)
    if moves and found.if_dropped is not None and found.if_dropped < worst:
        notes.append(
            f"Dropping these biases would move the output by {found.if_dropped:.2g} only, which the deployed figure "
            f"(bound {worst:.2g}) cannot see; the float64 figure and the file contents can."
        )
    return notes


def _amplified(plan: Plan) -> list[str]:
    """A warning if folds amplify rounding so much that the error may exceed its bound, which does not include that."""
    edits = [edit for edit in plan.edits if (edit.amplification or 1.0) > TOLERANCE]
    if not edits:
        return []
    worst = max(edits, key=lambda edit: edit.amplification or 1.0)
    return [
        f"{len(edits)} folds make their bias suffer more than {TOLERANCE:g} times its own rounding error (most: "
        f"{worst.label} at {worst.site}, {worst.amplification:.3g} times). Leave these sites out, or choose another "
        "destination."
    ]
